/* DESIGN
 * memfd: one line of header, one line of hints, the two control parts, the two rings, the two regions; rings and regions
 * begin on pages of their own.
 */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* F_ADD_SEALS, MADV_REMOVE */
#endif
#include "fl_express.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAGIC UINT64_C(0x73657270786c6600) /* "\0flxpres" in memory */

enum { LAYOUT_VERSION = 1, LINE_BYTES = 64, PAGE = 4096, CONTROL_PART = PAGE };

#define RING_BYTES_MAX (UINT32_C(1) << 30) /* fl_spsc_init takes no more */
#define REGION_BYTES_MAX (UINT64_C(1) << 30)

/* A gap this long between two looks means that another task, or another virtual machine, had this CPU; a worker then rests
 * from looking. */
#define PREEMPTED_NS 25000u
#define REST_NS_MIN 100000u
#define REST_NS_MAX 5000000u
#define LOOKS_A_CLOCK 8u
#define MOVE_REST_NS 10000000u /* between two moves to another CPU */

/* Written by the dispatcher at creation; read by the worker when it opens the memory, by nobody afterwards. */
struct header {
    uint64_t magic;
    uint32_t version;
    uint32_t ring_bytes;
    uint64_t region_bytes;
};

struct shared {
    _Alignas(LINE_BYTES) struct header header;
    _Alignas(LINE_BYTES) atomic_uint spin_ns; /* dispatcher writes, worker reads; and the next */
    atomic_uint waker_cpu;                    /* where the dispatcher was when it last woke the worker, plus 1 */
    _Alignas(LINE_BYTES) uint8_t requests[FL_SPSC_CONTROL_BYTES];
    _Alignas(LINE_BYTES) uint8_t replies[FL_SPSC_CONTROL_BYTES];
};

_Static_assert(sizeof(struct shared) <= CONTROL_PART, "the control part is one page");

static uint64_t pages(uint64_t bytes)
{
    return (bytes + PAGE - 1) & ~(uint64_t)(PAGE - 1);
}

/* 0 when a size is not allowed. */
static uint64_t bytes_for(uint32_t ring_bytes, uint64_t region_bytes)
{
    if (ring_bytes < PAGE || ring_bytes > RING_BYTES_MAX || (ring_bytes & (ring_bytes - 1)) != 0 ||
        region_bytes > REGION_BYTES_MAX) {
        return 0;
    }
    return CONTROL_PART + 2 * (uint64_t)ring_bytes + 2 * pages(region_bytes);
}

static int map(fl_express *out, int fd, uint32_t ring_bytes, uint64_t region_bytes)
{
    uint64_t bytes = bytes_for(ring_bytes, region_bytes);
    uint8_t *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (base == MAP_FAILED) {
        return -errno;
    }
    struct shared *shared = (struct shared *)(void *)base;
    uint8_t *rings = base + CONTROL_PART;
    uint8_t *regions = rings + 2 * (uint64_t)ring_bytes;
    out->base = base;
    out->bytes = bytes;
    int result = fl_spsc_init(&out->requests, shared->requests, rings, ring_bytes);
    if (result == 0) {
        result = fl_spsc_init(&out->replies, shared->replies, rings + ring_bytes, ring_bytes);
    }
    out->request_region = (fl_region){.base = regions, .bytes = region_bytes};
    out->reply_region = (fl_region){.base = regions + pages(region_bytes), .bytes = region_bytes};
    return result;
}

int fl_express_create(fl_express *out, int fd, uint32_t ring_bytes, uint64_t region_bytes)
{
    memset(out, 0, sizeof *out);
    uint64_t bytes = bytes_for(ring_bytes, region_bytes);
    if (bytes == 0) {
        return -EINVAL;
    }
    if (ftruncate(fd, (off_t)bytes) != 0 ||
        fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        return -errno;
    }
    int result = map(out, fd, ring_bytes, region_bytes);
    if (result != 0) {
        fl_express_close(out);
        return result;
    }
    ((struct shared *)out->base)->header = (struct header){
        .magic = MAGIC,
        .version = LAYOUT_VERSION,
        .ring_bytes = ring_bytes,
        .region_bytes = region_bytes,
    };
    return 0;
}

int fl_express_open(fl_express *out, int fd)
{
    memset(out, 0, sizeof *out);
    struct stat status;
    if (fstat(fd, &status) != 0) {
        return -errno;
    }
    struct header header;
    ssize_t got = pread(fd, &header, sizeof header, 0);
    if (got < 0) {
        return -errno;
    }
    if (got != sizeof header || header.magic != MAGIC || header.version != LAYOUT_VERSION || status.st_size <= 0 ||
        bytes_for(header.ring_bytes, header.region_bytes) != (uint64_t)status.st_size) {
        return -EPROTO;
    }
    int result = map(out, fd, header.ring_bytes, header.region_bytes);
    if (result != 0) {
        fl_express_close(out);
    }
    return result;
}

void fl_express_close(fl_express *express)
{
    if (express->base != NULL) {
        munmap(express->base, express->bytes);
    }
    memset(express, 0, sizeof *express);
}

/* ---- regions ------------------------------------------------------------------------------------------------------- */

void *fl_region_take(fl_region *region, fl_spsc *ring, uint64_t bytes)
{
    if (bytes > region->bytes) {
        return NULL;
    }
    uint64_t size = (bytes + LINE_BYTES - 1) & ~(uint64_t)(LINE_BYTES - 1);
    if (region->taken != 0 && fl_spsc_drained(ring)) {
        region->taken = 0;
    }
    if (bytes > region->bytes - region->taken) {
        return NULL;
    }
    void *place = region->base + region->taken;
    region->taken += size < region->bytes - region->taken ? size : region->bytes - region->taken;
    if (region->taken > region->taken_most) {
        region->taken_most = region->taken;
    }
    return place;
}

const uint8_t *fl_region_at(const fl_region *region, uint64_t offset, uint64_t bytes)
{
    if (bytes > region->bytes || offset > region->bytes - bytes) {
        return NULL;
    }
    return region->base + offset;
}

void fl_region_trim(fl_region *region, uint64_t keep_bytes)
{
    if (region->taken_most <= keep_bytes) {
        return;
    }
    /* In whole pages of this machine, which may be larger than the layout's: never more than lies between the two. */
    uintptr_t base = (uintptr_t)region->base, page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t begin = (base + keep_bytes + page - 1) & ~(page - 1);
    uintptr_t end = (base + pages(region->taken_most)) & ~(page - 1);
    if (begin < end) {
        madvise(region->base + (begin - base), end - begin, MADV_REMOVE);
    }
    region->taken_most = keep_bytes;
}

/* ---- spinning ------------------------------------------------------------------------------------------------------ */

static uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ __volatile__("yield");
#endif
}

void fl_express_allow_spin(fl_express *express, uint32_t spin_ns)
{
    struct shared *shared = express->base;
    if (atomic_load_explicit(&shared->spin_ns, memory_order_relaxed) != spin_ns) {
        atomic_store_explicit(&shared->spin_ns, spin_ns, memory_order_relaxed);
    }
}

int fl_express_look(fl_express *express, fl_express_rest *rest)
{
    struct shared *shared = express->base;
    fl_spsc *ring = &express->requests;
    if (fl_spsc_ready(ring)) {
        return 1;
    }
    uint32_t spin_ns = atomic_load_explicit(&shared->spin_ns, memory_order_relaxed);
    if (spin_ns == 0) {
        return 0;
    }
    uint64_t begun = now_ns(), last = begun, now = begun;
    while (begun >= rest->until_ns && now - begun < spin_ns) {
        for (uint32_t look = 0; look < LOOKS_A_CLOCK; look++) {
            if (fl_spsc_ready(ring)) {
                rest->length_ns = 0;
                return 1;
            }
            relax();
        }
        now = now_ns();
        if (now - last > PREEMPTED_NS) {
            uint64_t length = 2 * rest->length_ns;
            rest->length_ns = length < REST_NS_MIN ? REST_NS_MIN : length > REST_NS_MAX ? REST_NS_MAX : length;
            rest->until_ns = now + rest->length_ns;
            break;
        }
        last = now;
    }
    return 0;
}

void fl_express_rouse(fl_express *express)
{
    struct shared *shared = express->base;
    atomic_store_explicit(&shared->waker_cpu, (unsigned)(sched_getcpu() + 1), memory_order_relaxed);
    fl_spsc_rouse(&express->requests);
}

int fl_express_move_away(fl_express *express)
{
    struct shared *shared = express->base;
    unsigned waker = atomic_load_explicit(&shared->waker_cpu, memory_order_relaxed);
    int cpu = sched_getcpu();
    if (cpu < 0 || waker != (unsigned)cpu + 1 || atomic_load_explicit(&shared->spin_ns, memory_order_relaxed) == 0) {
        return 0;
    }
    uint64_t now = now_ns();
    if (now - express->moved_ns < MOVE_REST_NS) {
        return 0;
    }
    express->moved_ns = now;
    cpu_set_t allowed, others;
    if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) {
        return 0; /* more CPUs than the set holds: there is room among them */
    }
    others = allowed;
    CPU_CLR((size_t)cpu, &others);
    if (CPU_COUNT(&others) == 0 || sched_setaffinity(0, sizeof others, &others) != 0) {
        return 0;
    }
    (void)sched_setaffinity(0, sizeof allowed, &allowed);
    return 1;
}

int fl_express_sleep(fl_express *express)
{
    fl_spsc *ring = &express->requests;
    while (fl_spsc_announce_sleep(ring)) {
        int result = fl_spsc_sleep(ring, -1);
        fl_spsc_announce_awake(ring);
        if (fl_spsc_ready(ring)) {
            (void)fl_express_move_away(express);
            return 0;
        }
        if (result == -EINTR) {
            return -EINTR;
        }
    }
    return 0;
}

int fl_express_wait(fl_express *express, fl_express_rest *rest)
{
    return fl_express_look(express, rest) ? 0 : fl_express_sleep(express);
}
