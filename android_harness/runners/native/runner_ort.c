/* The ONNX Runtime runner: from a library's name to a session, and running it. */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "ort_engine.h"
#include "runner.h"

enum { API_VERSION = 17 };

static const char *const PROVIDERS[] = {"cpu", "xnnpack", "nnapi", NULL};
const struct engine_facts ENGINE = {"onnxruntime", PROVIDERS, true};

typedef OrtStatus *(*append_nnapi)(OrtSessionOptions *options, uint32_t flags);

struct engine *engine_new(void)
{
    return calloc(1, sizeof(struct engine));
}

/* dlsym() gives a data pointer, which C does not convert to one of a function. */
static void find_function(void *library, const char *name, void *out, size_t size)
{
    void *found = dlsym(library, name);

    memcpy(out, &found, size);
}

int engine_open(struct engine *engine, const struct options *options, struct failure *failure)
{
    const OrtApiBase *(*get_base)(void);
    const OrtApiBase *base;

    /* Official builds read it once, when they are loaded. */
    if (setenv("ORT_DISABLE_TELEMETRY", "1", 1) != 0)
        return fail(failure, "dlopen", "telemetry cannot be turned off");
    engine->library = dlopen(options->library, RTLD_NOW | RTLD_LOCAL);
    if (engine->library == NULL)
        return fail(failure, "dlopen", "%s", dlerror());
    find_function(engine->library, "OrtGetApiBase", &get_base, sizeof get_base);
    if (get_base == NULL)
        return fail(failure, "dlopen", "%s is not ONNX Runtime", options->library);
    base = get_base();
    engine->version = base->GetVersionString();
    engine->api = base->GetApi(API_VERSION);
    if (engine->api == NULL)
        return fail(failure, "dlopen", "ONNX Runtime %s is older than API %d", engine->version,
                    API_VERSION);
    return 0;
}

/* XNNPACK has threads of its own; the library's documentation asks for one in the session then. */
static int add_xnnpack(struct engine *engine, struct failure *failure)
{
    const OrtApi *api = engine->api;
    const char *const keys[] = {"intra_op_num_threads"};
    char threads[16];
    const char *const values[] = {threads};

    (void)snprintf(threads, sizeof threads, "%u", engine->threads);
    if (ort_check(engine, api->SetIntraOpNumThreads(engine->options, 1), failure, "load") != 0 ||
        ort_check(
            engine,
            api->AddSessionConfigEntry(engine->options, "session.intra_op.allow_spinning", "0"),
            failure, "load") != 0)
        return -1;
    return ort_check(
        engine,
        api->SessionOptionsAppendExecutionProvider(engine->options, "XNNPACK", keys, values, 1),
        failure, "load");
}

static int add_nnapi(struct engine *engine, struct failure *failure)
{
    append_nnapi append;

    find_function(engine->library, "OrtSessionOptionsAppendExecutionProvider_Nnapi", &append,
                  sizeof append);
    if (append == NULL)
        return fail(failure, "load", "this build of ONNX Runtime has no nnapi");
    return ort_check(engine, append(engine->options, 0), failure, "load");
}

static int add_provider(struct engine *engine, const char *name, struct failure *failure)
{
    if (strcmp(name, "xnnpack") == 0)
        return add_xnnpack(engine, failure);
    if (strcmp(name, "nnapi") == 0)
        return add_nnapi(engine, failure);
    return 0;
}

static int create_environment(struct engine *engine, struct failure *failure)
{
    const OrtApi *api = engine->api;

    if (ort_check(engine, api->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "swipe", &engine->env), failure,
                  "load") != 0 ||
        ort_check(engine, api->DisableTelemetryEvents(engine->env), failure, "load") != 0)
        return -1;
    engine->telemetry_disabled = true;
    return 0;
}

int engine_load(struct engine *engine, const struct options *options, struct failure *failure)
{
    const OrtApi *api = engine->api;

    if (create_environment(engine, failure) != 0)
        return -1;
    engine->threads = options->threads;
    engine->backend = options->ep;
    if (ort_check(engine, api->CreateSessionOptions(&engine->options), failure, "load") != 0 ||
        ort_check(engine, api->SetIntraOpNumThreads(engine->options, (int)options->threads),
                  failure, "load") != 0 ||
        ort_check(engine, api->SetInterOpNumThreads(engine->options, 1), failure, "load") != 0 ||
        ort_check(engine, api->SetSessionGraphOptimizationLevel(engine->options, ORT_ENABLE_ALL),
                  failure, "load") != 0 ||
        add_provider(engine, options->ep, failure) != 0)
        return -1;
    return ort_check(
        engine, api->CreateSession(engine->env, options->model, engine->options, &engine->session),
        failure, "load");
}

static int add_output(struct engine *engine, size_t index, struct failure *failure)
{
    const OrtApi *api = engine->api;
    struct declared *output = &engine->declared[engine->outputs];
    OrtTypeInfo *info;
    char *name, *copy;

    if (ort_check(engine, api->SessionGetOutputTypeInfo(engine->session, index, &info), failure,
                  "init") != 0 ||
        ort_read_type(engine, info, &output->type, failure) != 0)
        return -1;
    if (output->type == 0)
        return 0; /* such as text */
    if (ort_check(engine,
                  api->SessionGetOutputName(engine->session, index, engine->allocator, &name),
                  failure, "init") != 0)
        return -1;
    copy = strdup(name);
    engine->allocator->Free(engine->allocator, name);
    if (copy == NULL)
        return fail(failure, "init", "no memory");
    output->name = copy;
    engine->output_names[engine->outputs++] = output->name;
    return 0;
}

int engine_init(struct engine *engine, struct failure *failure)
{
    const OrtApi *api = engine->api;
    size_t outputs;

    if (ort_check(engine, api->GetAllocatorWithDefaultOptions(&engine->allocator), failure,
                  "init") != 0 ||
        ort_check(engine,
                  api->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &engine->memory),
                  failure, "init") != 0 ||
        ort_check(engine, api->SessionGetOutputCount(engine->session, &outputs), failure, "init") !=
            0)
        return -1;
    engine->declared = calloc(outputs + 1, sizeof *engine->declared);
    engine->output_names = calloc(outputs + 1, sizeof *engine->output_names);
    engine->returned = calloc(outputs + 1, sizeof *engine->returned);
    if (engine->declared == NULL || engine->output_names == NULL || engine->returned == NULL)
        return fail(failure, "init", "no memory");
    for (size_t i = 0; i < outputs; i++)
        if (add_output(engine, i, failure) != 0)
            return -1;
    return engine->outputs > 0 ? 0 : fail(failure, "init", "it has no output of a numeric type");
}

const char *engine_version(const struct engine *engine)
{
    return engine->version;
}

bool engine_telemetry_disabled(const struct engine *engine)
{
    return engine->telemetry_disabled;
}

const char *engine_backend(const struct engine *engine)
{
    return engine->backend;
}

uint32_t engine_threads(const struct engine *engine)
{
    return engine->threads;
}

const struct declared *engine_outputs(const struct engine *engine, uint32_t *count)
{
    *count = engine->outputs;
    return engine->declared;
}

int engine_run(struct engine *engine, uint32_t call, struct failure *failure)
{
    const OrtValue *const *inputs =
        (const OrtValue *const *)(engine->values + (size_t)call * engine->inputs);

    return ort_check(engine,
                     engine->api->Run(engine->session, NULL, engine->input_names, inputs,
                                      engine->inputs, engine->output_names, engine->outputs,
                                      engine->returned),
                     failure, "run");
}

void engine_release(struct engine *engine)
{
    for (uint32_t i = 0; i < engine->outputs; i++) {
        engine->api->ReleaseValue(engine->returned[i]); /* NULL is fine */
        engine->returned[i] = NULL;
    }
}

static void release_values(struct engine *engine)
{
    const size_t count = (size_t)engine->calls * engine->inputs;

    for (size_t i = 0; i < count; i++)
        engine->api->ReleaseValue(engine->values[i]);
    for (uint32_t i = 0; i < engine->outputs; i++)
        free(engine->declared[i].name);
    free(engine->values);
    free(engine->input_names);
    free(engine->declared);
    free(engine->output_names);
    free(engine->returned);
}

/* The library stays open: its threads may still be ending. */
void engine_close(struct engine *engine)
{
    if (engine == NULL)
        return;
    if (engine->api != NULL) {
        engine_release(engine);
        release_values(engine);
        engine->api->ReleaseMemoryInfo(engine->memory);
        engine->api->ReleaseSession(engine->session);
        engine->api->ReleaseSessionOptions(engine->options);
        engine->api->ReleaseEnv(engine->env);
    }
    free(engine);
}

int main(int count, char **words)
{
    return run_program(count, words);
}
