#include "ort_engine.h"

int ort_check(const struct engine *engine, OrtStatus *status, struct failure *failure,
              const char *stage)
{
    if (status == NULL)
        return 0;
    (void)fail(failure, stage, "%s", engine->api->GetErrorMessage(status));
    engine->api->ReleaseStatus(status);
    return -1;
}

int ort_read_type(const struct engine *engine, OrtTypeInfo *info, uint32_t *out,
                  struct failure *failure)
{
    const OrtApi *api = engine->api;
    const OrtTensorTypeAndShapeInfo *tensor = NULL;
    ONNXTensorElementDataType type = ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
    int status;

    status = ort_check(engine, api->CastTypeInfoToTensorInfo(info, &tensor), failure, "init");
    if (status == 0 && tensor != NULL)
        status = ort_check(engine, api->GetTensorElementType(tensor, &type), failure, "init");
    api->ReleaseTypeInfo(info);
    *out = pack_type_size((uint32_t)type) > 0 ? (uint32_t)type : 0;
    return status;
}
