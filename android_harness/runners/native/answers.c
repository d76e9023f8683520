#include "answers.h"

#include <string.h>

static int put_u32(struct answers *answers, uint32_t value)
{
    return new_file_write(&answers->file, &value, sizeof value);
}

static int put_text(struct answers *answers, const char *text)
{
    const size_t length = strlen(text);

    if (put_u32(answers, (uint32_t)length) != 0)
        return -1;
    return new_file_write(&answers->file, text, length);
}

static int put_padding(struct answers *answers)
{
    static const unsigned char zeros[PACK_ALIGNMENT];
    const size_t over = (size_t)(answers->file.bytes % PACK_ALIGNMENT);

    return over == 0 ? 0 : new_file_write(&answers->file, zeros, PACK_ALIGNMENT - over);
}

static int put_tensor(struct answers *answers, const struct tensor *tensor)
{
    const size_t shape = tensor->rank * sizeof tensor->sizes[0];

    if (put_u32(answers, tensor->rank) != 0 ||
        new_file_write(&answers->file, tensor->sizes, shape) != 0 ||
        new_file_write(&answers->file, &tensor->bytes, sizeof tensor->bytes) != 0 ||
        put_padding(answers) != 0)
        return -1;
    return new_file_write(&answers->file, tensor->data, (size_t)tensor->bytes);
}

int answers_open(struct answers *answers, const char *path, const struct declared *declared,
                 uint32_t outputs, uint32_t calls)
{
    *answers = (struct answers){.outputs = outputs};
    if (new_file_open(&answers->file, path) != 0 ||
        new_file_write(&answers->file, PACK_START, PACK_MAGIC) != 0 ||
        put_u32(answers, outputs) != 0 || put_u32(answers, calls) != 0)
        return -1;
    for (uint32_t i = 0; i < outputs; i++)
        if (put_u32(answers, declared[i].type) != 0 || put_text(answers, declared[i].name) != 0)
            return -1;
    return 0;
}

int answers_add(struct answers *answers, const struct tensor *tensors)
{
    if (put_u32(answers, PACK_RETURNED) != 0)
        return -1;
    for (uint32_t i = 0; i < answers->outputs; i++)
        if (put_tensor(answers, &tensors[i]) != 0)
            return -1;
    answers->calls++;
    return 0;
}

int answers_refuse(struct answers *answers, const char *reason)
{
    if (put_u32(answers, PACK_REFUSED) != 0 || put_text(answers, reason) != 0)
        return -1;
    answers->calls++;
    answers->refused++;
    return 0;
}

int answers_publish(struct answers *answers)
{
    if (new_file_write(&answers->file, PACK_END, PACK_MAGIC) != 0 ||
        new_file_publish(&answers->file) != 0)
        return -1;
    sha256_finish(&answers->file.hash, answers->sha256);
    return 0;
}

void answers_discard(struct answers *answers)
{
    new_file_discard(&answers->file);
}
