"""What walls cost a warm invocation: hello over HTTP, from daemons with all walls and with none."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path
from typing import Final

from bench.daemon import deploy, fastlam_daemon, invoke_path
from bench.http_load import ALONE, RATE, SCRIPT, wrk
from bench.measure import Metrics, Side, Topic

WALLS: Final = "with walls (--isolation auto)"
NONE: Final = "without (--isolation process)"
LOSS_MAX: Final = 0.1


def run(topic: Topic) -> None:
    if shutil.which("wrk") is None:
        topic.missing("wrk", "the package wrk of the distribution (Debian: apt-get install wrk); without it no topic")
        return
    seconds = topic.scale(3, 1)
    sides: dict[str, Side] = {}
    missing = {}
    with contextlib.ExitStack() as stack:
        script = Path(stack.enter_context(tempfile.TemporaryDirectory()), "post.lua")
        script.write_text(SCRIPT)
        for name, level in ((WALLS, "auto"), (NONE, "process")):
            daemon = stack.enter_context(fastlam_daemon("--isolation", level))
            deploy(daemon.url, "hello")
            missing[name] = daemon.get("/_fastlam/health")["isolation"]["missing"]
            target = daemon.url + invoke_path("hello")
            wrk(target, script, 1)

            def measure(target: str = target) -> Metrics:
                return {
                    RATE: wrk(target, script, seconds)[RATE],
                    ALONE: wrk(target, script, seconds, 1)["p50"],
                }

            sides[name] = measure
        topic.in_turns(sides, {RATE: "/s", ALONE: "ms"})
    topic.ratio("requests/s: with walls / without", (WALLS, RATE), (NONE, RATE), at_least=1 - LOSS_MAX)
    topic.ratio("p50, one connection: with walls / without", (WALLS, ALONE), (NONE, ALONE), at_most=1 + LOSS_MAX)
    standing = ", but for " + ", ".join(sorted(missing[WALLS])) if missing[WALLS] else ""
    topic.note(f"All walls{standing}; wrk -t1 -c32 and -c1, {seconds} s each.")
