/* Inputs of ONNX Runtime: they go by name, as OrtValues that lie on the mapped pack. */
#include <stdlib.h>
#include <string.h>

#include "ort_engine.h"

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

    if (ort_check(engine, engine->api->SessionGetInputTypeInfo(engine->session, index, &info),
                  failure, "inputs") != 0 ||
        ort_read_type(engine, info, &type, failure) != 0)
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

    if (ort_check(
            engine,
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

    if (ort_check(engine, engine->api->SessionGetInputCount(engine->session, &count), failure,
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

    return ort_check(engine,
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
