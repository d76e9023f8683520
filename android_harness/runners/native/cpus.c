#include "cpus.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

/* The number at `*text`, which is moved behind it; -1: there is none, or it is no CPU. */
static int take_cpu(const char **text)
{
    char *end;
    unsigned long cpu;

    if (!isdigit((unsigned char)**text))
        return -1;
    cpu = strtoul(*text, &end, 10);
    *text = end;
    return cpu < CPU_SETSIZE ? (int)cpu : -1;
}

bool cpus_parse(const char *list, cpu_set_t *out)
{
    CPU_ZERO(out);
    for (;;) {
        const int first = take_cpu(&list);
        int last = first;

        if (*list == '-') {
            list++;
            last = take_cpu(&list);
        }
        if (first < 0 || last < first)
            return false;
        for (int cpu = first; cpu <= last; cpu++)
            CPU_SET((size_t)cpu, out);
        if (*list == '\0')
            return true;
        if (*list++ != ',')
            return false;
    }
}

bool cpus_format(const cpu_set_t *set, char *out, size_t size)
{
    size_t used = 0;

    if (size == 0)
        return false;
    out[0] = '\0';
    for (int first = 0; first < CPU_SETSIZE; first++) {
        int last = first, length;

        if (!CPU_ISSET((size_t)first, set))
            continue;
        while (last + 1 < CPU_SETSIZE && CPU_ISSET((size_t)last + 1, set))
            last++;
        length = snprintf(out + used, size - used, last > first ? "%s%d-%d" : "%s%d",
                          used > 0 ? "," : "", first, last);
        if (length < 0 || (size_t)length >= size - used)
            return false;
        used += (size_t)length;
        first = last;
    }
    return true;
}
