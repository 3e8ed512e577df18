/* A ring of csrc/fl_spsc between pages that nobody may touch, and where things lie in its control part.
 *
 *     no access | control at the end of a page | no access | data up to the end of its pages | no access
 *
 * The memory is shared with children of a fork. Data of whole pages has a page without access right before it too.
 */
#ifndef GUARDED_RING_H
#define GUARDED_RING_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "fl_spsc.h"
#include "fl_test.h"

enum { GUARD_PAGE = 4096, PUBLISHED_AT = 0, RELEASED_AT = 64, ASLEEP_AT = 128, CROWDED_AT = 192 };

#define SKIP_MARK UINT32_MAX

typedef struct guarded_ring {
    uint8_t *pages;
    size_t pages_bytes;
    fl_spsc producer;
    fl_spsc consumer;
} guarded_ring;

__attribute__((unused)) static guarded_ring guarded_ring_make(uint32_t capacity)
{
    guarded_ring made;
    size_t data_pages_bytes = ((size_t)capacity + GUARD_PAGE - 1) / GUARD_PAGE * GUARD_PAGE;
    made.pages_bytes = 4 * GUARD_PAGE + data_pages_bytes;
    int fd = memfd_create("ring", MFD_CLOEXEC);
    CHECK(fd >= 0);
    CHECK_EQUAL(ftruncate(fd, (off_t)made.pages_bytes), 0);
    void *pages = mmap(NULL, made.pages_bytes, PROT_NONE, MAP_SHARED, fd, 0);
    CHECK(pages != MAP_FAILED);
    close(fd);
    made.pages = pages;
    uint8_t *control_page = made.pages + GUARD_PAGE, *data_pages = made.pages + 3 * GUARD_PAGE;
    CHECK_EQUAL(mprotect(control_page, GUARD_PAGE, PROT_READ | PROT_WRITE), 0);
    CHECK_EQUAL(mprotect(data_pages, data_pages_bytes, PROT_READ | PROT_WRITE), 0);
    void *control = control_page + GUARD_PAGE - FL_SPSC_CONTROL_BYTES;
    void *data = data_pages + data_pages_bytes - capacity;
    CHECK_EQUAL(fl_spsc_init(&made.producer, control, data, capacity), 0);
    CHECK_EQUAL(fl_spsc_init(&made.consumer, control, data, capacity), 0);
    return made;
}

__attribute__((unused)) static void guarded_ring_free(guarded_ring *ring)
{
    CHECK_EQUAL(munmap(ring->pages, ring->pages_bytes), 0);
}

__attribute__((unused)) static _Atomic uint64_t *shared_position(const fl_spsc *ring, size_t at)
{
    return (_Atomic uint64_t *)(void *)((uint8_t *)ring->control + at);
}

__attribute__((unused)) static _Atomic uint32_t *shared_flag(const fl_spsc *ring, size_t at)
{
    return (_Atomic uint32_t *)(void *)((uint8_t *)ring->control + at);
}

__attribute__((unused)) static _Atomic uint32_t *shared_size(const fl_spsc *ring, uint64_t position)
{
    return (_Atomic uint32_t *)(void *)(ring->data + (position & (ring->capacity - 8)));
}

/* Content is a function of a record's number. */
__attribute__((unused)) static void fill_record(uint8_t *place, uint32_t bytes, uint64_t number)
{
    for (uint32_t i = 0; i < bytes; i++) {
        place[i] = (uint8_t)(number * 167 + i * 13 + (i >> 8));
    }
}

__attribute__((unused)) static void check_record(const uint8_t *place, uint32_t bytes, uint64_t number)
{
    for (uint32_t i = 0; i < bytes; i++) {
        if (place[i] != (uint8_t)(number * 167 + i * 13 + (i >> 8))) {
            FAIL("byte %u of the %u of record %" PRIu64 " is %u", i, bytes, number, place[i]);
        }
    }
}

/* ---- watchdog ---------------------------------------------------------------------------------------------------- */

static const char *watched = "nothing";

__attribute__((unused)) static void on_alarm(int number)
{
    static const char said[] = "does not come to its end: ";
    (void)number;
    if (write(STDERR_FILENO, said, sizeof said - 1) < 0 || write(STDERR_FILENO, watched, strlen(watched)) < 0 ||
        write(STDERR_FILENO, "\n", 1) < 0) {
        _exit(2);
    }
    _exit(1);
}

/* Ends the program with `what` if that takes longer than `seconds`. 0: it is over. */
__attribute__((unused)) static void watch(const char *what, unsigned seconds)
{
    watched = what;
    signal(SIGALRM, on_alarm);
    alarm(seconds);
}

#endif
