"""Builds every C test program in each of its ways and runs it: optimised, and under the sanitizers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from toolchain import CSRC, HERE, Source, compile_program, compiler, run_program

PROGRAMS = {
    "test_ring": ("fl_ring.c",),
    "test_tally": ("fl_tally.c",),
    "test_wake": ("fl_wake.c",),
    "test_timer": ("fl_timer.c",),
    "test_rng": ("fl_rng.c",),
    "test_slots": ("fl_slots.c",),
    "test_json": ("fl_json.c",),
    "test_http": ("fl_http.c",),
    "test_zmtp": ("fl_zmtp.c",),
    "test_spsc": ("fl_spsc.c",),
    "test_express": ("fl_express.c", "fl_spsc.c"),
    "stress_ring": ("fl_ring.c", "fl_wake.c"),
    "stress_slots": ("fl_slots.c",),
    "stress_spsc": ("fl_spsc.c", "fl_wake.c"),
}
WAYS = {
    "plain": ("-O2",),
    "memory": ("-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-DFL_SANITIZED"),
    "thread": ("-O1", "-fsanitize=thread", "-DFL_SANITIZED"),
}
THREADED = (
    "test_ring",
    "test_zmtp",
    "test_slots",
    "test_spsc",
    "test_express",
    "test_tally",
    "stress_ring",
    "stress_slots",
    "stress_spsc",
)
SLOWED = {"plain": "1", "memory": "4", "thread": "10"}
CASES = [(program, way) for program in PROGRAMS for way in WAYS if way != "thread" or program in THREADED]
FUZZ_RUNS = 200_000
FUZZ_BYTES_MAX = 4096


@pytest.fixture(scope="module")
def command() -> list[str]:
    return compiler()


def sources(*names: str) -> list[Source]:
    return [Source(CSRC / name) for name in names]


@pytest.mark.parametrize(("program", "way"), CASES, ids=["-".join(case) for case in CASES])
def test_program(program: str, way: str, command: list[str], tmp_path: Path) -> None:
    binary = tmp_path / program
    compile_program(command, [Source(HERE / f"{program}.c"), *sources(*PROGRAMS[program])], WAYS[way], binary)
    output = run_program([str(binary)], {"FL_TEST_ROUNDS_DIVISOR": SLOWED[way]})
    print(output)


@pytest.mark.parametrize("skipping", ["FL_JSON_PORTABLE", "FL_JSON_SCALAR"])
def test_json_without_sse2(skipping: str, command: list[str], tmp_path: Path) -> None:
    binary = tmp_path / "test_json"
    parts = [Source(HERE / "test_json.c"), Source(CSRC / "fl_json.c", (skipping,))]
    compile_program(command, parts, WAYS["memory"], binary)
    run_program([str(binary)])


@pytest.mark.parametrize("name", ["gcc", "clang"])
def test_no_warnings(name: str, command: list[str], tmp_path: Path) -> None:
    """The warnings of both compilers, of whichever is there; optimised, as several warnings need."""
    found = shutil.which(name)
    parts = sources(*sorted(path.name for path in CSRC.glob("*.c")))
    options = ("-O2", "-fPIC", "-fvisibility=hidden")
    compile_program([found] if found else command, parts, options, tmp_path / "all.so", link=["-shared"])


def fuzz_parts() -> list[Source]:
    """The target and fl_json three times, under a name for each way of skipping."""
    return [
        Source(HERE / "fuzz_json.c"),
        Source(CSRC / "fl_json.c"),
        Source(CSRC / "fl_json.c", ("fl_json_scan=fl_json_scan_portable", "FL_JSON_PORTABLE")),
        Source(CSRC / "fl_json.c", ("fl_json_scan=fl_json_scan_scalar", "FL_JSON_SCALAR")),
    ]


def has_fuzzer(clang: str, tmp_path: Path) -> bool:
    """Whether this clang has its fuzzer's library: a target that does nothing tells."""
    empty = tmp_path / "empty.c"
    empty.write_text(
        "#include <stddef.h>\nint LLVMFuzzerTestOneInput(const unsigned char *, size_t);\n"
        "int LLVMFuzzerTestOneInput(const unsigned char *data, size_t size) { (void)data; (void)size; return 0; }\n"
    )
    try:
        compile_program([clang], [Source(empty)], ("-fsanitize=fuzzer,address,undefined",), tmp_path / "empty")
    except AssertionError:
        return False
    return True


def test_fuzz_json(command: list[str], tmp_path: Path) -> None:
    """A bounded libFuzzer run where clang has it; elsewhere the seeds and all their beginnings are replayed."""
    corpus, binary = HERE / "corpus" / "json", tmp_path / "fuzz_json"
    clang = shutil.which("clang")
    if clang is not None and has_fuzzer(clang, tmp_path):
        options = ("-O1", "-fsanitize=fuzzer,address,undefined", "-fno-sanitize-recover=all")
        compile_program([clang], fuzz_parts(), options, binary)
        found = tmp_path / "found"
        found.mkdir()
        limits = [f"-runs={FUZZ_RUNS}", f"-max_len={FUZZ_BYTES_MAX}", f"-artifact_prefix={tmp_path}/"]
        output = run_program([str(binary), *limits, str(found), str(corpus)])
        assert f"Done {FUZZ_RUNS} runs" in output
    else:
        compile_program(command, fuzz_parts(), (*WAYS["memory"], "-DFL_REPLAY"), binary)
        files = sorted(map(str, corpus.iterdir()))
        assert f"{len(files)} inputs" in run_program([str(binary), *files])


def test_corpus_replays(command: list[str], tmp_path: Path) -> None:
    binary = tmp_path / "replay_json"
    compile_program(command, fuzz_parts(), (*WAYS["memory"], "-DFL_REPLAY"), binary)
    files = sorted(map(str, (HERE / "corpus" / "json").iterdir()))
    assert f"{len(files)} inputs" in run_program([str(binary), *files])
