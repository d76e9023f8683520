/* Why a run ended: the stage it was in and what went wrong there, in one line. */
#ifndef SWIPE_FAILURE_H
#define SWIPE_FAILURE_H

#ifdef __cplusplus
extern "C" {
#endif

struct failure {
    const char *stage; /* a string literal */
    char message[1024];
};

/* Fill in `failure` and return -1; a message that is too long is cut. */
int fail(struct failure *failure, const char *stage, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#ifdef __cplusplus
}
#endif

#endif
