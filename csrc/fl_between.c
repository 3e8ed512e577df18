#define _GNU_SOURCE
#include "fl_between.h"

#include <errno.h>
#include <unistd.h>

enum { FAILED = 70 };

int fl_between_fork(int (*prepare)(void *), void *argument, void (*before_fork)(void), void (*in_parent)(void),
                    void (*in_child)(void)) {
    pid_t child = vfork();
    if (child < 0)
        return -errno;
    if (child > 0)
        return child;
    /* The child between, on the caller's stack: it never returns from here. */
    if (prepare(argument) != 0)
        _exit(FAILED);
    before_fork();
    pid_t grandchild = fork();
    if (grandchild == 0) {
        in_child();
        return 0; /* with memory of its own: the stack is its copy */
    }
    in_parent();
    _exit(grandchild < 0 ? FAILED : 0);
}
