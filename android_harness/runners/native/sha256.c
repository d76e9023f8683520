#include "sha256.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

/* Fractional parts of the cube roots of the first 64 primes. */
static const uint32_t ROUND[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static uint32_t rotate(uint32_t word, unsigned by)
{
    return word >> by | word << (32 - by);
}

static uint32_t read_word(const unsigned char *bytes)
{
    return (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 | bytes[3];
}

static void expand(const unsigned char *block, uint32_t words[64])
{
    for (int i = 0; i < 16; i++)
        words[i] = read_word(block + 4 * i);
    for (int i = 16; i < 64; i++) {
        const uint32_t a = words[i - 15], b = words[i - 2];

        words[i] = words[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + words[i - 7] +
                   (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
    }
}

static void digest_block(uint32_t state[8], const unsigned char *block)
{
    uint32_t words[64], now[8];

    expand(block, words);
    memcpy(now, state, sizeof now);
    for (int i = 0; i < 64; i++) {
        const uint32_t a = now[0], e = now[4];
        const uint32_t choice = (e & now[5]) ^ (~e & now[6]);
        const uint32_t majority = (a & now[1]) ^ (a & now[2]) ^ (now[1] & now[2]);
        const uint32_t first =
            now[7] + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + choice + ROUND[i] + words[i];
        const uint32_t second = (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + majority;

        memmove(now + 1, now, 7 * sizeof now[0]);
        now[4] += first;
        now[0] = first + second;
    }
    for (int i = 0; i < 8; i++)
        state[i] += now[i];
}

void sha256_start(struct sha256 *hash)
{
    /* Fractional parts of the square roots of the first 8 primes. */
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

    memcpy(hash->state, start, sizeof start);
    hash->length = 0;
}

void sha256_add(struct sha256 *hash, const void *data, size_t size)
{
    const unsigned char *bytes = data;

    while (size > 0) {
        const size_t filled = (size_t)(hash->length % sizeof hash->block);
        const size_t room = sizeof hash->block - filled;
        const size_t piece = size < room ? size : room;

        memcpy(hash->block + filled, bytes, piece);
        hash->length += piece;
        bytes += piece;
        size -= piece;
        if (piece == room)
            digest_block(hash->state, hash->block);
    }
}

void sha256_finish(struct sha256 *hash, char hex[SHA256_HEX])
{
    static const unsigned char padding[64] = {0x80};
    static const char digits[] = "0123456789abcdef";
    const uint64_t bits = hash->length * 8;
    const size_t filled = (size_t)(hash->length % 64);
    unsigned char length[8];

    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)(bits >> (56 - 8 * i));
    sha256_add(hash, padding, filled < 56 ? 56 - filled : 120 - filled);
    sha256_add(hash, length, sizeof length);
    for (int i = 0; i < 64; i++)
        hex[i] = digits[hash->state[i / 8] >> (28 - 4 * (i % 8)) & 15];
    hex[64] = '\0';
}

int sha256_file(const char *path, char hex[SHA256_HEX])
{
    unsigned char piece[16384];
    struct sha256 hash;
    size_t size;
    int problem;
    FILE *stream = fopen(path, "rb");

    if (stream == NULL)
        return -1;
    sha256_start(&hash);
    while ((size = fread(piece, 1, sizeof piece, stream)) > 0)
        sha256_add(&hash, piece, size);
    problem = ferror(stream) ? errno : 0;
    if (fclose(stream) != 0 && problem == 0)
        problem = errno;
    sha256_finish(&hash, hex);
    errno = problem;
    return problem == 0 ? 0 : -1;
}
