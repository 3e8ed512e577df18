#include "fl_wake.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>

#include "fl_test.h"

static int readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, 0);
}

static void rings_until_cleared(void)
{
    int fd = fl_wake_create();
    CHECK(fd >= 0);
    CHECK(fcntl(fd, F_GETFD) & FD_CLOEXEC);
    CHECK(fcntl(fd, F_GETFL) & O_NONBLOCK);
    CHECK_EQUAL(readable(fd), 0);
    CHECK_EQUAL(fl_wake_clear(fd), 0);
    CHECK_EQUAL(fl_wake_signal(fd), 0);
    CHECK_EQUAL(fl_wake_signal(fd), 0);
    CHECK_EQUAL(readable(fd), 1);
    CHECK_EQUAL(fl_wake_clear(fd), 1); /* both signals at once */
    CHECK_EQUAL(readable(fd), 0);
    CHECK_EQUAL(fl_wake_clear(fd), 0);
    close(fd);
}

static void a_full_counter_is_signalled_enough(void)
{
    const uint64_t most = UINT64_MAX - 1; /* an eventfd's counter goes no further: a write would block */
    int fd = fl_wake_create();
    CHECK_EQUAL(write(fd, &most, sizeof most), sizeof most);
    CHECK_EQUAL(fl_wake_signal(fd), 0);
    CHECK_EQUAL(readable(fd), 1);
    CHECK_EQUAL(fl_wake_clear(fd), 1);
    CHECK_EQUAL(fl_wake_signal(fd), 0);
    CHECK_EQUAL(fl_wake_clear(fd), 1);
    close(fd);
}

static void other_errors_are_told(void)
{
    int fd = fl_wake_create();
    close(fd);
    CHECK_EQUAL(fl_wake_signal(fd), -EBADF);
    CHECK_EQUAL(fl_wake_clear(fd), -EBADF);
}

int main(void)
{
    fl_test_start();
    RUN(rings_until_cleared);
    RUN(a_full_counter_is_signalled_enough);
    RUN(other_errors_are_told);
    return 0;
}
