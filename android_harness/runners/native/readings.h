/*
 * What the device says about itself while it computes: clock, memory, temperature, frequency.
 * A value that it does not show is UNREAD, never a guess.
 */
#ifndef SWIPE_READINGS_H
#define SWIPE_READINGS_H

#include <limits.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>

#define UNREAD LONG_MIN

/* Monotonic nanoseconds. */
int64_t now_ns(void);

/* Kilobytes behind `key` of a file like /proc/self/status, e.g. "VmRSS". */
long read_kb(const char *path, const char *key);

/* Where the readings of a block come from, found once. */
struct sensors {
    char **zones; /* files with the temperature of a CPU zone */
    size_t zone_count;
    cpu_set_t cpus; /* of this process */
};

struct reading {
    long temp_mc; /* hottest CPU zone, thousandths of a degree */
    long khz_cur; /* frequency of the CPU that this thread is on */
    long khz_max; /* the most that the governor allows: lowest over the CPUs of this process */
    long cpu;     /* that this thread is on */
};

/* Returns -1 when there is no memory; sensors_close() is due in both cases. */
int sensors_open(struct sensors *sensors, const cpu_set_t *cpus);
void sensors_read(const struct sensors *sensors, struct reading *out);
void sensors_close(struct sensors *sensors);

#endif
