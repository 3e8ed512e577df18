#include "fl_rng.h"

#include <math.h>

void fl_rng_seed(fl_rng *rng, uint64_t seed)
{
    for (int i = 0; i < 4; i++) {
        seed += UINT64_C(0x9e3779b97f4a7c15);
        uint64_t mixed = seed;
        mixed = (mixed ^ (mixed >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
        mixed = (mixed ^ (mixed >> 27)) * UINT64_C(0x94d049bb133111eb);
        rng->state[i] = mixed ^ (mixed >> 31);
    }
    rng->spare = NAN;
}

static uint64_t rotated(uint64_t value, int by)
{
    return (value << by) | (value >> (64 - by));
}

uint64_t fl_rng_next(fl_rng *rng)
{
    uint64_t *state = rng->state;
    const uint64_t result = rotated(state[0] + state[3], 23) + state[0];
    const uint64_t shifted = state[1] << 17;
    state[2] ^= state[0];
    state[3] ^= state[1];
    state[1] ^= state[2];
    state[0] ^= state[3];
    state[2] ^= shifted;
    state[3] = rotated(state[3], 45);
    return result;
}

double fl_rng_uniform(fl_rng *rng)
{
    return (double)((fl_rng_next(rng) >> 11) + 1) * 0x1p-53;
}

double fl_rng_exponential(fl_rng *rng)
{
    return -log(fl_rng_uniform(rng));
}

double fl_rng_normal(fl_rng *rng)
{
    if (!isnan(rng->spare)) {
        const double spare = rng->spare;
        rng->spare = NAN;
        return spare;
    }
    for (;;) { /* a point in the unit disc, but not its centre (Marsaglia's polar method) */
        const double x = 2.0 * fl_rng_uniform(rng) - 1.0;
        const double y = 2.0 * fl_rng_uniform(rng) - 1.0;
        const double square = x * x + y * y;
        if (square > 0.0 && square < 1.0) {
            const double factor = sqrt(-2.0 * log(square) / square);
            rng->spare = y * factor;
            return x * factor;
        }
    }
}
