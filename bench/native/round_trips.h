/* What the ping-pongs share: the clock, and the report of their round trips. */
#ifndef ROUND_TRIPS_H
#define ROUND_TRIPS_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static uint64_t now_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static int ascending(const void *left, const void *right) {
    uint64_t a = *(const uint64_t *)left, b = *(const uint64_t *)right;
    return (a > b) - (a < b);
}

/* Prints the median, the 90th and the 99th percentile in nanoseconds. The first tenth is warm-up and not counted. */
static void report(uint64_t *times, long count) {
    long skipped = count / 10, counted = count - skipped;
    qsort(times + skipped, (size_t)counted, sizeof *times, ascending);
    printf("%llu %llu %llu\n", (unsigned long long)times[skipped + counted / 2],
           (unsigned long long)times[skipped + counted * 9 / 10], (unsigned long long)times[skipped + counted * 99 / 100]);
}

#endif
