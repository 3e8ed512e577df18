"""Runs the benchmarks against their peers in the same run and writes a table: `python bench/run.py [--only NAME]`.

Every topic is a process of its own, so that none is measured in what another has left. bench/README.md has the method.
"""

from __future__ import annotations

import argparse
import datetime
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Final

import msgspec

ROOT: Final = Path(__file__).resolve().parents[1]
if sys.path[0] == str(ROOT / "bench"):
    sys.path[0] = str(ROOT)

from bench import report  # noqa: E402 - the line above is what makes it importable
from bench.catalogue import TOPICS  # noqa: E402
from bench.fingerprint import fingerprint  # noqa: E402
from bench.measure import Result  # noqa: E402

ROUNDS_DEFAULT: Final = 5
ROUNDS_QUICK: Final = 2
STOP_SECONDS: Final = 20.0
INTERRUPTED: Final = 130  # as shells say it


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Benchmarks of fastlam, in turns with their peers.")
    parser.add_argument("--rounds", type=int, help=f"interleaved rounds (default {ROUNDS_DEFAULT})")
    parser.add_argument("--only", action="append", metavar="NAME", help="this topic; may be given several times")
    parser.add_argument("--quick", action="store_true", help="two short rounds, to see that everything runs")
    parser.add_argument("--count", type=int, default=0, help="calls of soak and soak_embedded, workers of kills")
    parser.add_argument("--list", action="store_true", help="the topics")
    parser.add_argument("--results", type=Path, default=ROOT / "bench/results", help="where the files go")
    options = parser.parse_args()
    unknown = [name for name in options.only or () if name not in TOPICS]
    if unknown:
        parser.error(f"no topic is called {', '.join(unknown)}; there are {', '.join(TOPICS)}")
    if options.rounds is None:
        options.rounds = ROUNDS_QUICK if options.quick else ROUNDS_DEFAULT
    if options.rounds < 1:
        parser.error("--rounds must be at least 1")
    return options


def run_topic(name: str, options: argparse.Namespace, scratch: Path) -> Result:
    """One topic in a process group of its own, which ends with it."""
    file = scratch / f"{name}.json"
    words = [name, str(file), str(options.rounds), str(int(options.quick)), str(options.count)]
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("AWS_", "FASTLAM_"))}
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    failed = ""
    process = subprocess.Popen(
        [sys.executable, "-P", "-m", "bench.topic", *words],
        env=environment | {"TMPDIR": str(scratch)},
        cwd=scratch,
        stdin=subprocess.DEVNULL,
        process_group=0,
    )
    try:
        status = process.wait(TOPICS[name].seconds_max)
        failed = f"status {status}" if status else ""
    except subprocess.TimeoutExpired:
        failed = f"not over after {TOPICS[name].seconds_max} s"
    finally:
        _end(process)
    if sys.stderr.isatty():
        print("\r\x1b[K", end="", file=sys.stderr, flush=True)
    try:
        result = msgspec.json.decode(file.read_bytes(), type=Result)
    except (OSError, msgspec.DecodeError):
        result = Result(name, TOPICS[name].title)
    result.failed = result.failed or failed
    return result


def _end(process: subprocess.Popen[bytes]) -> None:
    """The topic, gently, and then whatever it has left in its group."""
    if process.poll() is None:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return


def write(directory: Path, results: list[Result], environment: dict[str, str], options: dict[str, Any]) -> Path:
    """<date>.md and .json; a second run of a day gets a number."""
    directory.mkdir(parents=True, exist_ok=True)
    date = datetime.date.today().isoformat()
    names = [date, *(f"{date}-{number}" for number in range(2, 1000))]
    name = next(one for one in names if not (directory / f"{one}.md").exists())
    document = directory / f"{name}.md"
    document.write_text(report.markdown(results, environment, options), "utf-8")
    everything = {"environment": environment, "options": options, "topics": results}
    (directory / f"{name}.json").write_bytes(msgspec.json.format(msgspec.json.encode(everything)) + b"\n")
    return document


def main() -> int:
    from rich.console import Console

    options = arguments()
    if options.list:
        for name, entry in TOPICS.items():
            print(f"{name:14} {entry.title}{'' if entry.default else ' (only with --only)'}")
        return 0
    console = Console(width=None if sys.stdout.isatty() else 150)
    environment = fingerprint()
    for name, value in environment.items():
        console.print(f"[dim]{name:22}[/dim] {value}", highlight=False)
    chosen = options.only or [name for name, entry in TOPICS.items() if entry.default]
    stated = {"rounds": options.rounds, "quick": options.quick, **({"count": options.count} if options.count else {})}
    results: list[Result] = []
    interrupted = False
    try:
        # Short: the path of a unix socket has 107 bytes.
        with tempfile.TemporaryDirectory(prefix="fl-bench-") as scratch:
            for name in chosen:
                results.append(run_topic(name, options, Path(scratch)))
                report.show(console, results[-1])
    except KeyboardInterrupt:
        interrupted = True
        console.print("interrupted" + ("; the topics that are over are written" if results else ""))
    if results:
        document = write(options.results, results, environment, stated)
        console.print(f"\n{document} and .json", highlight=False)
    wrong = report.missed(results)
    for line in wrong:
        console.print(f"not as it should be: {line}", style="red", highlight=False, markup=False)
    if interrupted:
        return INTERRUPTED
    return 1 if any(result.failed for result in results) else 0


if __name__ == "__main__":
    sys.exit(main())
