"""Where the libzmq inside pyzmq is found, or None with another build of pyzmq (its own sockets then serve)."""

from __future__ import annotations


def zmq_module_path() -> str | None:
    """Path of pyzmq's compiled module."""
    try:
        import zmq.backend.cython._zmq as native
    except ImportError:
        return None
    path = getattr(native, "__file__", None)
    return path if isinstance(path, str) else None
