/* fl_rng: reproducible random numbers for simulations: xoshiro256++ (Blackman and Vigna), seeded by SplitMix64.
 *
 * The same seed gives the same numbers on every machine, up to how its libm rounds a logarithm. Not for secrets. A
 * generator belongs to one thread.
 */
#ifndef FL_RNG_H
#define FL_RNG_H

#include <stdint.h>

typedef struct fl_rng {
    uint64_t state[4];
    double spare; /* the second normal number of a pair; NAN when there is none */
} fl_rng;

/* Any seed will do; nearby seeds give unrelated sequences. */
void fl_rng_seed(fl_rng *rng, uint64_t seed);

/* 64 random bits. */
uint64_t fl_rng_next(fl_rng *rng);

/* Uniform in (0, 1]: its logarithm is finite. */
double fl_rng_uniform(fl_rng *rng);

/* Exponential with mean 1. */
double fl_rng_exponential(fl_rng *rng);

/* Normal with mean 0 and variance 1. */
double fl_rng_normal(fl_rng *rng);

#endif
