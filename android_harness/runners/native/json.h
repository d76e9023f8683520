/*
 * A JSON text that grows in memory. Strings are escaped and always come out as UTF-8: bytes that
 * are none become U+FFFD. When memory runs out the text is marked as failed and stays so.
 */
#ifndef SWIPE_JSON_H
#define SWIPE_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct json {
    char *text; /* not ended by 0 */
    size_t size, capacity;
    bool failed;
};

/* Brackets: '{' or '[' opens, '}' or ']' closes. Commas come by themselves. */
void json_open(struct json *json, char bracket);
void json_close(struct json *json, char bracket);
void json_key(struct json *json, const char *key);

/* Values; NULL as text is null. */
void json_text(struct json *json, const char *text);
void json_integer(struct json *json, int64_t value);
void json_real(struct json *json, double value);
void json_bool(struct json *json, bool value);
void json_null(struct json *json);

void json_free(struct json *json);

#endif
