/* Outputs of ONNX Runtime, as the tensors that answers are written from. */
#include "ort_engine.h"

static int read_shape(const struct engine *engine, const OrtTensorTypeAndShapeInfo *info,
                      uint32_t expected, struct tensor *out, struct failure *failure)
{
    const OrtApi *api = engine->api;
    ONNXTensorElementDataType type;
    size_t rank, elements;

    if (ort_check(engine, api->GetTensorElementType(info, &type), failure, "run") != 0 ||
        ort_check(engine, api->GetTensorShapeElementCount(info, &elements), failure, "run") != 0 ||
        ort_check(engine, api->GetDimensionsCount(info, &rank), failure, "run") != 0)
        return -1;
    if ((uint32_t)type != expected || rank > PACK_MAX_RANK)
        return fail(failure, "run", "an output of type %d and rank %zu", (int)type, rank);
    out->rank = (uint32_t)rank;
    out->bytes = elements * pack_type_size(expected);
    return ort_check(engine, api->GetDimensions(info, out->sizes, rank), failure, "run");
}

static int collect(const struct engine *engine, uint32_t output, struct tensor *out,
                   struct failure *failure)
{
    const OrtApi *api = engine->api;
    OrtTensorTypeAndShapeInfo *info;
    int status;

    if (ort_check(engine, api->GetTensorTypeAndShape(engine->returned[output], &info), failure,
                  "run") != 0)
        return -1;
    status = read_shape(engine, info, engine->declared[output].type, out, failure);
    api->ReleaseTensorTypeAndShapeInfo(info);
    if (status != 0)
        return -1;
    return ort_check(engine, api->GetTensorMutableData(engine->returned[output], &out->data),
                     failure, "run");
}

int engine_collect(struct engine *engine, struct tensor *out, struct failure *failure)
{
    for (uint32_t i = 0; i < engine->outputs; i++)
        if (collect(engine, i, &out[i], failure) != 0)
            return -1;
    return 0;
}
