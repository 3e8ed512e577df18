/* fl_express: the shared memory of one execution environment's express lane: a ring of requests, a ring of replies, and
 * beside each a region for content that is too long for its ring.
 *
 *     dispatcher --- requests + request region ---> worker
 *     dispatcher <--- replies + reply region ------ worker
 *
 * The memory is a memfd whose size is sealed before the worker gets it: nobody can shrink it under the other's feet.
 * Each process fills its own fl_express; after creation the dispatcher believes nothing in the header. A region is a
 * stack of bytes that its producer takes from and that starts anew whenever the ring beside it has been drained; where
 * in it a record's content lies is told in the record, and checked by the reader.
 */
#ifndef FL_EXPRESS_H
#define FL_EXPRESS_H

#include "fl_spsc.h"

/* What a record in a ring is: its first 4 bytes, in the byte order of the machine. */
enum {
    FL_EXPRESS_FRAME = 1,       /* a frame as on the socket follows: u32 header bytes | header | payload */
    FL_EXPRESS_TASK = 2,        /* struct fl_express_task, then the payload */
    FL_EXPRESS_TASK_RESULT = 3, /* struct fl_express_task_result, then the payload */
    FL_EXPRESS_DISTANT = 4,     /* struct fl_express_distant: the record itself lies in the region */
    FL_EXPRESS_BY_SOCKET = 5,   /* the next frame of the socket stands here: it is too long for the region */
    FL_EXPRESS_INVOKE = 6,      /* struct fl_express_invoke, then ARN, trace header and payload: an Invoke frame of nothing else */
    FL_EXPRESS_RESULT = 7       /* struct fl_express_result, then the payload: a Result frame without error and of JSON */
};

enum { FL_EXPRESS_REQUEST_ID_BYTES = 36 };

typedef struct fl_express_task {
    uint32_t kind;
    uint32_t slot;
} fl_express_task;

typedef struct fl_express_task_result {
    uint32_t kind;
    uint32_t slot;
    uint64_t duration_ns;
    uint32_t failed;
    uint32_t unused;
} fl_express_task_result;

typedef struct fl_express_invoke {
    uint32_t kind;
    uint32_t slot;
    int64_t deadline_epoch_ms;
    uint16_t arn_bytes;
    uint16_t trace_bytes; /* 0: there is none */
    char request_id[FL_EXPRESS_REQUEST_ID_BYTES];
} fl_express_invoke;

typedef struct fl_express_result {
    uint32_t kind;
    uint32_t slot;
    uint64_t duration_ns;
    uint64_t cpu_ns;
    uint64_t memory_peak_kib;
    uint64_t log_end_bytes;
} fl_express_result;

typedef struct fl_express_distant {
    uint32_t kind;
    uint32_t unused;
    uint64_t offset; /* in the region */
    uint64_t bytes;
} fl_express_distant;

typedef struct fl_region {
    uint8_t *base;
    uint64_t bytes;
    uint64_t taken;      /* producer: bytes in use since the ring was last drained */
    uint64_t taken_most; /* producer: no memory of the system's is used beyond it */
} fl_region;

typedef struct fl_express {
    void *base;
    size_t bytes;
    fl_spsc requests;
    fl_spsc replies;
    fl_region request_region;
    fl_region reply_region;
    uint64_t moved_ns; /* worker: when it last went to another CPU */
} fl_express;

/* Dispatcher. Sizes the memfd `fd` (empty, made with MFD_ALLOW_SEALING), seals its size for good and maps it; memory is
 * used only where it is written. `ring_bytes`: of each ring, a power of two; `region_bytes`: of each region, up to 1 GiB.
 * The caller keeps owning `fd` and may close it at once. 0, or -errno with *out zeroed. */
int fl_express_create(fl_express *out, int fd, uint32_t ring_bytes, uint64_t region_bytes);

/* Worker. Maps the memory in `fd`, which may be closed afterwards. 0; -EPROTO when it is no such memory of this version
 * and of the descriptor's size; or -errno. *out is zeroed on failure. */
int fl_express_open(fl_express *out, int fd);

/* Either. Unmaps; nothing happens when not mapped. */
void fl_express_close(fl_express *express);

/* Producer. `bytes` bytes of the region (aligned to 64) for content that is told of in a record of `ring`. That record
 * must be reserved before the next call: until then nothing shows that the content is wanted, and a drained ring gives
 * its place away. NULL: there is no room now, or never, above the region's size. */
void *fl_region_take(fl_region *region, fl_spsc *ring, uint64_t bytes);

/* Consumer. Where content lies, until the record that tells of it is released; NULL when it would not lie within the
 * region. */
const uint8_t *fl_region_at(const fl_region *region, uint64_t offset, uint64_t bytes);

/* Producer, when the ring is drained: gives back to the system what the region has used beyond `keep_bytes`. */
void fl_region_trim(fl_region *region, uint64_t keep_bytes);

/* ---- how long a worker may spin ------------------------------------------------------------------------------------ */

/* Dispatcher: the worker may look for its next request so long before it sleeps. 0: it sleeps at once. */
void fl_express_allow_spin(fl_express *express, uint32_t spin_ns);

/* A worker's own, zero at first: it was not let run while it looked, so CPUs may be short, and it does not look again for
 * a moment; for longer the more often that happens before it finds a request. */
typedef struct fl_express_rest {
    uint64_t until_ns;
    uint64_t length_ns;
} fl_express_rest;

/* Worker. Waits for a request: looks for it as long as it may, then sleeps. 0: there is one (or impossible values: peek
 * tells); -EINTR: a signal came, handle it and call again. */
int fl_express_wait(fl_express *express, fl_express_rest *rest);

/* Its two halves, for a worker that does something between them, such as handling signals that came while it looked.
 * look: 1 if there is a request. sleep: as fl_express_wait. */
int fl_express_look(fl_express *express, fl_express_rest *rest);
int fl_express_sleep(fl_express *express);

/* Dispatcher: wakes the worker that announced sleep, and tells it from which CPU. */
void fl_express_rouse(fl_express *express);

/* Worker, part of its sleep. Where kernels place the woken on the CPU of the waker, which looks out for the answer there,
 * each stands in the other's way although another CPU may idle, and nothing ever changes that. Such a worker goes to
 * another CPU of those it may use, unless the dispatcher finds CPUs short (no looking is allowed) or it went a moment ago.
 * 1: it went. */
int fl_express_move_away(fl_express *express);

#endif
