/* SHA-256 (FIPS 180-4), fed piece by piece. */
#ifndef SWIPE_SHA256_H
#define SWIPE_SHA256_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { SHA256_HEX = 65 }; /* 64 digits and the end of the string */

struct sha256 {
    uint32_t state[8];
    uint64_t length; /* bytes so far */
    unsigned char block[64];
};

void sha256_start(struct sha256 *hash);
void sha256_add(struct sha256 *hash, const void *data, size_t size);
/* The digest in lower-case hex; `hash` is used up. */
void sha256_finish(struct sha256 *hash, char hex[SHA256_HEX]);
/* The digest of the file at `path`. Returns -1 with errno when it cannot be read. */
int sha256_file(const char *path, char hex[SHA256_HEX]);

#ifdef __cplusplus
}
#endif

#endif
