#include "pack.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "a pack is little-endian and used where it lies"
#endif

enum {
    HEADER_LEAST = PACK_MAGIC + 2 * 4, /* magic, counts */
    DECLARED_LEAST = 2 * 4,            /* type, length of name */
    CALL_LEAST = 4,                    /* status */
    TENSOR_LEAST = 4 + 8,              /* rank, bytes */
};

/* How far the file is read. */
struct cursor {
    const struct pack *pack;
    size_t at;
    struct failure *failure;
};

static size_t left(const struct cursor *cursor)
{
    return cursor->pack->size - cursor->at;
}

static int refuse(struct cursor *cursor, const char *why)
{
    (void)fail(cursor->failure, "pack", "damaged at byte %zu of %zu: %s", cursor->at,
               cursor->pack->size, why);
    return -1;
}

static int take(struct cursor *cursor, void *out, size_t size)
{
    if (size > left(cursor))
        return refuse(cursor, "it is cut");
    memcpy(out, cursor->pack->map + cursor->at, size);
    cursor->at += size;
    return 0;
}

static int take_magic(struct cursor *cursor, const char *expected)
{
    char found[PACK_MAGIC];

    if (take(cursor, found, sizeof found) != 0)
        return -1;
    return memcmp(found, expected, sizeof found) == 0 ? 0 : refuse(cursor, "wrong magic");
}

static int take_declared(struct cursor *cursor, struct declared *out)
{
    uint32_t length;

    if (take(cursor, &out->type, sizeof out->type) != 0 ||
        take(cursor, &length, sizeof length) != 0)
        return -1;
    if (pack_type_size(out->type) == 0)
        return refuse(cursor, "unknown type");
    if (length == 0 || length > left(cursor))
        return refuse(cursor, "a name is empty or cut");
    out->name = calloc(1, (size_t)length + 1);
    if (out->name == NULL)
        return refuse(cursor, "no memory");
    if (take(cursor, out->name, length) != 0)
        return -1;
    return strlen(out->name) == length ? 0 : refuse(cursor, "a name holds a zero byte");
}

/* Counts that do not fit into the file are refused before memory is asked for. */
static int take_header(struct cursor *cursor, struct pack *pack)
{
    uint32_t inputs, calls;
    uint64_t least;

    if (take_magic(cursor, PACK_START) != 0 || take(cursor, &inputs, sizeof inputs) != 0 ||
        take(cursor, &calls, sizeof calls) != 0)
        return -1;
    if (inputs == 0 || calls == 0)
        return refuse(cursor, "it holds no calls");
    if (inputs > left(cursor) / DECLARED_LEAST)
        return refuse(cursor, "it is too short for so many inputs");
    least = CALL_LEAST + (uint64_t)TENSOR_LEAST * inputs;
    if (calls > left(cursor) / least)
        return refuse(cursor, "it is too short for so many calls");
    pack->declared = calloc(inputs, sizeof *pack->declared);
    pack->tensors = calloc((size_t)calls * inputs, sizeof *pack->tensors);
    if (pack->declared == NULL || pack->tensors == NULL)
        return refuse(cursor, "no memory");
    pack->inputs = inputs;
    pack->calls = calls;
    for (uint32_t i = 0; i < inputs; i++) {
        if (take_declared(cursor, &pack->declared[i]) != 0)
            return -1;
        for (uint32_t earlier = 0; earlier < i; earlier++)
            if (strcmp(pack->declared[earlier].name, pack->declared[i].name) == 0)
                return refuse(cursor, "two inputs have the same name");
    }
    return 0;
}

/* The bytes that `sizes` make; false: one is negative or the product does not fit. */
static bool bytes_of(const struct tensor *tensor, size_t item, uint64_t *out)
{
    uint64_t bytes = item;

    for (uint32_t i = 0; i < tensor->rank; i++) {
        const int64_t size = tensor->sizes[i];

        if (size < 0 || __builtin_mul_overflow(bytes, (uint64_t)size, &bytes))
            return false;
    }
    *out = bytes;
    return true;
}

static int take_padding(struct cursor *cursor)
{
    unsigned char zeros[PACK_ALIGNMENT];
    const size_t size = (PACK_ALIGNMENT - cursor->at % PACK_ALIGNMENT) % PACK_ALIGNMENT;

    if (take(cursor, zeros, size) != 0)
        return -1;
    for (size_t i = 0; i < size; i++)
        if (zeros[i] != 0)
            return refuse(cursor, "something lies between two arrays");
    return 0;
}

/* Anything but 0 and 1 in a bool is undefined behaviour for who reads it as one. */
static int check_bools(struct cursor *cursor, const struct tensor *tensor)
{
    const unsigned char *values = tensor->data;

    for (uint64_t i = 0; i < tensor->bytes; i++)
        if (values[i] > 1)
            return refuse(cursor, "a bool is neither 0 nor 1");
    return 0;
}

static int take_tensor(struct cursor *cursor, uint32_t type, struct tensor *out)
{
    uint64_t expected;

    if (take(cursor, &out->rank, sizeof out->rank) != 0)
        return -1;
    if (out->rank > PACK_MAX_RANK)
        return refuse(cursor, "too many dimensions");
    if (take(cursor, out->sizes, out->rank * sizeof out->sizes[0]) != 0 ||
        take(cursor, &out->bytes, sizeof out->bytes) != 0)
        return -1;
    if (!bytes_of(out, pack_type_size(type), &expected) || out->bytes != expected)
        return refuse(cursor, "an array's shape and size differ");
    if (take_padding(cursor) != 0)
        return -1;
    if (out->bytes > left(cursor))
        return refuse(cursor, "an array is cut");
    out->data = cursor->pack->map + cursor->at;
    cursor->at += (size_t)out->bytes;
    return type == PACK_BOOL ? check_bools(cursor, out) : 0;
}

static int take_call(struct cursor *cursor, struct tensor *out)
{
    uint32_t status;

    if (take(cursor, &status, sizeof status) != 0)
        return -1;
    if (status != PACK_RETURNED)
        return refuse(cursor, "a call has no arrays");
    for (uint32_t i = 0; i < cursor->pack->inputs; i++)
        if (take_tensor(cursor, cursor->pack->declared[i].type, &out[i]) != 0)
            return -1;
    return 0;
}

static int read_pack(struct pack *pack, struct failure *failure)
{
    struct cursor cursor = {pack, 0, failure};

    if (take_header(&cursor, pack) != 0)
        return -1;
    for (uint32_t call = 0; call < pack->calls; call++)
        if (take_call(&cursor, pack->tensors + (size_t)call * pack->inputs) != 0)
            return -1;
    if (take_magic(&cursor, PACK_END) != 0)
        return -1;
    return left(&cursor) == 0 ? 0 : refuse(&cursor, "it goes on after its end");
}

static int map_file(struct pack *pack, const char *path, struct failure *failure)
{
    const int file = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a pipe is no pack */
    struct stat facts;
    void *map;

    if (file < 0)
        return fail(failure, "pack", "cannot open %s: %s", path, strerror(errno));
    if (fstat(file, &facts) != 0 || !S_ISREG(facts.st_mode) || facts.st_size < HEADER_LEAST ||
        (uint64_t)facts.st_size > SIZE_MAX) {
        (void)close(file);
        return fail(failure, "pack", "%s is not a file, or too short for a pack", path);
    }
    map = mmap(NULL, (size_t)facts.st_size, PROT_READ, MAP_PRIVATE, file, 0);
    if (map == MAP_FAILED)
        (void)fail(failure, "pack", "cannot map %s: %s", path, strerror(errno));
    (void)close(file);
    if (map == MAP_FAILED)
        return -1;
    pack->map = map;
    pack->size = (size_t)facts.st_size;
    return 0;
}

int pack_open(struct pack *pack, const char *path, struct failure *failure)
{
    *pack = (struct pack){0};
    return map_file(pack, path, failure) == 0 ? read_pack(pack, failure) : -1;
}

void pack_close(struct pack *pack)
{
    for (uint32_t i = 0; i < pack->inputs; i++)
        free(pack->declared[i].name);
    free(pack->declared);
    free(pack->tensors);
    if (pack->map != NULL)
        (void)munmap(pack->map, pack->size);
    *pack = (struct pack){0};
}

const struct tensor *pack_call(const struct pack *pack, uint32_t call)
{
    return pack->tensors + (size_t)call * pack->inputs;
}

static const struct {
    uint32_t type;
    size_t size;
    const char *name;
} TYPES[] = {
    {PACK_FLOAT32, 4, "float32"}, {PACK_UINT8, 1, "uint8"}, {PACK_INT8, 1, "int8"},
    {PACK_INT32, 4, "int32"},     {PACK_INT64, 8, "int64"}, {PACK_BOOL, 1, "bool"},
};

enum { TYPE_COUNT = sizeof TYPES / sizeof TYPES[0] };

size_t pack_type_size(uint32_t type)
{
    for (int i = 0; i < TYPE_COUNT; i++)
        if (TYPES[i].type == type)
            return TYPES[i].size;
    return 0;
}

const char *pack_type_name(uint32_t type)
{
    for (int i = 0; i < TYPE_COUNT; i++)
        if (TYPES[i].type == type)
            return TYPES[i].name;
    return "unknown";
}
