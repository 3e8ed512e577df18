#include "fl_wake.h"

#include <errno.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <unistd.h>

int fl_wake_create(void)
{
    int fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    return fd >= 0 ? fd : -errno;
}

int fl_wake_signal(int fd)
{
    const uint64_t one = 1;
    for (;;) {
        if (write(fd, &one, sizeof one) == (ssize_t)sizeof one) {
            return 0;
        }
        if (errno == EAGAIN) {
            return 0; /* the counter is at its end: signalled more than enough */
        }
        if (errno != EINTR) {
            return -errno;
        }
    }
}

int fl_wake_clear(int fd)
{
    uint64_t count;
    for (;;) {
        if (read(fd, &count, sizeof count) == (ssize_t)sizeof count) {
            return 1;
        }
        if (errno == EAGAIN) {
            return 0;
        }
        if (errno != EINTR) {
            return -errno;
        }
    }
}
