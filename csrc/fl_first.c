#define _GNU_SOURCE
#include "fl_first.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

enum { FAILED = 70 };            /* EX_SOFTWARE: the worker cannot be waited for */

static void close_all_but(int kept) {
    /* By number: older C libraries have no function for it. A kernel without it leaves them open, which harms nobody. */
#ifdef SYS_close_range
    if (kept > 0)
        (void)syscall(SYS_close_range, 0U, (unsigned)kept - 1, 0U);
    (void)syscall(SYS_close_range, (unsigned)kept + 1, ~0U, 0U);
#else
    (void)kept;
#endif
}

void fl_first_run(int worker, int report_fd) {
    for (int number = 1; number < NSIG; number++)
        (void)signal(number, SIG_DFL);   /* which the first process does not notice, unless they come from outside */
    close_all_but(report_fd);
    for (;;) {
        int status = 0;
        struct rusage usage = {0};
        pid_t ended = wait4(-1, &status, 0, &usage);
        if (ended == worker) {
            fl_first_report report = {.wait_status = status, .reserved = 0, .memory_peak_kib = usage.ru_maxrss};
            ssize_t written = write(report_fd, &report, sizeof report);
            _exit(written == (ssize_t)sizeof report ? 0 : FAILED);
        }
        if (ended < 0 && errno != EINTR)
            _exit(FAILED);
    }
}
