/* The answers: a file of the same form as the pack, written call by call; see pack.py. */
#ifndef SWIPE_ANSWERS_H
#define SWIPE_ANSWERS_H

#include <stdint.h>

#include "new_file.h"
#include "pack.h"

struct answers {
    struct new_file file;
    uint32_t outputs; /* arrays per call */
    uint32_t calls, refused;
    char sha256[SHA256_HEX]; /* after answers_publish() */
};

/* Each returns 0, or -1 with errno. answers_discard() is due in all cases. */
int answers_open(struct answers *answers, const char *path, const struct declared *declared,
                 uint32_t outputs, uint32_t calls);
/* What a call returned: one array for each output. */
int answers_add(struct answers *answers, const struct tensor *tensors);
/* A call that the engine did not execute. */
int answers_refuse(struct answers *answers, const char *reason);
int answers_publish(struct answers *answers);
/* Remove what was not published and free the rest; `answers` may be all zero. */
void answers_discard(struct answers *answers);

#endif
