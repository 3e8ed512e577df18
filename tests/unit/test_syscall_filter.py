"""The filter of system calls, run instruction by instruction as the kernel would; tests/integration/test_walls.py has the
kernel itself run it.
"""

from __future__ import annotations

import platform
import random
import struct
from typing import Final

import pytest

from fastlam.worker import syscall_filter

ALLOW: Final = 0x7FFF0000
EPERM: Final = 0x00050001
ENOSYS: Final = 0x00050026
KILL: Final = 0x80000000
MACHINES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
FORK: Final = 17  # the flags of a plain fork: SIGCHLD
THREAD: Final = 0x3D0F00  # those of pthread_create


def run(program: bytes, arch: int, number: int, arguments: tuple[int, ...] = ()) -> int:
    """What the filter answers for one call: classic BPF over struct seccomp_data."""
    data = struct.pack("=IIQ6Q", number, arch, 0, *arguments, *(0,) * (6 - len(arguments)))
    instructions = list(struct.iter_unpack("=HBBI", program))
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, value = instructions[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, value)
        elif code == 0x54:
            accumulator &= value
        elif code == 0x06:
            return int(value)
        else:
            holds = {0x15: accumulator == value, 0x35: accumulator >= value, 0x45: bool(accumulator & value)}[code]
            at += if_true if holds else if_false


@pytest.fixture(params=list(MACHINES))
def machine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def answers(machine: str, number: int, *arguments: int) -> int:
    return run(syscall_filter.filter_program(machine), MACHINES[machine], number, arguments)


def test_each_denied_call_is_refused_and_no_other(machine: str) -> None:
    column = list(MACHINES).index(machine)
    denied = {numbers[column] for numbers in syscall_filter._DENIED.values()} - {-1}
    special = {435: ENOSYS}
    for number in range(600):
        expected = special.get(number, EPERM if number in denied else ALLOW)
        assert answers(machine, number) == expected, number


def test_processes_and_threads_but_no_namespaces(machine: str) -> None:
    clone = {"x86_64": 56, "aarch64": 220}[machine]
    assert answers(machine, clone, FORK) == ALLOW
    assert answers(machine, clone, THREAD) == ALLOW
    for flag in (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000):
        assert answers(machine, clone, flag | FORK) == EPERM


def test_sockets_by_their_family(machine: str) -> None:
    socket = {"x86_64": 41, "aarch64": 198}[machine]
    allowed = {1, 2, 10, 16}  # unix, inet, inet6, netlink, which name resolution uses
    refused = {17, 38, 40, 44}
    assert all(answers(machine, socket, family) == ALLOW for family in allowed)
    assert all(answers(machine, socket, family) == EPERM for family in refused)


def answers_tcp_only(machine: str, number: int, *arguments: int) -> int:
    return run(syscall_filter.filter_program(machine, tcp_only=True), MACHINES[machine], number, arguments)


def test_only_tcp(machine: str) -> None:
    socket = {"x86_64": 41, "aarch64": 198}[machine]
    stream, datagram, raw, flags = 1, 2, 3, 0o2004000
    for family in range(50):
        for kind in (stream, datagram, raw, 4, 5, 6):
            for protocol in (0, 6, 17, 33, 132, 136, 262):
                tcp = family in (2, 10) and kind == stream and protocol in (0, 6)
                expected = ALLOW if tcp or family in (1, 16) else EPERM
                assert answers_tcp_only(machine, socket, family, kind | flags, protocol) == expected


def test_no_data_before_a_connection(machine: str) -> None:
    sendto, sendmsg, sendmmsg = {"x86_64": (44, 46, 307), "aarch64": (206, 211, 269)}[machine]
    other_flags, fast_open = 0x4040, 0x20000000
    for number, place in ((sendto, 3), (sendmsg, 2), (sendmmsg, 3)):
        for flags in (0, other_flags):
            assert answers_tcp_only(machine, number, *(fast_open,) * place, flags) == ALLOW
            assert answers_tcp_only(machine, number, *(0,) * place, flags | fast_open) == EPERM
            assert answers(machine, number, *(0,) * place, flags | fast_open) == ALLOW


def test_the_rest_is_the_same_with_only_tcp(machine: str) -> None:
    apart = {{"x86_64": 41, "aarch64": 198}[machine]}
    for number in {*range(600)} - apart:
        assert answers_tcp_only(machine, number) == answers(machine, number)
    clone = {"x86_64": 56, "aarch64": 220}[machine]
    assert answers_tcp_only(machine, clone, 0x20000) == EPERM
    assert answers_tcp_only(machine, clone, FORK) == ALLOW


def test_typing_into_a_terminal(machine: str) -> None:
    ioctl = {"x86_64": 16, "aarch64": 29}[machine]
    assert answers(machine, ioctl, 0, 0x5412) == EPERM
    assert answers(machine, ioctl, 0, 0x5401) == ALLOW
    assert answers(machine, ioctl, 0x5412, 0x5401) == ALLOW


def test_other_tables_of_calls_kill(machine: str, rng: random.Random) -> None:
    program = syscall_filter.filter_program(machine)
    own = MACHINES[machine]
    for arch in {0x40000003, 0xC000003E, 0xC00000B7, rng.getrandbits(32)} - {own}:
        assert run(program, arch, rng.randrange(600)) == KILL
    if machine == "x86_64":
        assert run(program, own, 0x40000000 | rng.randrange(600)) == KILL, "the x32 table"


def test_another_machine_is_said(machine: str) -> None:
    with pytest.raises(OSError, match="of m68k are not known"):
        syscall_filter.filter_program("m68k")


def test_numbers_are_those_of_this_machine() -> None:
    """The column of this machine against its own C library's header."""
    import subprocess

    if platform.machine() not in MACHINES:
        pytest.skip(f"the filter has no numbers for {platform.machine()}, and is not installed there")
    column = list(MACHINES).index(platform.machine())
    sends = {name: getattr(syscall_filter, f"_{name.upper()}") for name in ("sendto", "sendmsg", "sendmmsg", "socket")}
    numbers = syscall_filter._DENIED | sends
    source = "#include <sys/syscall.h>\n" + "".join(
        f"#ifdef SYS_{name}\nfastlam_{name} SYS_{name}\n#endif\n" for name in numbers
    )
    out = subprocess.run(["cc", "-E", "-P", "-"], input=source, capture_output=True, text=True, check=True).stdout
    known = dict(line.split() for line in out.splitlines() if line.startswith("fastlam_"))
    assert len(known) > 40
    for name, number in known.items():
        assert numbers[name.removeprefix("fastlam_")][column] == int(number), name
