/*
 * A run, the same for every engine: load, first call, answers to all calls, warm-up, timed calls,
 * report. Accuracy and judgement are the host's: NaN and Inf are written as they come.
 */
#ifndef SWIPE_RUNNER_H
#define SWIPE_RUNNER_H

#ifdef __cplusplus
extern "C" {
#endif

/* The whole program. Returns 0, 2 (usage) or 3 (failed: the JSON says at which stage and why). */
int run_program(int count, char **words);

#ifdef __cplusplus
}
#endif

#endif
