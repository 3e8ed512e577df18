/* The test framework of the native tests: checks that stop the program with the place, the values and the seed.
 *
 * A program is a list of RUN(test) in main(). Random tests take their numbers from fl_random(), whose seed is printed
 * at the start and can be set again with the environment variable FL_SEED.
 */
#ifndef FL_TEST_H
#define FL_TEST_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static uint64_t fl_test_seed;
static uint64_t fl_test_state;

#define FAIL(...)                                                                                                      \
    do {                                                                                                               \
        fprintf(stderr, "%s:%d: ", __FILE__, __LINE__);                                                                \
        fprintf(stderr, __VA_ARGS__);                                                                                  \
        fprintf(stderr, " (FL_SEED=%" PRIu64 ")\n", fl_test_seed);                                                     \
        fflush(stderr);                                                                                                \
        _exit(1);                                                                                                      \
    } while (0)

#define CHECK(condition)                                                                                               \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            FAIL("not so: %s", #condition);                                                                            \
        }                                                                                                              \
    } while (0)

#define CHECK_EQUAL(actual, expected)                                                                                  \
    do {                                                                                                               \
        long long actual_value = (long long)(actual), expected_value = (long long)(expected);                          \
        if (actual_value != expected_value) {                                                                          \
            FAIL("%s is %lld, not %s = %lld", #actual, actual_value, #expected, expected_value);                       \
        }                                                                                                              \
    } while (0)

#define RUN(test)                                                                                                      \
    do {                                                                                                               \
        printf("%s\n", #test);                                                                                         \
        fflush(stdout);                                                                                                \
        test();                                                                                                        \
    } while (0)

__attribute__((unused)) static void fl_test_start(void)
{
    const char *seed = getenv("FL_SEED");
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    fl_test_seed = seed != NULL ? strtoull(seed, NULL, 10) : (uint64_t)now.tv_sec * 1000003u + (uint64_t)now.tv_nsec;
    fl_test_state = fl_test_seed;
    printf("FL_SEED=%" PRIu64 "\n", fl_test_seed);
    fflush(stdout);
}

/* splitmix64; `state` belongs to the calling thread. */
__attribute__((unused)) static uint64_t fl_random_of(uint64_t *state)
{
    uint64_t value = (*state += UINT64_C(0x9e3779b97f4a7c15));
    value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
    return value ^ (value >> 31);
}

__attribute__((unused)) static uint64_t fl_random(uint64_t below)
{
    return fl_random_of(&fl_test_state) % below;
}

/* How many rounds a repeated test makes: fewer where a sanitizer slows it (FL_TEST_ROUNDS_DIVISOR). */
__attribute__((unused)) static uint32_t fl_rounds(uint32_t rounds)
{
    const char *divisor = getenv("FL_TEST_ROUNDS_DIVISOR");
    return divisor != NULL ? rounds / (uint32_t)strtoul(divisor, NULL, 10) : rounds;
}

#endif
