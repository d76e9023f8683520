#include "readings.h"

#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

/* Tests have a tree of their own. */
#ifndef SYSFS
#define SYSFS "/sys"
#endif

#define THERMAL SYSFS "/class/thermal"
#define CPU SYSFS "/devices/system/cpu"

/*
 * Drivers report a sensor that is off as 0, as 0 K, or as a huge number; some count in units of
 * their own. readings.py in devices, two folders above, has the same bounds.
 */
enum { COLDEST_MC = 1000, HOTTEST_MC = 199999 };

int64_t now_ns(void)
{
    struct timespec now;

    if (clock_gettime(CLOCK_MONOTONIC, &now) != 0)
        abort(); /* only for a clock that does not exist */
    return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

long read_kb(const char *path, const char *key)
{
    const size_t length = strlen(key);
    char line[256];
    long value = UNREAD;
    FILE *stream = fopen(path, "re");

    if (stream == NULL)
        return UNREAD;
    while (value == UNREAD && fgets(line, sizeof line, stream) != NULL)
        if (strncmp(line, key, length) == 0 && line[length] == ':')
            (void)sscanf(line + length + 1, "%ld", &value);
    (void)fclose(stream); /* it was only read */
    return value;
}

static long read_long(const char *path)
{
    long value;
    int found;
    FILE *stream = fopen(path, "re");

    if (stream == NULL)
        return UNREAD;
    found = fscanf(stream, "%ld", &value);
    (void)fclose(stream);
    return found == 1 ? value : UNREAD;
}

/* Whether a zone is of a CPU: most types say so, Tensor chips and PCs have names of their own. */
static bool is_cpu_zone(const char *type)
{
    static const char *const names[] = {"BIG", "MID", "LITTLE", "x86_pkg_temp"};

    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(type, names[i]) == 0)
            return true;
    for (; *type != '\0'; type++)
        if (strncasecmp(type, "cpu", 3) == 0)
            return true;
    return false;
}

static bool read_zone_type(const char *zone, char *out, size_t size)
{
    char path[sizeof THERMAL + sizeof "/" + NAME_MAX + sizeof "/type"];
    bool found;
    FILE *stream;

    (void)snprintf(path, sizeof path, THERMAL "/%s/type", zone);
    stream = fopen(path, "re");
    if (stream == NULL)
        return false;
    found = fgets(out, (int)size, stream) != NULL;
    (void)fclose(stream);
    if (found)
        out[strcspn(out, "\n")] = '\0';
    return found;
}

static int add_zone(struct sensors *sensors, const char *zone)
{
    const size_t size = sizeof THERMAL + sizeof "/" + strlen(zone) + sizeof "/temp";
    char **larger = realloc(sensors->zones, (sensors->zone_count + 1) * sizeof *larger);
    char *path;

    if (larger == NULL)
        return -1;
    sensors->zones = larger;
    path = malloc(size);
    if (path == NULL)
        return -1;
    (void)snprintf(path, size, THERMAL "/%s/temp", zone);
    sensors->zones[sensors->zone_count++] = path;
    return 0;
}

int sensors_open(struct sensors *sensors, const cpu_set_t *cpus)
{
    const struct dirent *entry;
    char type[64];
    int status = 0;
    DIR *folder = opendir(THERMAL);

    *sensors = (struct sensors){.cpus = *cpus};
    if (folder == NULL)
        return 0; /* nothing to read is no error */
    while (status == 0 && (entry = readdir(folder)) != NULL)
        if (strncmp(entry->d_name, "thermal_zone", 12) == 0 &&
            read_zone_type(entry->d_name, type, sizeof type) && is_cpu_zone(type))
            status = add_zone(sensors, entry->d_name);
    (void)closedir(folder);
    return status;
}

static long read_frequency(int cpu, const char *name)
{
    char path[sizeof CPU + 64];

    (void)snprintf(path, sizeof path, CPU "/cpu%d/cpufreq/%s", cpu, name);
    return read_long(path);
}

static long lowest_limit(const cpu_set_t *cpus)
{
    long lowest = UNREAD;

    for (int cpu = 0; cpu < CPU_SETSIZE; cpu++) {
        long limit;

        if (!CPU_ISSET((size_t)cpu, cpus))
            continue;
        limit = read_frequency(cpu, "scaling_max_freq");
        if (limit != UNREAD && (lowest == UNREAD || limit < lowest))
            lowest = limit;
    }
    return lowest;
}

static long hottest_zone(const struct sensors *sensors)
{
    long hottest = UNREAD;

    for (size_t i = 0; i < sensors->zone_count; i++) {
        const long temp = read_long(sensors->zones[i]);

        if (temp >= COLDEST_MC && temp <= HOTTEST_MC && temp > hottest)
            hottest = temp;
    }
    return hottest;
}

void sensors_read(const struct sensors *sensors, struct reading *out)
{
    const int cpu = sched_getcpu();

    out->cpu = cpu < 0 ? UNREAD : cpu;
    out->khz_cur = cpu < 0 ? UNREAD : read_frequency(cpu, "scaling_cur_freq");
    out->khz_max = lowest_limit(&sensors->cpus);
    out->temp_mc = hottest_zone(sensors);
}

void sensors_close(struct sensors *sensors)
{
    for (size_t i = 0; i < sensors->zone_count; i++)
        free(sensors->zones[i]);
    free(sensors->zones);
    *sensors = (struct sensors){0};
}
