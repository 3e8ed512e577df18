#define _GNU_SOURCE
#include "fl_first.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { FAILED = 70 };            /* EX_SOFTWARE: the worker cannot be waited for */

static void close_all_but(int kept) { /* -1: all */
    /* By number: older C libraries have no function for it. A kernel without it leaves them open, which harms nobody. */
#ifdef SYS_close_range
    if (kept > 0)
        (void)syscall(SYS_close_range, 0U, (unsigned)kept - 1, 0U);
    (void)syscall(SYS_close_range, (unsigned)kept + 1, ~0U, 0U);
#else
    (void)kept;
#endif
}

/* Lets go of what the process has inherited and will not look at again: a copy of its parent's heap, of which every page
 * that the parent writes from now on would stay here for this process alone. What holds this thread's stack and its
 * thread-local storage stays; so does what comes from files. Only system calls are made afterwards. */
static void forget_heap(void) {
    static char text[65536];
    uintptr_t stack = (uintptr_t)__builtin_frame_address(0);
    uintptr_t thread = (uintptr_t)__builtin_thread_pointer();
    struct { uintptr_t from, to; } found[256];
    size_t count = 0, filled = 0;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    for (ssize_t got; filled < sizeof text - 1 && (got = read(fd, text + filled, sizeof text - 1 - filled)) > 0;)
        filled += (size_t)got;
    (void)close(fd);
    text[filled] = 0;
    for (char *line = text, *end; (end = strchr(line, '\n')) != NULL && count < 256; line = end + 1) {
        unsigned long from, to, inode;
        char rights[5];
        *end = 0;
        if (sscanf(line, "%lx-%lx %4s %*x %*x:%*x %lu", &from, &to, rights, &inode) != 4)
            continue;
        if (inode != 0 || rights[1] != 'w' || rights[3] != 'p' || (strchr(line, '[') != NULL && strstr(line, "[heap]") == NULL))
            continue;
        if ((stack >= from && stack < to) || (thread >= from && thread < to))
            continue;
        if ((uintptr_t)text >= from && (uintptr_t)text < to) /* this library's own variables, which have no file */
            continue;
        found[count].from = from;
        found[count++].to = to;
    }
    for (size_t index = 0; index < count; index++)
        (void)madvise((void *)found[index].from, found[index].to - found[index].from, MADV_DONTNEED);
}

void fl_first_run(int worker, int report_fd) {
    for (int number = 1; number < NSIG; number++)
        (void)signal(number, SIG_DFL);   /* which the first process does not notice, unless they come from outside */
    close_all_but(report_fd);
    /* What is called below has been called before: the linker's own tables are forgotten too, and could bind nothing. */
    volatile int bound = errno;
    (void)bound;
    (void)syscall(SYS_getpid);
    forget_heap();
    for (;;) {
        int status = 0;
        struct rusage usage;
        long ended = syscall(SYS_wait4, -1, &status, 0, &usage);
        if (ended == worker) {
            fl_first_report report = {.wait_status = status, .reserved = 0, .memory_peak_kib = usage.ru_maxrss};
            long written = syscall(SYS_write, report_fd, &report, sizeof report);
            (void)syscall(SYS_exit_group, written == (long)sizeof report ? 0 : FAILED);
        }
        if (ended < 0 && errno != EINTR)
            (void)syscall(SYS_exit_group, FAILED);
    }
}

void fl_first_hold(void) {
    for (int number = 1; number < NSIG; number++)
        (void)signal(number, number == SIGCHLD ? SIG_IGN : SIG_DFL);   /* ignored: the kernel reaps */
    close_all_but(-1);
    (void)syscall(SYS_getpid);   /* bound, as above */
    forget_heap();
    for (;;)
        (void)syscall(SYS_ppoll, (void *)0, 0, (void *)0, (void *)0, 0);
}
