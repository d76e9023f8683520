/*
 * The command line, the same for every runner: record.py in the folder above is its other side.
 * Nothing is guessed: an unknown, repeated, missing or contradictory option ends the program.
 */
#ifndef SWIPE_OPTIONS_H
#define SWIPE_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

struct options {
    const char *model;   /* the artefact */
    const char *pack;    /* the calls, see pack.h */
    const char *result;  /* where the JSON goes */
    const char *nonce;   /* comes back in the JSON */
    const char *outputs; /* where the answers to all calls go; NULL: they are not wanted */
    const char *cpus;    /* list of CPUs to stay on, e.g. "4-7"; NULL: any */
    const char *ep;      /* execution provider */
    const char *library; /* the engine's shared library; NULL where it is linked */
    uint32_t timed;      /* calls of the pack, from the first, over which timing rotates */
    uint32_t warmup;     /* calls before anything is timed */
    uint32_t iters;      /* least number of timed calls; 0: nothing is timed */
    uint32_t block;      /* timed calls between two readings of the device */
    uint32_t threads;
    double min_secs; /* least seconds of timed calls */
    double max_secs; /* most seconds of timed calls */
    bool tether;     /* end when stdin or the parent does */
};

/* Read the command line into `out`. Returns -1 after a line on stderr that says what is wrong. */
int parse_options(int count, char **words, struct options *out);

#ifdef __cplusplus
}
#endif

#endif
