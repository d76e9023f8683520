/*
 * The pack: a file of many calls, mapped into memory, whose arrays engines compute on where they
 * lie. pack.py two folders above defines the form; here is its strict reader. What is cut, does not
 * add up, or could mislead an engine (a size that overflows, a bool that is 2) is refused as a
 * whole, before any of it is used.
 */
#ifndef SWIPE_PACK_H
#define SWIPE_PACK_H

#include <stddef.h>
#include <stdint.h>

#include "failure.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { PACK_ALIGNMENT = 64, PACK_MAX_RANK = 16 };

#define PACK_START "SWPACK01"
#define PACK_END "SWPEND01"
enum { PACK_MAGIC = 8, PACK_RETURNED = 0, PACK_REFUSED = 1 };

/* Codes of ONNX's TensorProto.DataType. */
enum pack_type {
    PACK_FLOAT32 = 1,
    PACK_UINT8 = 2,
    PACK_INT8 = 3,
    PACK_INT32 = 6,
    PACK_INT64 = 7,
    PACK_BOOL = 9,
};

/* What all calls have in common about one of their arrays. */
struct declared {
    char *name;
    uint32_t type; /* an enum pack_type */
};

/* One array of one call. */
struct tensor {
    void *data; /* at a multiple of PACK_ALIGNMENT; an engine only reads it */
    uint64_t bytes;
    uint32_t rank;
    int64_t sizes[PACK_MAX_RANK];
};

struct pack {
    unsigned char *map;
    size_t size;
    uint32_t inputs, calls;
    struct declared *declared; /* [inputs] */
    struct tensor *tensors;    /* [calls][inputs] */
};

/* Map and check the file. Returns 0, or -1 with stage "pack"; pack_close() is due in both cases. */
int pack_open(struct pack *pack, const char *path, struct failure *failure);
void pack_close(struct pack *pack);

/* The arrays of one call, in the order of `declared`. */
const struct tensor *pack_call(const struct pack *pack, uint32_t call);

/* Bytes of one element; 0: there is no such type. */
size_t pack_type_size(uint32_t type);
/* The type's name in numpy's words; "unknown" if there is no such type. */
const char *pack_type_name(uint32_t type);

#ifdef __cplusplus
}
#endif

#endif
