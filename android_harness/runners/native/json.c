#include "json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void append(struct json *json, const char *text, size_t size)
{
    if (json->failed)
        return;
    if (size > json->capacity - json->size) {
        const size_t capacity = 2 * (json->capacity + size) + 256;
        char *larger = realloc(json->text, capacity);

        if (larger == NULL) {
            json->failed = true;
            return;
        }
        json->text = larger;
        json->capacity = capacity;
    }
    memcpy(json->text + json->size, text, size);
    json->size += size;
}

/* A comma, unless this is the first in its brackets or the value of a key. */
static void separate(struct json *json)
{
    if (json->size > 0 && strchr("{[:", json->text[json->size - 1]) == NULL)
        append(json, ",", 1);
}

/*
 * How many bytes at `text` are one character of UTF-8 that may stand in a string as it is; 0: none.
 * Overlong forms, surrogates and what is beyond U+10FFFF are none.
 */
static size_t character_size(const unsigned char *text)
{
    static const struct {
        unsigned char first, last, next_least, next_most;
        size_t size;
    } forms[] = {
        {0x20, 0x7f, 0, 0, 1},       {0xc2, 0xdf, 0x80, 0xbf, 2}, {0xe0, 0xe0, 0xa0, 0xbf, 3},
        {0xe1, 0xec, 0x80, 0xbf, 3}, {0xed, 0xed, 0x80, 0x9f, 3}, {0xee, 0xef, 0x80, 0xbf, 3},
        {0xf0, 0xf0, 0x90, 0xbf, 4}, {0xf1, 0xf3, 0x80, 0xbf, 4}, {0xf4, 0xf4, 0x80, 0x8f, 4},
    };

    for (size_t form = 0; form < sizeof forms / sizeof forms[0]; form++) {
        if (text[0] < forms[form].first || text[0] > forms[form].last)
            continue;
        if (forms[form].size > 1 &&
            (text[1] < forms[form].next_least || text[1] > forms[form].next_most))
            return 0;
        for (size_t i = 2; i < forms[form].size; i++)
            if (text[i] < 0x80 || text[i] > 0xbf)
                return 0;
        return forms[form].size;
    }
    return 0;
}

static void append_quoted(struct json *json, const char *text)
{
    append(json, "\"", 1);
    while (*text != '\0') {
        const unsigned char byte = (unsigned char)*text;
        const size_t size = character_size((const unsigned char *)text);
        char escaped[8];

        if (byte == '"' || byte == '\\') {
            escaped[0] = '\\';
            escaped[1] = (char)byte;
            append(json, escaped, 2);
        } else if (size > 0) {
            append(json, text, size);
        } else {
            const int length =
                snprintf(escaped, sizeof escaped, "\\u%04x", byte < 0x20 ? byte : 0xfffd);
            append(json, escaped, (size_t)length);
        }
        text += size > 0 ? size : 1;
    }
    append(json, "\"", 1);
}

void json_open(struct json *json, char bracket)
{
    separate(json);
    append(json, &bracket, 1);
}

void json_close(struct json *json, char bracket)
{
    append(json, &bracket, 1);
}

void json_key(struct json *json, const char *key)
{
    separate(json);
    append_quoted(json, key);
    append(json, ":", 1);
}

void json_text(struct json *json, const char *text)
{
    if (text == NULL) {
        json_null(json);
        return;
    }
    separate(json);
    append_quoted(json, text);
}

void json_integer(struct json *json, int64_t value)
{
    char digits[24];
    const int length = snprintf(digits, sizeof digits, "%" PRId64, value);

    separate(json);
    append(json, digits, (size_t)length);
}

void json_real(struct json *json, double value)
{
    char digits[32];
    const int length = snprintf(digits, sizeof digits, "%.6f", value);

    if (!isfinite(value) || length < 0 || (size_t)length >= sizeof digits) {
        json_null(json);
        return;
    }
    separate(json);
    append(json, digits, (size_t)length);
}

void json_bool(struct json *json, bool value)
{
    separate(json);
    append(json, value ? "true" : "false", value ? 4 : 5);
}

void json_null(struct json *json)
{
    separate(json);
    append(json, "null", 4);
}

void json_free(struct json *json)
{
    free(json->text);
    *json = (struct json){0};
}
