"""Makes a worker's `__main__` and import path what they are in the calling program, as multiprocessing's spawn does."""

from __future__ import annotations

import multiprocessing.process
import multiprocessing.spawn
import pickle


def prepare(preparation: bytes) -> None:
    """`preparation` is the pickle of what `multiprocessing.spawn.get_preparation_data` gave in the caller.

    While the caller's main module is imported, the process counts as inheriting: an executor that is created there, for
    want of the usual `if __name__ == "__main__"` guard, refuses with an explanation instead of forking without end.
    """
    process = multiprocessing.process.current_process()
    process._inheriting = True  # type: ignore[attr-defined]
    try:
        multiprocessing.spawn.prepare(pickle.loads(preparation))
    finally:
        del process._inheriting  # type: ignore[attr-defined]
