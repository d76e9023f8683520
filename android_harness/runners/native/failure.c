#include "failure.h"

#include <stdarg.h>
#include <stdio.h>

int fail(struct failure *failure, const char *stage, const char *format, ...)
{
    va_list arguments;
    int written;

    failure->stage = stage;
    va_start(arguments, format);
    written = vsnprintf(failure->message, sizeof failure->message, format, arguments);
    va_end(arguments);
    if (written < 0)
        failure->message[0] = '\0';
    return -1;
}
