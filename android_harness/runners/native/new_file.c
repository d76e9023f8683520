#include "new_file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

int new_file_open(struct new_file *file, const char *path)
{
    static const char suffix[] = ".part";
    const size_t length = strlen(path);

    *file = (struct new_file){.path = path, .part = malloc(length + sizeof suffix)};
    if (file->part == NULL) {
        errno = ENOMEM;
        return -1;
    }
    memcpy(file->part, path, length);
    memcpy(file->part + length, suffix, sizeof suffix);
    sha256_start(&file->hash);
    file->stream = fopen(file->part, "wb");
    return file->stream == NULL ? -1 : 0;
}

int new_file_write(struct new_file *file, const void *data, size_t size)
{
    if (size > 0 && fwrite(data, 1, size, file->stream) != size)
        return -1;
    sha256_add(&file->hash, data, size);
    file->bytes += size;
    return 0;
}

int new_file_publish(struct new_file *file)
{
    FILE *stream = file->stream;

    if (fflush(stream) != 0 || fsync(fileno(stream)) != 0)
        return -1;
    file->stream = NULL;
    if (fclose(stream) != 0 || rename(file->part, file->path) != 0) {
        const int problem = errno;

        (void)unlink(file->part);
        errno = problem;
        return -1;
    }
    return 0;
}

void new_file_discard(struct new_file *file)
{
    if (file->stream != NULL) {
        (void)fclose(file->stream);
        (void)unlink(file->part);
    }
    free(file->part);
    *file = (struct new_file){0};
}
