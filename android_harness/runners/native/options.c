#include "options.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum kind { TEXT, COUNT, SECONDS, FLAG };

struct row {
    const char *name;
    enum kind kind;
    size_t offset; /* in struct options */
    uint32_t least, most;
    bool required;
};

#define MOST_TIMED 10000000u
#define A_DAY 86400u
#define FIELD(member) offsetof(struct options, member)

static const struct row ROWS[] = {
    {"--model", TEXT, FIELD(model), 0, 0, true},
    {"--pack", TEXT, FIELD(pack), 0, 0, true},
    {"--result", TEXT, FIELD(result), 0, 0, true},
    {"--nonce", TEXT, FIELD(nonce), 0, 0, true},
    {"--outputs", TEXT, FIELD(outputs), 0, 0, false},
    {"--cpus", TEXT, FIELD(cpus), 0, 0, false},
    {"--ep", TEXT, FIELD(ep), 0, 0, false},
    {"--lib", TEXT, FIELD(library), 0, 0, false},
    {"--timed", COUNT, FIELD(timed), 0, MOST_TIMED, false},
    {"--warmup", COUNT, FIELD(warmup), 0, MOST_TIMED, false},
    {"--iters", COUNT, FIELD(iters), 0, MOST_TIMED, false},
    {"--block", COUNT, FIELD(block), 1, MOST_TIMED, false},
    {"--threads", COUNT, FIELD(threads), 1, 1024, false},
    {"--min-secs", SECONDS, FIELD(min_secs), 0, A_DAY, false},
    {"--max-secs", SECONDS, FIELD(max_secs), 0, A_DAY, false},
    {"--tether", FLAG, FIELD(tether), 0, 0, false},
};

enum { ROW_COUNT = sizeof ROWS / sizeof ROWS[0] };

static int find_row(const char *word)
{
    for (int i = 0; i < ROW_COUNT; i++)
        if (strcmp(ROWS[i].name, word) == 0)
            return i;
    return -1;
}

/* A whole number in decimal digits only: strtoul alone takes " -1" for one. */
static int read_count(const char *text, const struct row *row, uint32_t *out)
{
    unsigned long value;
    char *end;

    errno = 0;
    value = strtoul(text, &end, 10);
    if (!isdigit((unsigned char)text[0]) || *end != '\0' || errno != 0 || value < row->least ||
        value > row->most) {
        fprintf(stderr, "%s takes a whole number from %u to %u, not '%s'\n", row->name, row->least,
                row->most, text);
        return -1;
    }
    *out = (uint32_t)value;
    return 0;
}

static int read_seconds(const char *text, const struct row *row, double *out)
{
    double value;
    char *end;

    errno = 0;
    value = strtod(text, &end);
    if (!isdigit((unsigned char)text[0]) || *end != '\0' || errno != 0 || !isfinite(value) ||
        value > row->most) {
        fprintf(stderr, "%s takes seconds from 0 to %u, not '%s'\n", row->name, row->most, text);
        return -1;
    }
    *out = value;
    return 0;
}

/* A flag has no value: whatever is given for one is not looked at. */
static int read_value(const char *text, const struct row *row, struct options *out)
{
    char *field = (char *)out + row->offset;

    switch (row->kind) {
    case TEXT:
        if (text[0] == '\0') {
            fprintf(stderr, "%s is empty\n", row->name);
            return -1;
        }
        memcpy(field, &text, sizeof text);
        return 0;
    case COUNT:
        return read_count(text, row, (uint32_t *)(void *)field);
    case SECONDS:
        return read_seconds(text, row, (double *)(void *)field);
    case FLAG:
        break;
    }
    *(bool *)(void *)field = true;
    return 0;
}

static int check_together(const struct options *given)
{
    if (given->iters > 0 && given->timed == 0) {
        fprintf(stderr, "--iters needs --timed: how many calls of the pack are timed\n");
        return -1;
    }
    if (given->min_secs > given->max_secs) {
        fprintf(stderr, "--min-secs is more than --max-secs\n");
        return -1;
    }
    return 0;
}

int parse_options(int count, char **words, struct options *out)
{
    bool seen[ROW_COUNT] = {false};

    *out = (struct options){.ep = "cpu", .warmup = 10, .block = 10, .threads = 1, .max_secs = 60};
    for (int i = 1; i < count; i++) {
        const int row = find_row(words[i]);

        if (row < 0 || seen[row]) {
            fprintf(stderr, "%s option: %s\n", row < 0 ? "unknown" : "repeated", words[i]);
            return -1;
        }
        seen[row] = true;
        if (ROWS[row].kind != FLAG && ++i == count) {
            fprintf(stderr, "%s needs a value\n", ROWS[row].name);
            return -1;
        }
        if (read_value(words[i], &ROWS[row], out) != 0)
            return -1;
    }
    for (int row = 0; row < ROW_COUNT; row++) {
        if (ROWS[row].required && !seen[row]) {
            fprintf(stderr, "missing option: %s\n", ROWS[row].name);
            return -1;
        }
    }
    return check_together(out);
}
