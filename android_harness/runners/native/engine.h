/*
 * What runner.c asks of an engine. Each program links one implementation of these functions:
 * runner_ort.c or runner_et.cpp. They are called in this order; the ones that return int give 0, or
 * -1 with the failure filled in.
 */
#ifndef SWIPE_ENGINE_H
#define SWIPE_ENGINE_H

#include <stdbool.h>
#include <stdint.h>

#include "failure.h"
#include "options.h"
#include "pack.h"

#ifdef __cplusplus
extern "C" {
#endif

struct engine;

/* What is known of the engine before it is opened. */
struct engine_facts {
    const char *name;             /* as in the JSON */
    const char *const *providers; /* values of --ep; ended by NULL */
    bool takes_library;           /* whether --lib says where the engine is */
};
extern const struct engine_facts ENGINE;

/* An engine with nothing opened; NULL: no memory. engine_close() takes it, or NULL. */
struct engine *engine_new(void);
void engine_close(struct engine *engine);

/* Open the shared library, if it is not linked, with telemetry off from the start. */
int engine_open(struct engine *engine, const struct options *options, struct failure *failure);
/* From the artefact's path to a session or program. */
int engine_load(struct engine *engine, const struct options *options, struct failure *failure);
/* From there to something that can be called. */
int engine_init(struct engine *engine, struct failure *failure);

/* After engine_open(), until engine_close(). */
const char *engine_version(const struct engine *engine);
bool engine_telemetry_disabled(const struct engine *engine);
/* After engine_init(). `count` outputs of numeric type; the others are never collected. */
const char *engine_backend(const struct engine *engine);
uint32_t engine_threads(const struct engine *engine);
const struct declared *engine_outputs(const struct engine *engine, uint32_t *count);

/* Match the pack's inputs to the artefact's and make every call ready to run. */
int engine_prepare(struct engine *engine, const struct pack *pack, struct failure *failure);

/* Execute a call that was made ready: the one function whose time is taken. */
int engine_run(struct engine *engine, uint32_t call, struct failure *failure);
/* The numeric outputs of the last call, valid until engine_release(). */
int engine_collect(struct engine *engine, struct tensor *out, struct failure *failure);
/* Let go of what the last call returned; also after a call that failed. */
void engine_release(struct engine *engine);

#ifdef __cplusplus
}
#endif

#endif
