#define _GNU_SOURCE
#include "fl_first.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
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

/* A line of /proc/self/maps. */
typedef struct {
    uintptr_t from, to;
    unsigned long inode;         /* 0: memory without a file */
    bool writable, is_private, special; /* [stack], [vvar] and the like, but not the heap */
} mapping;

enum { TEXT_BYTES = 131072, MAPPINGS = 1024 };

static struct {
    mapping mappings[MAPPINGS];
    char text[TEXT_BYTES];
} scratch;

static size_t read_mappings(void) {
    size_t count = 0, filled = 0;
    int fd = open("/proc/self/maps", O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    for (ssize_t got; filled < TEXT_BYTES - 1 && (got = read(fd, scratch.text + filled, TEXT_BYTES - 1 - filled)) > 0;)
        filled += (size_t)got;
    (void)close(fd);
    scratch.text[filled] = 0;
    for (char *line = scratch.text, *end; (end = strchr(line, '\n')) != NULL && count < MAPPINGS; line = end + 1) {
        unsigned long from, to, inode;
        char rights[5];
        *end = 0;
        if (sscanf(line, "%lx-%lx %4s %*x %*x:%*x %lu", &from, &to, rights, &inode) != 4)
            continue;
        scratch.mappings[count++] = (mapping){
            .from = from, .to = to, .inode = inode, .writable = rights[1] == 'w', .is_private = rights[3] == 'p',
            .special = strchr(line, '[') != NULL && strstr(line, "[heap]") == NULL,
        };
    }
    return count;
}

static unsigned long file_of(size_t count, uintptr_t address) {
    for (size_t index = 0; index < count; index++)
        if (address >= scratch.mappings[index].from && address < scratch.mappings[index].to)
            return scratch.mappings[index].inode;
    return 0;
}

static void forget(uintptr_t from, uintptr_t to) {
    if (from < to)
        (void)madvise((void *)from, to - from, MADV_DONTNEED);
}

/* Lets go of what the process has inherited and will not look at again: a copy of its parent's heap and of its libraries'
 * variables, of which every page that the parent writes from now on would stay here for this process alone. What stays is
 * this frame of the stack, this thread's errno and descriptor, and the variables of this library and of the C library: that
 * is all that is used from now on, since nothing returns and only system calls are made. */
static void forget_heap(void) {
    enum { DESCRIPTOR_BYTES = 256 }; /* of the thread's: up to what guards the stack */
    const uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    const uintptr_t stack = (uintptr_t)__builtin_frame_address(0);
    const uintptr_t thread = (uintptr_t)__builtin_thread_pointer(), error = (uintptr_t)&errno;
    const size_t count = read_mappings();
    const unsigned long own = file_of(count, (uintptr_t)&fl_first_run), library = file_of(count, (uintptr_t)&syscall);
    const uintptr_t used_from = (uintptr_t)&scratch & ~(page - 1);
    const uintptr_t used_to = ((uintptr_t)(&scratch + 1) + page - 1) & ~(page - 1);
    for (size_t index = 0; index < count; index++) {
        const mapping *one = &scratch.mappings[index], *before = one - (index > 0);
        const bool is_stack = stack >= one->from && stack < one->to;
        uintptr_t kept_from = one->to, kept_to = one->to;
        if (!one->writable || !one->is_private || (one->special && !is_stack))
            continue;
        if (one->inode != 0 && (one->inode == own || one->inode == library))
            continue;
        if (one->inode == 0 && before->to == one->from && before->inode == library) /* its variables that no file has */
            continue;
        if (is_stack) {
            kept_from = (stack & ~(page - 1)) - page;
            kept_to = (stack & ~(page - 1)) + 2 * page;
        } else if (thread >= one->from && thread < one->to) {
            kept_from = (error < thread && error >= one->from ? error : thread) & ~(page - 1);
            kept_to = (thread + DESCRIPTOR_BYTES + page - 1) & ~(page - 1);
        } else if (used_from >= one->from && used_from < one->to) {
            kept_from = used_from;
            kept_to = used_to;
        }
        forget(one->from, kept_from < one->from ? one->from : kept_from);
        forget(kept_to, one->to);
    }
    forget(used_from, used_to);
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
