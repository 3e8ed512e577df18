#include "fl_timer.h"

#include <errno.h>
#include <stdlib.h>

enum { CAPACITY_FIRST = 64 };

static void place(fl_timers *timers, uint32_t index, fl_timer *timer)
{
    timers->heap[index] = timer;
    timer->index = index;
}

/* Moves `timer`, whose place `index` is a hole, towards the root until its parent is not later. */
static void sift_up(fl_timers *timers, uint32_t index, fl_timer *timer)
{
    while (index > 0) {
        uint32_t parent = (index - 1) / 2;
        if (timers->heap[parent]->deadline_ns <= timer->deadline_ns) {
            break;
        }
        place(timers, index, timers->heap[parent]);
        index = parent;
    }
    place(timers, index, timer);
}

/* Moves `timer`, whose place `index` is a hole, away from the root until neither child is earlier. */
static void sift_down(fl_timers *timers, uint32_t index, fl_timer *timer)
{
    for (;;) {
        uint64_t child = 2 * (uint64_t)index + 1;
        if (child >= timers->size) {
            break;
        }
        if (child + 1 < timers->size && timers->heap[child + 1]->deadline_ns < timers->heap[child]->deadline_ns) {
            child++;
        }
        if (timer->deadline_ns <= timers->heap[child]->deadline_ns) {
            break;
        }
        place(timers, index, timers->heap[child]);
        index = (uint32_t)child;
    }
    place(timers, index, timer);
}

static void settle(fl_timers *timers, uint32_t index, fl_timer *timer)
{
    if (index > 0 && timer->deadline_ns < timers->heap[(index - 1) / 2]->deadline_ns) {
        sift_up(timers, index, timer);
    } else {
        sift_down(timers, index, timer);
    }
}

void fl_timer_init(fl_timer *timer, void *owner)
{
    timer->deadline_ns = 0;
    timer->index = FL_TIMER_IDLE;
    timer->owner = owner;
}

int fl_timers_init(fl_timers *timers)
{
    timers->heap = NULL;
    timers->size = 0;
    timers->capacity = 0;
    return 0;
}

void fl_timers_free(fl_timers *timers)
{
    for (uint32_t index = 0; index < timers->size; index++) {
        timers->heap[index]->index = FL_TIMER_IDLE;
    }
    free(timers->heap);
    fl_timers_init(timers);
}

static int grow(fl_timers *timers)
{
    uint64_t capacity = timers->capacity == 0 ? CAPACITY_FIRST : 2 * (uint64_t)timers->capacity;
    if (capacity >= FL_TIMER_IDLE) {
        return -ENOMEM;
    }
    fl_timer **heap = realloc(timers->heap, (size_t)capacity * sizeof *heap);
    if (heap == NULL) {
        return -ENOMEM;
    }
    timers->heap = heap;
    timers->capacity = (uint32_t)capacity;
    return 0;
}

int fl_timers_set(fl_timers *timers, fl_timer *timer, uint64_t deadline_ns)
{
    if (timer->index != FL_TIMER_IDLE) {
        timer->deadline_ns = deadline_ns;
        settle(timers, timer->index, timer);
        return 0;
    }
    if (timers->size == timers->capacity) {
        int result = grow(timers);
        if (result != 0) {
            return result;
        }
    }
    timer->deadline_ns = deadline_ns;
    sift_up(timers, timers->size++, timer);
    return 0;
}

void fl_timers_cancel(fl_timers *timers, fl_timer *timer)
{
    uint32_t index = timer->index;
    if (index == FL_TIMER_IDLE) {
        return;
    }
    timer->index = FL_TIMER_IDLE;
    fl_timer *last = timers->heap[--timers->size];
    if (last != timer) {
        settle(timers, index, last);
    }
}

uint64_t fl_timers_next(const fl_timers *timers)
{
    return timers->size == 0 ? UINT64_MAX : timers->heap[0]->deadline_ns;
}

fl_timer *fl_timers_pop_due(fl_timers *timers, uint64_t now_ns)
{
    if (timers->size == 0 || timers->heap[0]->deadline_ns > now_ns) {
        return NULL;
    }
    fl_timer *timer = timers->heap[0];
    fl_timers_cancel(timers, timer);
    return timer;
}
