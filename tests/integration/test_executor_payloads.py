"""What travels between the caller and the workers of an Executor: functions, arguments, results, exceptions, of any size."""

from __future__ import annotations

import functools
import operator
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import executor_tasks as tasks
from fastlam import Executor
from fastlam.wire import tasks as wire
from needs import missing

pytestmark = pytest.mark.lanes

MEGABYTES_50 = 50 * 1024 * 1024


@pytest.fixture(scope="module")
def pool(lane_in_use: str) -> Iterator[Executor]:
    with Executor(1) as executor:
        yield executor


# --- functions ----------------------------------------------------------------------------------------


def test_lambdas_closures_partials_methods_and_classes(pool: Executor) -> None:
    factor = 3

    def times(number: int) -> int:
        return number * factor

    assert pool.submit(lambda: 42).result() == 42
    assert pool.submit(times, 5).result() == 15
    assert list(pool.map(times, range(4))) == [0, 3, 6, 9]
    assert list(pool.map(lambda number: number + factor, range(4), chunksize=3)) == [3, 4, 5, 6]
    assert pool.submit(functools.partial(tasks.add, 1), right=2).result() == 3
    assert pool.submit("a-b".split, "-").result() == ["a", "b"]
    assert pool.submit(operator.itemgetter(1), "xyz").result() == "y"
    assert pool.submit(complex, 1, 2).result() == 1 + 2j
    assert type(pool.submit(tasks.Counter).result()) is tasks.Counter
    assert pool.submit(tasks.Counter.increment, tasks.Counter()).result() == 1


def test_every_task_gets_its_function_as_it_was_sent(pool: Executor) -> None:
    """A worker may remember a function; it must not remember what an earlier task has done to it."""
    counter = tasks.Counter()
    assert [pool.submit(counter.increment).result() for _ in range(5)] == [1] * 5
    assert list(pool.map(counter.increment.__func__, [counter] * 3)) == [1] * 3
    memory: list[int] = []

    def remember(number: int) -> list[int]:
        memory.append(number)
        return memory

    assert [pool.submit(remember, number).result() for number in range(3)] == [[0], [1], [2]]
    assert [pool.submit(functools.partial(tasks.stand_or_note, ("note", number))).result() for number in (1, 2)] == [
        1,
        2,
    ]
    counter.count = 10
    assert pool.submit(counter.increment).result() == 11, "the next call sends it as it is then"


def test_a_function_that_was_replaced_is_sent_anew(pool: Executor, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that no longer is what its module says goes by value."""
    original = tasks.square
    monkeypatch.setattr(tasks, "square", lambda number: -number)
    assert pool.submit(original, 3).result() == 9


# --- what cannot be sent ------------------------------------------------------------------------------


def test_what_cannot_be_pickled_is_the_exception_of_its_future(pool: Executor) -> None:
    lock = pytest.importorskip("threading").Lock()
    cases: list[tuple[Callable[..., Any], tuple[Any, ...], type[Exception], str]] = [
        (tasks.square, (tasks.Unpicklable(),), TypeError, "stays at home"),
        (tasks.Unpicklable().__repr__, (), TypeError, "stays at home"),
        (lambda: lock, (), TypeError, "lock"),
        (tasks.return_unpicklable, (), TypeError, "stays at home"),
    ]
    for function, arguments, kind, words in cases:
        with pytest.raises(kind, match=words):
            pool.submit(function, *arguments).result(timeout=60)
    nested: list[Any] = []
    for _ in range(100_000):
        nested = [nested]
    with pytest.raises((pickle.PicklingError, RecursionError), match="nested|recursion"):
        pool.submit(len, nested).result(timeout=60)
    assert pool.submit(tasks.square, 2).result() == 4


def test_what_explodes_when_unpickled_fails_its_own_task(pool: Executor) -> None:
    with pytest.raises(ArithmeticError, match="unpickled"):
        pool.submit(len, tasks.Bomb()).result(timeout=60)
    with pytest.raises(ArithmeticError, match="unpickled"):
        pool.submit(tasks.return_bomb).result(timeout=60)
    assert list(pool.map(tasks.square, range(5))) == [0, 1, 4, 9, 16]


def test_exceptions_that_cannot_travel_are_described(pool: Executor) -> None:
    error = pool.submit(tasks.raise_unpicklable).exception(timeout=60)
    assert isinstance(error, RuntimeError)
    assert "executor_tasks.UnpicklableError" in str(error)
    assert "secret" in str(error)
    assert "in raise_unpicklable" in str(error.__cause__)
    error = pool.submit(tasks.raise_awkward).exception(timeout=60)
    assert isinstance(error, RuntimeError)
    assert "AwkwardError" in str(error)
    assert "7: odd" in str(error)
    error = pool.submit(tasks.raise_speechless).exception(timeout=60)
    assert isinstance(error, RuntimeError)
    assert "SpeechlessError" in str(error)


def test_groups_notes_and_attributes_of_exceptions_travel(pool: Executor) -> None:
    group = pool.submit(tasks.raise_group).exception()
    assert isinstance(group, ExceptionGroup)
    assert [type(error) for error in group.exceptions] == [ValueError, KeyError]
    noted = LookupError("here", 7)
    noted.add_note("mind the step")
    error = pool.submit(tasks.fail, noted).exception()
    assert error is not None
    assert error.args == ("here", 7)
    assert error.__notes__ == ["mind the step"]


# --- size ---------------------------------------------------------------------------------------------


def test_fifty_megabytes_each_way(pool: Executor) -> None:
    data = bytearray(MEGABYTES_50)
    data[:5], data[-5:] = b"begin", b"final"
    for value in (data, bytes(data)):
        kind, length, back = pool.submit(tasks.out_of_band, value).result()
        assert (kind, length) == (type(value).__name__, MEGABYTES_50)
        assert back == value
    (back,) = pool.submit(tasks.upset, [tasks.Block(data)]).result()
    assert back.data[:5] == b"cegin"
    assert back.data[5:] == data[5:]


def test_arrays_travel_out_of_band(pool: Executor) -> None:
    try:
        import numpy
    except ImportError:
        missing("numpy is not installed: make test installs it")
    array = numpy.arange(MEGABYTES_50 // 8).reshape(-1, 64)
    back = pool.submit(tasks.reverse, array).result()
    assert numpy.array_equal(back, array[::-1])
    several = pool.submit(tasks.stand_or_note, ("note", [array[:2], array[5:1:-2], {"x": array[0]}])).result()
    assert numpy.array_equal(several[1], array[5:1:-2])
    assert numpy.array_equal(several[2]["x"], array[0])


@pytest.mark.parametrize("count", [0, 1, 2, 16, 17, 40])
def test_any_number_of_buffers(pool: Executor, count: int) -> None:
    value = [tasks.Block(bytearray([number]) * number) for number in range(count)]
    packed = wire.pack(value)
    assert isinstance(packed, list) == (count > 0), "buffers are not copied into the pickle"
    back = pool.submit(tasks.upset, value).result()
    wanted = [bytearray([number]) * number for number in range(count)]
    for number in range(1, count):
        wanted[number][0] += 1
    assert [bytes(block.data) for block in back] == wanted
    assert all(block.data == bytearray([number]) * number for number, block in enumerate(value)), "sent as a copy"
    if count > 1:
        back[1].data[0] = 9  # writable here as well


def test_what_is_read_only_stays_so(pool: Executor) -> None:
    assert pool.submit(tasks.read_only, tasks.Block(b"x")).result()
    assert not pool.submit(tasks.read_only, tasks.Block(bytearray(b"x"))).result()


def test_a_second_way_of_pickling_sends_no_buffer_twice(pool: Executor) -> None:
    """Plain pickle gives up at the lambda when it has already put the buffer aside."""
    block = tasks.Block(bytearray(b"once" * 100_000))
    sent = []
    function = pool._pickle(len)
    for value in (block, (block, lambda: 5)):
        packed = wire.pack(((value,), {}), function, pool._pickle.dumps)
        sent.append(sum(map(len, packed)))
    assert sent[1] < sent[0] + 100_000
    back, function = pool.submit(lambda *values: values, block, lambda: 5).result()
    assert back.data == block.data
    assert function() == 5


@pytest.mark.parametrize("size", [0, 1, 900, 1000, 1024, 1025, 65_535, 65_536, 1_000_000])
def test_results_of_every_size(pool: Executor, size: int) -> None:
    """Small ones are mirrored in the slot table, large ones are not."""
    futures = [pool.submit(tasks.reverse, bytes([number]) * size) for number in range(5)]
    assert [future.result() for future in futures] == [bytes([number]) * size for number in range(5)]


def test_large_and_small_results_in_turn(pool: Executor) -> None:
    sizes = [0, 200_000, 3, 100_000, 1, 2, 300_000] * 20
    assert list(map(len, pool.map(bytes, sizes))) == sizes


def test_a_damaged_payload_is_refused() -> None:
    whole = wire.pack(pickle.PickleBuffer(b"12345"))
    assert isinstance(whole, list)
    payload = b"".join(whole)
    assert bytes(wire.unpack(payload)) == b"12345"
    with pytest.raises(ValueError, match="lengths"):
        wire.unpack_parts(payload[:16] + payload[-2:])


def test_the_path_and_modules_of_the_caller_are_there(pool: Executor, tmp_path: Path) -> None:
    assert pool.submit(lambda: __import__("sys").path).result()[: len(sys.path)] is not None
    (tmp_path / "beside.py").write_text("def here():\n    return __file__\n")
    sys.path.insert(0, str(tmp_path))
    try:
        beside = __import__("beside")
        with Executor(1) as executor:
            assert executor.submit(beside.here).result() == str(tmp_path / "beside.py")
    finally:
        sys.path.remove(str(tmp_path))
        del sys.modules["beside"]
