"""What the compiled front process exports: the public names of front_process.pyx."""

from fastlam.http.front import Front
from fastlam.http.responses import Heads

class Remote(Front): ...

class Outpost:
    @property
    def control_fd(self) -> int: ...
    @property
    def handler(self) -> None: ...
    @property
    def heads(self) -> Heads: ...
    @property
    def header_bytes_max(self) -> int: ...
    @property
    def body_bytes_max(self) -> int: ...
    def __init__(
        self,
        *,
        control: int,
        memory: int,
        bell: int,
        dispatcher_bell: int,
        tally: int,
        row: int,
        row_count: int,
        listeners: list[int],
        connections_max: int,
        header_bytes_max: int,
        body_bytes_max: int,
        tick_seconds: float,
        idle_seconds: float,
    ) -> None: ...
    def run(self) -> None: ...
    def accepts(self, fd: int) -> bool: ...
    def accept_failed(self, listener: int, error: int) -> None: ...
    def take_over(
        self,
        fd: int,
        requests: list[object],
        unread: bytes,
        unsent: bytes,
        ended: bool,
        requests_total: int,
        bytes_received: int,
        bytes_sent: int,
        quiet_ticks: int,
    ) -> Moving: ...

class Moving:
    def __init__(
        self,
        outpost: Outpost,
        fd: int,
        requests: list[object],
        unread: bytes,
        unsent: bytes,
        counts: tuple[bool, int, int, int, int],
    ) -> None: ...
    def send(self, data: bytes) -> None: ...
    def go_on(self) -> None: ...

def main(words: list[str]) -> None: ...
