#include "fl_timer.h"

#include <string.h>

#include "fl_test.h"

enum { TIMERS = 300 };

static fl_timer timers[TIMERS];

static void check_heap(const fl_timers *heap)
{
    CHECK(heap->size <= heap->capacity);
    for (uint32_t i = 0; i < heap->size; i++) {
        CHECK_EQUAL(heap->heap[i]->index, i);
        if (i > 0) {
            CHECK(heap->heap[(i - 1) / 2]->deadline_ns <= heap->heap[i]->deadline_ns);
        }
    }
}

/* The model: for each timer whether it is queued and its deadline; the nearest by looking at them all. */
static uint64_t model_deadline[TIMERS];
static int model_queued[TIMERS];

static uint64_t model_next(void)
{
    uint64_t next = UINT64_MAX;
    for (int i = 0; i < TIMERS; i++) {
        if (model_queued[i] && model_deadline[i] < next) {
            next = model_deadline[i];
        }
    }
    return next;
}

static uint32_t model_size(void)
{
    uint32_t size = 0;
    for (int i = 0; i < TIMERS; i++) {
        size += (uint32_t)model_queued[i];
    }
    return size;
}

static void agrees_with_a_model(void)
{
    fl_timers heap;
    CHECK_EQUAL(fl_timers_init(&heap), 0);
    for (int i = 0; i < TIMERS; i++) {
        fl_timer_init(&timers[i], &model_queued[i]);
    }
    for (int round = 0; round < 30000; round++) {
        uint64_t i = fl_random(TIMERS), operation = fl_random(10);
        uint64_t deadline = fl_random(20) == 0 ? UINT64_MAX : fl_random(round % 2 ? 50 : 1000000); /* many are equal */
        if (operation < 5) {
            CHECK_EQUAL(fl_timers_set(&heap, &timers[i], deadline), 0);
            model_queued[i] = 1;
            model_deadline[i] = deadline;
        } else if (operation < 8) {
            fl_timers_cancel(&heap, &timers[i]);
            model_queued[i] = 0;
        } else {
            uint64_t next = model_next();
            fl_timer *due = fl_timers_pop_due(&heap, deadline);
            CHECK((due != NULL) == (model_size() > 0 && next <= deadline));
            if (due != NULL) {
                CHECK_EQUAL(due->deadline_ns, next);
                CHECK_EQUAL(due->index, FL_TIMER_IDLE);
                CHECK(due->owner == &model_queued[due - timers]);
                CHECK(model_queued[due - timers]);
                model_queued[due - timers] = 0;
            }
        }
        CHECK_EQUAL(heap.size, model_size());
        CHECK(fl_timers_next(&heap) == model_next());
        CHECK((timers[i].index == FL_TIMER_IDLE) == !model_queued[i]);
        check_heap(&heap);
    }
    fl_timers_free(&heap);
    for (int i = 0; i < TIMERS; i++) {
        CHECK_EQUAL(timers[i].index, FL_TIMER_IDLE);
    }
    CHECK_EQUAL(heap.size, 0);
    CHECK(fl_timers_next(&heap) == UINT64_MAX);
}

static void comes_out_sorted(void)
{
    fl_timers heap;
    fl_timers_init(&heap);
    for (int i = 0; i < TIMERS; i++) {
        fl_timer_init(&timers[i], NULL);
        CHECK_EQUAL(fl_timers_set(&heap, &timers[i], fl_random(1000)), 0);
    }
    uint64_t last = 0;
    for (int i = 0; i < TIMERS; i++) {
        fl_timer *timer = fl_timers_pop_due(&heap, UINT64_MAX);
        CHECK(timer != NULL && timer->deadline_ns >= last);
        last = timer->deadline_ns;
    }
    CHECK(fl_timers_pop_due(&heap, UINT64_MAX) == NULL);
    fl_timers_free(&heap);
}

static void edges(void)
{
    fl_timers heap;
    fl_timer timer;
    fl_timers_init(&heap);
    fl_timer_init(&timer, NULL);
    fl_timers_cancel(&heap, &timer); /* idle: nothing happens, even without a heap */
    CHECK(fl_timers_next(&heap) == UINT64_MAX);
    CHECK(fl_timers_pop_due(&heap, UINT64_MAX) == NULL);
    CHECK_EQUAL(fl_timers_set(&heap, &timer, 5), 0);
    CHECK(fl_timers_pop_due(&heap, 4) == NULL);
    CHECK(fl_timers_pop_due(&heap, 5) == &timer);
    CHECK_EQUAL(fl_timers_set(&heap, &timer, UINT64_MAX), 0);
    CHECK(fl_timers_pop_due(&heap, UINT64_MAX - 1) == NULL);
    CHECK(fl_timers_pop_due(&heap, UINT64_MAX) == &timer);
    fl_timers_free(&heap);
    fl_timers_free(&heap);
}

int main(void)
{
    fl_test_start();
    RUN(agrees_with_a_model);
    RUN(comes_out_sorted);
    RUN(edges);
    return 0;
}
