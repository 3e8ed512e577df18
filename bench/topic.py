"""Runs one topic in a process of its own: `python -m bench.topic NAME RESULT_FILE ROUNDS QUICK COUNT`.

Workers of process pools import this module again as their main one: it imports little, and nothing of a topic.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path


def main(name: str, result_file: str, rounds: str, quick: str, count: str) -> None:
    import msgspec
    from bench.catalogue import TOPICS
    from bench.measure import Topic

    entry = TOPICS[name]
    topic = Topic(name, entry.title, int(rounds), quick == "1", int(count))
    begun = time.monotonic()
    try:
        entry.load()(topic)
    except KeyboardInterrupt:
        topic.result.failed = "interrupted"
        sys.exit(130)
    except BaseException as error:
        topic.result.failed = f"{type(error).__name__}: {error}"
        raise
    finally:
        topic.result.seconds = time.monotonic() - begun
        Path(result_file).write_bytes(msgspec.json.encode(topic.result))


if __name__ == "__main__":
    main(*sys.argv[1:])
