/* Sets of CPUs, as lists in the kernel's words: "0-3,6". */
#ifndef SWIPE_CPUS_H
#define SWIPE_CPUS_H

#include <sched.h>
#include <stdbool.h>
#include <stddef.h>

/* Read a list. False: it is empty, malformed, descends, or names a CPU beyond CPU_SETSIZE. */
bool cpus_parse(const char *list, cpu_set_t *out);

/* Write `set` as a list, ended by 0. False: `size` is too small. */
bool cpus_format(const cpu_set_t *set, char *out, size_t size);

#endif
