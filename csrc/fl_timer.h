/* fl_timer: deadlines in an indexed binary min-heap. Single-threaded: all of it belongs to the thread that drives.
 *
 * Timers are intrusive: the owner embeds an fl_timer and keeps its address stable while it is queued. The index kept in
 * each timer makes moving and cancelling O(log n) without a search. Timers with equal deadlines come out in any order.
 */
#ifndef FL_TIMER_H
#define FL_TIMER_H

#include <stdint.h>

#define FL_TIMER_IDLE UINT32_MAX

typedef struct fl_timer {
    uint64_t deadline_ns; /* absolute, on whatever clock the caller compares with; valid while queued */
    uint32_t index;       /* position in the heap, FL_TIMER_IDLE when not queued; written by fl_timers_* only */
    void *owner;          /* the caller's; never read here */
} fl_timer;

typedef struct fl_timers {
    fl_timer **heap; /* heap[0] has the nearest deadline */
    uint32_t size;
    uint32_t capacity;
} fl_timers;

/* Makes an idle timer. */
void fl_timer_init(fl_timer *timer, void *owner);

/* Makes an empty heap; allocates nothing yet. Always 0 (an int so that it may come to allocate). */
int fl_timers_init(fl_timers *timers);

/* Makes every queued timer idle and frees the heap, which is then as after fl_timers_init. */
void fl_timers_free(fl_timers *timers);

/* Queues the timer, or moves it if it is queued in this heap. 0, or -ENOMEM (nothing changed; never when moving). */
int fl_timers_set(fl_timers *timers, fl_timer *timer, uint64_t deadline_ns);

/* Makes the timer idle; nothing happens when it is. It must not be queued in another heap. */
void fl_timers_cancel(fl_timers *timers, fl_timer *timer);

/* The nearest deadline, UINT64_MAX when none is queued. */
uint64_t fl_timers_next(const fl_timers *timers);

/* Takes out a timer with the nearest deadline if that is <= now_ns, and makes it idle; NULL when none is due. */
fl_timer *fl_timers_pop_due(fl_timers *timers, uint64_t now_ns);

#endif
