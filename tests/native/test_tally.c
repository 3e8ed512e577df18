#include "fl_tally.h"

#include <pthread.h>
#include <stdalign.h>
#include <string.h>

#include "fl_test.h"

enum { ROWS = 4, MOST = 3, CLAIMS = 200000 };

static alignas(64) unsigned char rows[ROWS * FL_TALLY_ROW_BYTES];
static _Atomic int inside;

static void the_bound_holds_for_all_rows(void)
{
    memset(rows, 0, sizeof rows);
    CHECK_EQUAL(fl_tally_claim(rows, ROWS, 1, MOST), 1);
    CHECK_EQUAL(fl_tally_claim(rows, ROWS, 2, MOST), 1);
    fl_tally_hold(rows, 0, 1);
    CHECK_EQUAL(fl_tally_open(rows, ROWS), 3);
    CHECK_EQUAL(fl_tally_claim(rows, ROWS, 3, MOST), 0);
    CHECK_EQUAL(fl_tally_open(rows, ROWS), 3);
    fl_tally_drop(rows, 2);
    CHECK_EQUAL(fl_tally_claim(rows, ROWS, 3, MOST), 1);
    fl_tally_counts counts;
    fl_tally_read(rows, 3, &counts);
    CHECK_EQUAL(counts.accepted, 1); /* not the one refused */
    CHECK_EQUAL(counts.held, 1);
}

static void a_connection_taken_over_is_counted_once(void)
{
    memset(rows, 0, sizeof rows);
    CHECK_EQUAL(fl_tally_claim(rows, ROWS, 1, MOST), 1);
    fl_tally_hold(rows, 0, 1);
    fl_tally_take(rows, 1);
    CHECK_EQUAL(fl_tally_open(rows, ROWS), 1);
    fl_tally_hold(rows, 0, 0);
    CHECK_EQUAL(fl_tally_open(rows, ROWS), 0);
    fl_tally_counts counts;
    fl_tally_read(rows, 1, &counts);
    CHECK_EQUAL(counts.held, 1);
    CHECK_EQUAL(counts.taken, 1);
}

static void what_a_process_has_counted_goes_with_it(void)
{
    memset(rows, 0, sizeof rows);
    CHECK_EQUAL(fl_tally_claim(rows, ROWS, 2, MOST), 1);
    fl_tally_count(rows, 2, 5, 6, 7);
    fl_tally_counts counts;
    fl_tally_read(rows, 2, &counts);
    CHECK_EQUAL(counts.requests, 5);
    CHECK_EQUAL(counts.bytes_received, 6);
    CHECK_EQUAL(counts.bytes_sent, 7);
    fl_tally_clear(rows, 2);
    fl_tally_read(rows, 2, &counts);
    CHECK_EQUAL(counts.requests + counts.bytes_received + counts.bytes_sent + counts.accepted + counts.held, 0);
    CHECK_EQUAL(fl_tally_open(rows, ROWS), 0);
}

static void a_damaged_row_does_not_count(void)
{
    memset(rows, 0, sizeof rows);
    fl_tally_take(rows, 1);
    CHECK_EQUAL(fl_tally_open(rows, ROWS), 0);
}

static void *claims(void *row)
{
    long claimed = 0;
    for (int i = 0; i < CLAIMS; i++) {
        if (fl_tally_claim(rows, ROWS, (uint32_t)(uintptr_t)row, MOST - 1)) {
            int now = __atomic_add_fetch(&inside, 1, __ATOMIC_SEQ_CST);
            CHECK(now <= MOST - 1);
            claimed++;
            __atomic_sub_fetch(&inside, 1, __ATOMIC_SEQ_CST);
            fl_tally_drop(rows, (uint32_t)(uintptr_t)row);
        }
    }
    return (void *)claimed;
}

static void never_too_many_at_once(void)
{
    memset(rows, 0, sizeof rows);
    pthread_t threads[ROWS];
    long claimed = 0;
    for (uintptr_t row = 0; row < ROWS; row++) {
        CHECK_EQUAL(pthread_create(&threads[row], NULL, claims, (void *)row), 0);
    }
    for (int row = 0; row < ROWS; row++) {
        void *of_one;
        CHECK_EQUAL(pthread_join(threads[row], &of_one), 0);
        claimed += (long)of_one;
    }
    CHECK(claimed > 0);
    CHECK_EQUAL(fl_tally_open(rows, ROWS), 0);
}

int main(void)
{
    fl_test_start();
    RUN(the_bound_holds_for_all_rows);
    RUN(a_connection_taken_over_is_counted_once);
    RUN(what_a_process_has_counted_goes_with_it);
    RUN(a_damaged_row_does_not_count);
    RUN(never_too_many_at_once);
    return 0;
}
