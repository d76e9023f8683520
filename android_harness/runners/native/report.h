/* The JSON of one run: record.py in the folder above is its other side, and names every key. */
#ifndef SWIPE_REPORT_H
#define SWIPE_REPORT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "answers.h"
#include "failure.h"
#include "options.h"
#include "readings.h"

enum { CPU_LIST = 4096 }; /* longest list of CPU_SETSIZE CPUs: "0,2,...,1022" is shorter */

/* Readings before a block of timed calls. */
struct block {
    int64_t at_ns; /* since the first timed call */
    uint32_t calls;
    struct reading reading;
};

/* Milliseconds of one cold start; valid together, when `known`. */
struct times {
    bool known;
    double dlopen, load, init, first;
};

struct report {
    const char *stage;
    const char *version, *backend; /* NULL: not known yet */
    char model_sha256[SHA256_HEX]; /* empty: not known yet */
    uint32_t threads;              /* 0: not known yet */
    char cpus[CPU_LIST];           /* those the process may use */
    struct times times;
    int64_t *latency_ns;
    size_t latencies;
    struct block *blocks;
    size_t block_count;
    long rss_start, rss_loaded, rss_peak, pss; /* kB, or UNREAD */
    const struct answers *answers;             /* NULL: none were written */
    bool telemetry_disabled;
};

/* Write it to options->result. `failed` is NULL when all went well. Returns -1 with errno. */
int report_write(const struct report *report, const struct options *options,
                 const struct failure *failed);

#endif
