/* The first process of a pid namespace: what init is to a machine, for one execution environment.
 *
 * The worker must not be the first process itself: the kernel lets that one alone survive signals that it sends to
 * itself, SIGKILL among them, and hands it every orphan.
 */
#ifndef FL_FIRST_H
#define FL_FIRST_H

#include <stdint.h>

/* How the worker has ended: what goes through the pipe, once. */
typedef struct fl_first_report {
    int32_t wait_status;         /* as wait(2) gives it */
    int32_t reserved;
    int64_t memory_peak_kib;     /* its peak resident set */
} fl_first_report;

/* Waits for the worker, reaping whatever else ends meanwhile; then writes a report to the pipe and exits, and with it all
 * that is left in the namespace. Closes every descriptor but the pipe first. Never returns. */
void fl_first_run(int worker, int report_fd);

/* The first process of a namespace that others enter: reaps what is handed to it, until it is killed. Closes every
 * descriptor. Never returns. */
void fl_first_hold(void);

#endif
