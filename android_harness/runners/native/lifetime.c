#include "lifetime.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

enum { EXIT_UNTETHERED = 4 };

void limit_lifetime(double seconds)
{
    sigset_t only;

    /* Both survive exec: whoever started this may have ignored or blocked the signal. */
    (void)signal(SIGALRM, SIG_DFL);
    if (sigemptyset(&only) == 0 && sigaddset(&only, SIGALRM) == 0)
        (void)sigprocmask(SIG_UNBLOCK, &only, NULL);
    (void)alarm((unsigned)seconds + 1);
}

static void *watch_stdin(void *unused)
{
    char ignored[256];
    ssize_t size;

    (void)unused;
    do
        size = read(STDIN_FILENO, ignored, sizeof ignored);
    while (size > 0 || (size < 0 && errno == EINTR));
    _exit(EXIT_UNTETHERED);
}

int tether(struct failure *failure)
{
    pthread_t watcher;
    int problem;

    if (prctl(PR_SET_PDEATHSIG, (unsigned long)SIGKILL) != 0)
        return fail(failure, "tether", "prctl: %s", strerror(errno));
    problem = pthread_create(&watcher, NULL, watch_stdin, NULL);
    if (problem == 0)
        problem = pthread_detach(watcher);
    if (problem != 0)
        return fail(failure, "tether", "no thread for it: %s", strerror(problem));
    return 0;
}
