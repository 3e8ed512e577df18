#include "fl_rng.h"

#include <math.h>
#include <string.h>

#include "fl_test.h"

enum { NUMBERS = 1000000 };

/* The first numbers that the authors' own programs print: SplitMix64 from 0, and xoshiro256++ from {1, 2, 3, 4}. */
static void the_published_sequences(void)
{
    static const uint64_t seeded[4] = {UINT64_C(0xe220a8397b1dcdaf), UINT64_C(0x6e789e6aa1b965f4),
                                       UINT64_C(0x06c45d188009454f), UINT64_C(0xf88bb8a8724c81ec)};
    static const uint64_t drawn[4] = {UINT64_C(41943041), UINT64_C(58720359), UINT64_C(3588806011781223),
                                      UINT64_C(3591011842654386)};
    fl_rng rng;
    fl_rng_seed(&rng, 0);
    CHECK_EQUAL(memcmp(rng.state, seeded, sizeof seeded), 0);
    for (uint64_t i = 0; i < 4; i++) {
        rng.state[i] = i + 1;
    }
    for (int i = 0; i < 4; i++) {
        CHECK(fl_rng_next(&rng) == drawn[i]);
    }
}

static void one_seed_one_sequence(void)
{
    fl_rng first, second;
    uint64_t seed = fl_random(UINT64_MAX);
    fl_rng_seed(&first, seed);
    fl_rng_seed(&second, seed);
    for (int i = 0; i < 1000; i++) {
        double normal = fl_rng_normal(&first);
        CHECK(normal == fl_rng_normal(&second));
        CHECK(fl_rng_exponential(&first) == fl_rng_exponential(&second));
    }
    fl_rng_seed(&second, seed + 1);
    CHECK(fl_rng_next(&first) != fl_rng_next(&second));
}

/* Means and variances within five standard errors: one run in a million is further off by chance. */
static void check_moments(double sum, double squares, double mean, double variance, double fourth)
{
    double found_mean = sum / NUMBERS;
    double found_second = squares / NUMBERS;
    double second = variance + mean * mean;
    CHECK(fabs(found_mean - mean) < 5.0 * sqrt(variance / NUMBERS));
    CHECK(fabs(found_second - second) < 5.0 * sqrt((fourth - second * second) / NUMBERS));
}

static void the_moments_are_right(void)
{
    fl_rng rng;
    double sums[3] = {0}, squares[3] = {0};
    fl_rng_seed(&rng, fl_random(UINT64_MAX));
    for (int i = 0; i < NUMBERS; i++) {
        double numbers[3] = {fl_rng_uniform(&rng), fl_rng_exponential(&rng), fl_rng_normal(&rng)};
        CHECK(numbers[0] > 0.0 && numbers[0] <= 1.0);
        CHECK(numbers[1] >= 0.0 && isfinite(numbers[1]));
        for (int kind = 0; kind < 3; kind++) {
            sums[kind] += numbers[kind];
            squares[kind] += numbers[kind] * numbers[kind];
        }
    }
    check_moments(sums[0], squares[0], 0.5, 1.0 / 12.0, 0.2);
    check_moments(sums[1], squares[1], 1.0, 1.0, 24.0);
    check_moments(sums[2], squares[2], 0.0, 1.0, 3.0);
}

int main(void)
{
    fl_test_start();
    RUN(the_published_sequences);
    RUN(one_seed_one_sequence);
    RUN(the_moments_are_right);
    return 0;
}
