/* fl_tally: what the front processes of one server have counted, in memory that they share with their dispatcher.
 *
 * A row for each process: row 0 is the dispatcher's, which has connections of its own; the others are the fronts'. Each
 * row is written by its process alone, but for `taken`, which the dispatcher writes. Open connections are counted where
 * all processes see them, so that a bound on them holds for all together.
 *
 * The memory may be damaged by any of the processes; no call does more than read and write counters in it.
 */
#ifndef FL_TALLY_H
#define FL_TALLY_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of one row; the memory must be zero at the start and aligned to 64. */
#define FL_TALLY_ROW_BYTES 128u

typedef struct fl_tally_counts {
    uint64_t held;     /* connections accepted by it and not closed by it: those that it has given away are among them */
    uint64_t taken;    /* of these the ones that the dispatcher has taken over */
    uint64_t accepted; /* in all */
    uint64_t requests;
    uint64_t bytes_received;
    uint64_t bytes_sent;
} fl_tally_counts;

/* Counts one more connection of the row if there are fewer than `most` open in all rows. 1: counted; 0: there are not. Of
 * several processes that ask at the same moment for the last place, none may get it; never two. */
int fl_tally_claim(void *rows, uint32_t row_count, uint32_t row, uint64_t most);

/* One connection of the row is closed. */
void fl_tally_drop(void *rows, uint32_t row);

/* The dispatcher takes over a connection of the row: it counts it in a row of its own from now on. */
void fl_tally_take(void *rows, uint32_t row);

/* Dispatcher: so many connections are its own. */
void fl_tally_hold(void *rows, uint32_t row, uint64_t connections);

/* The row's requests and bytes so far. */
void fl_tally_count(void *rows, uint32_t row, uint64_t requests, uint64_t bytes_received, uint64_t bytes_sent);

/* Open connections of all rows. */
uint64_t fl_tally_open(const void *rows, uint32_t row_count);

void fl_tally_read(const void *rows, uint32_t row, fl_tally_counts *out);

/* Dispatcher, when the row's process is gone. */
void fl_tally_clear(void *rows, uint32_t row);

#endif
