"""Sleeps or burns for so many milliseconds and says what it read from CLOCK_MONOTONIC before and after."""

import time


def handler(event, context):
    begun = time.monotonic_ns()
    if event["how"] == "sleep":
        time.sleep(event["ms"] / 1e3)
    elif event["how"] == "burn":
        end = begun + event["ms"] * 1_000_000
        while time.monotonic_ns() < end:
            pass
    return time.monotonic_ns() - begun
