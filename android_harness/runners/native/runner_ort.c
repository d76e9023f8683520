/*
 * ONNX Runtime as an engine: its library is opened by name, so that one program serves every
 * release from API 17 (1.17) on. Inputs go by name, as OrtValues that lie on the mapped pack.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <onnxruntime_c_api.h>

#include "engine.h"
#include "runner.h"

enum { API_VERSION = 17 };

static const char *const PROVIDERS[] = {"cpu", "xnnpack", "nnapi", NULL};
const struct engine_facts ENGINE = {"onnxruntime", PROVIDERS, true};

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

typedef OrtStatus *(*append_nnapi)(OrtSessionOptions *options, uint32_t flags);

/* Turn what the library answers into 0 or a failure. */
static int check(const struct engine *engine, OrtStatus *status, struct failure *failure,
                 const char *stage)
{
    if (status == NULL)
        return 0;
    (void)fail(failure, stage, "%s", engine->api->GetErrorMessage(status));
    engine->api->ReleaseStatus(status);
    return -1;
}

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
    if (check(engine, api->SetIntraOpNumThreads(engine->options, 1), failure, "load") != 0 ||
        check(engine,
              api->AddSessionConfigEntry(engine->options, "session.intra_op.allow_spinning", "0"),
              failure, "load") != 0)
        return -1;
    return check(
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
    return check(engine, append(engine->options, 0), failure, "load");
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

    if (check(engine, api->CreateEnv(ORT_LOGGING_LEVEL_FATAL, "swipe", &engine->env), failure,
              "load") != 0 ||
        check(engine, api->DisableTelemetryEvents(engine->env), failure, "load") != 0)
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
    if (check(engine, api->CreateSessionOptions(&engine->options), failure, "load") != 0 ||
        check(engine, api->SetIntraOpNumThreads(engine->options, (int)options->threads), failure,
              "load") != 0 ||
        check(engine, api->SetInterOpNumThreads(engine->options, 1), failure, "load") != 0 ||
        check(engine, api->SetSessionGraphOptimizationLevel(engine->options, ORT_ENABLE_ALL),
              failure, "load") != 0 ||
        add_provider(engine, options->ep, failure) != 0)
        return -1;
    return check(engine,
                 api->CreateSession(engine->env, options->model, engine->options, &engine->session),
                 failure, "load");
}

/* The type of an input or output; 0: it is no tensor, or one that no pack can hold. */
static int read_type(const struct engine *engine, OrtTypeInfo *info, uint32_t *out,
                     struct failure *failure)
{
    const OrtApi *api = engine->api;
    const OrtTensorTypeAndShapeInfo *tensor = NULL;
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    int status;

    status = check(engine, api->CastTypeInfoToTensorInfo(info, &tensor), failure, "init");
    if (status == 0 && tensor != NULL)
        status = check(engine, api->GetTensorElementType(tensor, &type), failure, "init");
    api->ReleaseTypeInfo(info);
    *out = pack_type_size((uint32_t)type) > 0 ? (uint32_t)type : 0;
    return status;
}

static int add_output(struct engine *engine, size_t index, struct failure *failure)
{
    const OrtApi *api = engine->api;
    struct declared *output = &engine->declared[engine->outputs];
    OrtTypeInfo *info;
    char *name;

    if (check(engine, api->SessionGetOutputTypeInfo(engine->session, index, &info), failure,
              "init") != 0 ||
        read_type(engine, info, &output->type, failure) != 0)
        return -1;
    if (output->type == 0)
        return 0; /* such as text */
    if (check(engine, api->SessionGetOutputName(engine->session, index, engine->allocator, &name),
              failure, "init") != 0)
        return -1;
    output->name = strdup(name);
    engine->allocator->Free(engine->allocator, name);
    if (output->name == NULL)
        return fail(failure, "init", "no memory");
    engine->output_names[engine->outputs++] = output->name;
    return 0;
}

int engine_init(struct engine *engine, struct failure *failure)
{
    const OrtApi *api = engine->api;
    size_t outputs;

    if (check(engine, api->GetAllocatorWithDefaultOptions(&engine->allocator), failure, "init") !=
            0 ||
        check(engine,
              api->CreateCpuMemoryInfo(OrtDeviceAllocator, OrtMemTypeDefault, &engine->memory),
              failure, "init") != 0 ||
        check(engine, api->SessionGetOutputCount(engine->session, &outputs), failure, "init") != 0)
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

/* Where in the pack the artefact's input `name` is; -1: nowhere. */
static int find_input(const struct pack *pack, const char *name)
{
    for (uint32_t i = 0; i < pack->inputs; i++)
        if (strcmp(pack->declared[i].name, name) == 0)
            return (int)i;
    return -1;
}

static int match_type(struct engine *engine, size_t index, const struct declared *given,
                      struct failure *failure)
{
    OrtTypeInfo *info;
    uint32_t type;

    if (check(engine, engine->api->SessionGetInputTypeInfo(engine->session, index, &info), failure,
              "inputs") != 0 ||
        read_type(engine, info, &type, failure) != 0)
        return -1;
    if (type != given->type)
        return fail(failure, "inputs", "input '%s' takes %s, the pack holds %s", given->name,
                    pack_type_name(type), pack_type_name(given->type));
    return 0;
}

static int match_input(struct engine *engine, size_t index, const struct pack *pack,
                       struct failure *failure)
{
    char *name;
    int place;

    if (check(engine,
              engine->api->SessionGetInputName(engine->session, index, engine->allocator, &name),
              failure, "inputs") != 0)
        return -1;
    place = find_input(pack, name);
    if (place < 0)
        (void)fail(failure, "inputs", "the pack holds no input '%s'", name);
    engine->allocator->Free(engine->allocator, name);
    return place < 0 ? -1 : match_type(engine, index, &pack->declared[place], failure);
}

static int match_inputs(struct engine *engine, const struct pack *pack, struct failure *failure)
{
    size_t count;

    if (check(engine, engine->api->SessionGetInputCount(engine->session, &count), failure,
              "inputs") != 0)
        return -1;
    for (size_t i = 0; i < count; i++)
        if (match_input(engine, i, pack, failure) != 0)
            return -1;
    /* Names are unique on both sides: as many, and each found, is the same. */
    if (count != pack->inputs)
        return fail(failure, "inputs", "the artefact takes %zu inputs, the pack holds %u", count,
                    pack->inputs);
    return 0;
}

static int make_value(struct engine *engine, const struct pack *pack, size_t number,
                      struct failure *failure)
{
    const struct tensor *tensor = &pack->tensors[number];
    const uint32_t type = pack->declared[number % pack->inputs].type;

    return check(engine,
                 engine->api->CreateTensorWithDataAsOrtValue(
                     engine->memory, tensor->data, (size_t)tensor->bytes, tensor->sizes,
                     tensor->rank, (ONNXTensorElementDataType)type, &engine->values[number]),
                 failure, "inputs");
}

int engine_prepare(struct engine *engine, const struct pack *pack, struct failure *failure)
{
    const size_t count = (size_t)pack->calls * pack->inputs;

    if (match_inputs(engine, pack, failure) != 0)
        return -1;
    engine->input_names = calloc(pack->inputs, sizeof *engine->input_names);
    engine->values = calloc(count, sizeof *engine->values);
    if (engine->input_names == NULL || engine->values == NULL)
        return fail(failure, "inputs", "no memory");
    engine->inputs = pack->inputs;
    engine->calls = pack->calls;
    for (uint32_t i = 0; i < pack->inputs; i++)
        engine->input_names[i] = pack->declared[i].name;
    for (size_t number = 0; number < count; number++)
        if (make_value(engine, pack, number, failure) != 0)
            return -1;
    return 0;
}

int engine_run(struct engine *engine, uint32_t call, struct failure *failure)
{
    const OrtValue *const *inputs =
        (const OrtValue *const *)(engine->values + (size_t)call * engine->inputs);

    return check(engine,
                 engine->api->Run(engine->session, NULL, engine->input_names, inputs,
                                  engine->inputs, engine->output_names, engine->outputs,
                                  engine->returned),
                 failure, "run");
}

static int read_shape(const struct engine *engine, const OrtTensorTypeAndShapeInfo *info,
                      uint32_t expected, struct tensor *out, struct failure *failure)
{
    const OrtApi *api = engine->api;
    ONNXTensorElementDataType type;
    size_t rank, elements;

    if (check(engine, api->GetTensorElementType(info, &type), failure, "run") != 0 ||
        check(engine, api->GetTensorShapeElementCount(info, &elements), failure, "run") != 0 ||
        check(engine, api->GetDimensionsCount(info, &rank), failure, "run") != 0)
        return -1;
    if ((uint32_t)type != expected || rank > PACK_MAX_RANK)
        return fail(failure, "run", "an output of type %d and rank %zu", (int)type, rank);
    out->rank = (uint32_t)rank;
    out->bytes = elements * pack_type_size(expected);
    return check(engine, api->GetDimensions(info, out->sizes, rank), failure, "run");
}

static int collect(const struct engine *engine, uint32_t output, struct tensor *out,
                   struct failure *failure)
{
    const OrtApi *api = engine->api;
    OrtTensorTypeAndShapeInfo *info;
    int status;

    if (check(engine, api->GetTensorTypeAndShape(engine->returned[output], &info), failure,
              "run") != 0)
        return -1;
    status = read_shape(engine, info, engine->declared[output].type, out, failure);
    api->ReleaseTensorTypeAndShapeInfo(info);
    if (status != 0)
        return -1;
    return check(engine, api->GetTensorMutableData(engine->returned[output], &out->data), failure,
                 "run");
}

int engine_collect(struct engine *engine, struct tensor *out, struct failure *failure)
{
    for (uint32_t i = 0; i < engine->outputs; i++)
        if (collect(engine, i, &out[i], failure) != 0)
            return -1;
    return 0;
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
