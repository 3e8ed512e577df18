"""A launcher that starts nothing, for tests of calls that never get as far as an environment."""

from __future__ import annotations

from typing import Any


class NoLauncher:
    """Environments that never come up; `launched` are those that were asked for."""

    def __init__(self) -> None:
        self.launched: list[Any] = []

    def launch(self, environment: Any) -> None:
        self.launched.append(environment)

    def kill(self, environment: Any) -> bool:
        environment.process_exited(9, 0)
        return True

    def closed(self, environment: Any, lane: Any) -> None: ...
