/*
 * A file that is there whole or not at all: written as PATH.part, flushed to disk, then renamed.
 * It is hashed on the way.
 */
#ifndef SWIPE_NEW_FILE_H
#define SWIPE_NEW_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "sha256.h"

struct new_file {
    FILE *stream; /* NULL: closed */
    char *part;
    const char *path;
    struct sha256 hash;
    uint64_t bytes;
};

/* Each returns 0, or -1 with errno; after an error the file can only be discarded. */
int new_file_open(struct new_file *file, const char *path);
int new_file_write(struct new_file *file, const void *data, size_t size);
int new_file_publish(struct new_file *file);

/* Remove what was written and not published, and free what `file` holds; it may be all zero. */
void new_file_discard(struct new_file *file);

#endif
