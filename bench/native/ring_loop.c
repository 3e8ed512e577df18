/* Push and pop of csrc/fl_ring in a loop, for ctypes: one call is many rounds, so that ctypes is not what is measured. */
#include <stdint.h>

#include "fl_ring.h"

/* 0, or the ring's error. `rounds` times `batch` records of `record_bytes` go in, and out again. */
int ring_loop(fl_ring *ring, uint32_t record_bytes, uint32_t batch, uint64_t rounds) {
    unsigned char record[256] = {0};
    if (record_bytes > sizeof record) {
        return FL_RING_TOO_BIG;
    }
    for (uint64_t round = 0; round < rounds; round++) {
        for (uint32_t i = 0; i < batch; i++) {
            int pushed = fl_ring_push(ring, record, record_bytes);
            if (pushed < 0) {
                return pushed;
            }
        }
        for (uint32_t i = 0; i < batch; i++) {
            int64_t popped = fl_ring_pop(ring, record, sizeof record);
            if (popped < 0) {
                return (int)popped;
            }
        }
    }
    return 0;
}
