/*
 * ONNX Runtime as an engine: its library is opened by name, so that one program serves every
 * release from API 17 (1.17) on. What ort_inputs.c and ort_outputs.c share with runner_ort.c.
 */
#ifndef SWIPE_ORT_ENGINE_H
#define SWIPE_ORT_ENGINE_H

#include <onnxruntime_c_api.h>

#include "engine.h"

struct engine {
    void *library;
    const OrtApi *api;
    const char *version;
    const char *backend;
    uint32_t threads;
    bool telemetry_disabled;
    OrtEnv *env;
    OrtSessionOptions *options;
    OrtSession *session;
    OrtAllocator *allocator; /* the library's own */
    OrtMemoryInfo *memory;
    uint32_t outputs;          /* of numeric type */
    struct declared *declared; /* [outputs] */
    const char **output_names; /* [outputs], those of `declared` */
    OrtValue **returned;       /* [outputs], of the last call */
    uint32_t inputs, calls;
    const char **input_names; /* [inputs], the pack's */
    OrtValue **values;        /* [calls][inputs] */
};

/* Turn what the library answers into 0, or -1 with the failure filled in. */
int ort_check(const struct engine *engine, OrtStatus *status, struct failure *failure,
              const char *stage);

/*
 * The pack's code for the type of an input or output; 0: it is no tensor, or of a type that no pack
 * can hold. Releases `info`.
 */
int ort_read_type(const struct engine *engine, OrtTypeInfo *info, uint32_t *out,
                  struct failure *failure);

#endif
