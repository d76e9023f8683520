/*
 * A runner never outlives what it is for: adb leaves programs behind when the host dies, so each
 * ends itself. Nobody is there to read a result then, and none is written.
 */
#ifndef SWIPE_LIFETIME_H
#define SWIPE_LIFETIME_H

#include "failure.h"

/* End this process with SIGALRM after `seconds`. */
void limit_lifetime(double seconds);

/*
 * End this process when stdin ends, or when the thread that started it does. Returns 0, or -1 with
 * stage "tether".
 */
int tether(struct failure *failure);

#endif
