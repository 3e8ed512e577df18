"""Computes, or writes to /tmp, for so many seconds; says how much it got done and how long it really took."""

import os
import time

BLOCK = os.urandom(1 << 20)
PATH = "/tmp/written"


def compute():
    sum(range(10_000))


def write():
    with open(PATH, "wb", buffering=0) as file:
        file.write(BLOCK)
        os.fsync(file.fileno())


def handler(event, context):
    step = {"compute": compute, "write": write}[event["kind"]]
    begun, cpu_before = time.monotonic(), time.process_time()
    end = begun + event["seconds"]
    done = 0
    while time.monotonic() < end:
        step()
        done += 1
    return {"done": done, "seconds": time.monotonic() - begun, "cpu_seconds": time.process_time() - cpu_before}
