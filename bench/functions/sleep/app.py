"""Sleeps for the seconds that the event says."""

import os
import time


def handler(event, context):
    time.sleep(event)
    return os.getpid()
