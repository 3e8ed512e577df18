"""Runs bench/micro under pytest-benchmark and takes its figures over."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from bench.measure import Series, Topic

MICRO: Final = Path(__file__).with_name("micro")


def run(topic: Topic) -> None:
    if importlib.util.find_spec("pytest_benchmark") is None:
        topic.missing("pytest-benchmark", 'pip install "fastlam[test]"')
        return
    seconds = "0.05" if topic.quick else "0.5"
    with tempfile.TemporaryDirectory(prefix="micro-") as directory:
        file = Path(directory, "micro.json")
        words = [sys.executable, "-m", "pytest", str(MICRO), "-q", f"--benchmark-json={file}"]
        words += [f"--benchmark-max-time={seconds}", f"--rootdir={MICRO}", "-c", "/dev/null", "-p", "no:cacheprovider"]
        said = subprocess.run(words, capture_output=True, text=True, check=False)
        if said.returncode:
            raise RuntimeError(f"pytest bench/micro failed: {said.stdout[-2000:]}")
        found = json.loads(file.read_text())["benchmarks"]
    for one in found:
        name = one["name"].removeprefix("test_").replace("_", " ")
        values = [one["stats"]["median"] * 1e9, one["stats"]["q1"] * 1e9, one["stats"]["q3"] * 1e9]
        topic.result.series.append(Series(name, one["group"], "ns", values))
    topic.note("Medians of one call and their quartiles; the ring's figures are for 10,000 pairs of push and pop.")
