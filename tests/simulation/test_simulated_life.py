"""Environments of a simulation: kept alive, evicted, timed out; thousands of them; and the same again from the same seed."""

from __future__ import annotations

import random
from array import array

import pytest

from batch_means import System
from fastlam.core.dispatcher import (
    OUTCOME_FUNCTION_ERROR,
    OUTCOME_OK,
    DispatcherClosed,
    Sampler,
    Source,
)
from fastlam.harness.simulation import formulas, plain
from fastlam.harness.simulation.run import Simulation
from fastlam.harness.simulation.workload import Limits


@pytest.mark.parametrize("service", ["exponential", "constant"])
def test_cold_starts_of_one_environment(service: str, rng: random.Random) -> None:
    """Poisson arrivals and one call at a time: a call is cold when nothing came for the time of the keep-alive."""
    rate, keep_alive, period = 0.4, 3.0, 1.0
    with System(rng.getrandbits(32)) as system:
        system.poisson(system.function(reserved=1), rate, Sampler(service, 0.7))
        system.dispatcher.keep_alive(keep_alive, period)
        found = system.batches(20_000, {"cold": lambda figures: figures["cold_starts"] / figures["ok"]})["cold"]
    assert formulas.cold_share(rate, keep_alive, period) in found
    assert formulas.cold_share(rate, keep_alive) not in found
    assert formulas.cold_share(rate, keep_alive + period, period) not in found


def test_the_environment_that_was_used_last_is_used_first() -> None:
    with System(1) as system:
        target = system.function()
        calls = [system.dispatcher.call(target, 1.0 + number / 10) for number in range(3)]
        system.dispatcher.run(5.0)
        last = system.dispatcher.call(target, 1.0)
        system.dispatcher.run(10.0)
        assert last.environment_id == calls[2].environment_id
        assert len({call.environment_id for call in calls}) == 3


def test_the_environment_that_was_idle_longest_makes_room() -> None:
    with System(1, environments_max=3) as system:
        functions = [system.function() for _ in range(4)]
        for number, target in enumerate(functions[:3]):
            system.dispatcher.call(target, 1.0 + number)
        system.dispatcher.run(2.5)  # the third still runs
        assert system.dispatcher.call(functions[3], 1.0).outcome != OUTCOME_OK
        system.dispatcher.run(2.6)
        kept = [environment.target for environment in system.dispatcher.environments_all()]
        assert sorted(target.name for target in kept) == ["f1", "f2", "f3"]


def test_what_has_been_idle_for_longer_is_stopped_and_nothing_else(rng: random.Random) -> None:
    """Against the plain way of finding them: a look at all environments."""
    with System(rng.getrandbits(32)) as system:
        for _ in range(20):
            system.poisson(system.function(), 2.0, Sampler("lognormal", -1.0, 1.0))
        stopped = 0
        for step in range(1, 200):
            system.dispatcher.run(step * 0.5)
            now_ns = round(system.dispatcher.now_seconds * 1e9) + 10**15
            seconds = rng.uniform(0.1, 3.0)
            idle = [one for one in system.dispatcher.environments_all() if one.snapshot()["state"] == "idle"]
            late = {one.id for one in idle if one.idle_since_ns < now_ns - int(seconds * 1e9)}
            assert system.dispatcher.stop_idle(seconds) == len(late)
            system.dispatcher.run(step * 0.5 + 1e-6)
            stopped += len(late)
            left = {one.id for one in system.dispatcher.environments_all()}
            assert not left & late
            assert {one.id for one in idle} - late <= left
        assert stopped > 100


def test_a_call_over_its_timeout_ends_then_and_takes_its_environment_along() -> None:
    with System(1) as system:
        target = system.function(timeout_seconds=2.0)
        system.dispatcher.exits_take(0.5)
        late = system.dispatcher.call(target, 5.0)
        system.dispatcher.run(1.999)
        assert late.running
        system.dispatcher.run(2.001)
        assert (late.outcome, late.error_type) == (OUTCOME_FUNCTION_ERROR, "Sandbox.Timedout")
        assert late.done_ns - late.submitted_ns == 2_000_000_000
        assert len(system.dispatcher.environments_all()) == 1  # its process is still on its way out
        system.dispatcher.run(2.6)
        assert system.dispatcher.environments_all() == []
        exact = system.dispatcher.call(target, 2.0)
        system.dispatcher.run(10.0)
        assert exact.outcome == OUTCOME_OK  # an answer in the same instant is in time


def test_a_start_over_its_time_is_repeated_within_the_call() -> None:
    """INIT has ten seconds, then it is tried once more within the function's timeout."""
    with System(1) as system:
        call = system.dispatcher.call(system.function(timeout_seconds=4.0, start=Sampler("constant", 60.0)), 1.0)
        system.dispatcher.run(13.9)
        assert not call.done
        system.dispatcher.run(14.1)
        assert (call.outcome, call.error_type) == (OUTCOME_FUNCTION_ERROR, "Sandbox.Timedout")
        assert call.done_ns - call.submitted_ns == 14_000_000_000


@pytest.mark.parametrize(("service", "over_after"), [(3.0, None), (5.0, 5.0), (5.5, 5.0)])
def test_a_repeated_start_leaves_the_call_the_rest_of_its_time(service: float, over_after: float | None) -> None:
    """The first attempt is cut after ten seconds; of the sixteen that the second has, eleven are used up."""
    with System(1) as system:
        call = system.dispatcher.call(system.function(timeout_seconds=16.0, start=Sampler("constant", 11.0)), service)
        system.dispatcher.run(20.9)
        assert not call.running
        system.dispatcher.run(21.1)
        assert call.running
        system.dispatcher.run(60.0)
        ran = service if over_after is None else min(service, over_after)
        assert call.duration_ns == round((11.0 + ran) * 1e9), "the repeated INIT is a part of it"
        assert call.done_ns - call.submitted_ns == round((21.0 + ran) * 1e9)
        assert call.error_type == ("" if service <= 5.0 else "Sandbox.Timedout")
        assert call.init_ns == -1
        assert system.dispatcher.statistics()["cold_starts"] == 1


def test_the_time_of_init_begins_when_the_process_is_there() -> None:
    """Of hundreds that are ordered at once, the last ones' processes are made much later."""
    with System(1) as system:
        call = system.dispatcher.call(system.function(timeout_seconds=4.0, start=Sampler("constant", 14.0)), 1.0)
        (environment,) = system.dispatcher.environments_all()
        system.dispatcher.run(6.0)
        environment.attach_process(2**22, -1)  # the simulation has had it there at once
        system.dispatcher.run(13.9)
        assert not call.running
        system.dispatcher.run(14.1)
        assert call.running, "its INIT has taken eight seconds"
        system.dispatcher.run(20.0)
        assert (call.outcome, call.init_ns) == (OUTCOME_OK, 14_000_000_000)


def test_without_keep_alive_every_call_is_cold() -> None:
    functions = plain.plain(1, 10.0, "exponential", 0.1, start=Sampler("constant", 0.2))
    with Simulation(functions, Limits(keep_alive_seconds=0.0), 1) as simulation:
        simulation.run(1000.0)
        figures = simulation.figures()
    assert figures["cold_starts"] == figures["ok"] > 9000


def test_waiting_for_a_call_moves_the_clock() -> None:
    with System(1) as system:
        call = system.dispatcher.call(system.function(), 3600.0 / 4)
        assert not system.dispatcher.wait(call, 60.0)
        assert system.dispatcher.now_seconds == pytest.approx(60.0)
        assert system.dispatcher.wait(call)
        assert system.dispatcher.now_seconds == pytest.approx(900.0)


def test_a_wait_that_nothing_can_end_says_so() -> None:
    with System(1, environments_max=0) as system:
        call = system.dispatcher.call(system.function(), 1.0)
        with pytest.raises(RuntimeError, match="nothing is ahead"):
            system.dispatcher.wait(call)


def test_closing_ends_what_runs() -> None:
    system = System(1)
    target = system.function()
    calls = [system.dispatcher.call(target, 100.0) for _ in range(50)]
    system.dispatcher.run(1.0)
    system.dispatcher.close()
    assert all(call.done for call in calls)
    assert system.dispatcher.environments_all() == []
    with pytest.raises(DispatcherClosed):
        system.dispatcher.run(2.0)


def mixed(seed: int) -> dict[str, object]:
    """A run that has some of everything, down to its last counter."""
    with System(seed, 400, environments_max=300, pending_max=50) as system:
        rng = random.Random(5)
        for number in range(60):
            target = system.function(
                reserved=3 if number % 10 == 0 else None, timeout_seconds=2.0, start=Sampler("exponential", 0.2)
            )
            source = Source(target, Sampler("lognormal", -1.0, 1.5))
            if number % 3 == 0:
                system.dispatcher.add(source.at_period(1.0 + number))
            else:
                system.dispatcher.add(source.at_rate(rng.uniform(1, 20), [0.5, 1.5], 10.0, 5.0, 20.0))
        system.dispatcher.keep_alive(3.0, 0.25)
        system.dispatcher.sample_every(5.0)
        system.dispatcher.run(120.0)
        figures: dict[str, object] = system.dispatcher.figures()
        waits, responses = system.dispatcher.waits, system.dispatcher.responses
        return {
            **figures,
            "samples": list(system.dispatcher.samples),
            "waits": waits.filled(),
            "responses": responses.filled(),
            "mean": responses.mean_seconds,
            "targets": [(one.invocations, one.throttles, one.cold_starts, one.timeouts) for one in system.targets],
            "states": system.dispatcher.state_shares(),
        }


def test_the_same_seed_gives_the_same_run(rng: random.Random) -> None:
    seed = rng.getrandbits(32)
    first = mixed(seed)
    keep = [object() for _ in range(1000)]  # other addresses the second time
    assert mixed(seed) == first
    assert mixed(seed + 1) != first
    assert len(keep) == 1000
    assert int(str(first["function_errors"])) > 0
    assert int(str(first["throttled"])) > 0


def test_limits_do_not_change_what_arrives(rng: random.Random) -> None:
    """Arrivals and services have generators of their own: two runs under other limits meet the same calls."""
    seed = rng.getrandbits(32)
    asked = []
    for reserved in (2, 2000):
        with System(seed, environments_max=5000) as system:
            times: list[tuple[int, float]] = []
            target = system.function(reserved=reserved)
            system.poisson(target, 20.0, Sampler("exponential", 1.0))
            system.dispatcher.run(100.0)
            times.append((system.dispatcher.arrivals, target.invocations + target.throttles))
            asked.append(times)
    assert asked[0] == asked[1]


def test_thousands_of_environments_and_a_million_arrivals(rng: random.Random) -> None:
    """Every call is accounted for, and nothing is left behind."""
    functions = 2000
    with System(rng.getrandbits(32), environments_max=100_000) as system:
        for _ in range(functions):
            system.poisson(system.function(start=Sampler("constant", 0.3)), 1.0, Sampler("exponential", 3.0))
        system.dispatcher.keep_alive(600.0, 0.25)
        system.dispatcher.run_arrivals(1_000_000)
        figures = system.dispatcher.figures()
        live = len(system.dispatcher.environments_all())
        assert figures["arrivals"] == 1_000_000
        assert figures["ok"] + system.dispatcher.outstanding == 1_000_000
        assert live == figures["environments_most"] > 5000
        assert figures["cold_starts"] <= live
        assert sum(target.invocations for target in system.targets) >= figures["ok"]
        system.dispatcher.run_out()
        assert system.dispatcher.figures()["ok"] == 1_000_000
        system.dispatcher.run(system.dispatcher.now_seconds + 700)
        assert system.dispatcher.environments_all() == []
        assert system.account.running == system.account.unreserved_running == 0


# -- sources -----------------------------------------------------------------------------------------


def arrivals(source: Source, system: System, seconds: float, step: float) -> list[int]:
    """How many calls came in each step."""
    system.dispatcher.add(source)
    counts, before = [], 0
    for index in range(1, round(seconds / step) + 1):
        system.dispatcher.run(index * step)
        counts.append(source.arrived - before)
        before = source.arrived
    return counts


def test_counts_are_kept_to_the_minute(rng: random.Random) -> None:
    counts = array("I", (rng.choice((0, 0, 1, 7, 300)) for _ in range(120)))
    with System(rng.getrandbits(32), environments_max=10**6) as system:
        source = Source(system.function(), Sampler("constant", 0.01)).at_counts(counts)
        assert arrivals(source, system, 7200 + 60, 60.0) == [*counts, 0]


def test_arrivals_within_a_minute_are_even_and_independent(rng: random.Random) -> None:
    """A chi-squared of 60 seconds: 59 degrees of freedom, and six standard deviations."""
    with System(rng.getrandbits(32), environments_max=10**6) as system:
        source = Source(system.function(), Sampler("constant", 0.001)).at_counts(array("I", [60_000]))
        seconds = arrivals(source, system, 60, 1.0)
    squared = sum((count - 1000) ** 2 / 1000 for count in seconds)
    assert 59 - 6 * (2 * 59) ** 0.5 < squared < 59 + 8 * (2 * 59) ** 0.5


def test_a_period_a_list_and_an_end(rng: random.Random) -> None:
    times = array("Q", sorted(rng.randrange(60 * 10**9) for _ in range(50)))
    with System(1) as system:
        function = system.function()
        assert arrivals(Source(function, Sampler("constant", 0.0)).at_period(2.5, 1.0), system, 10, 1.0) == (
            [1, 0, 0, 1, 0, 1, 0, 0, 1, 0]
        )
    with System(1) as system:
        source = Source(system.function(), Sampler("constant", 0.0)).at_times(times)
        found = arrivals(source, system, 60, 1.0)
        assert found == [sum(second * 10**9 <= one <= (second + 1) * 10**9 for one in times) for second in range(60)]
    with System(1) as system:
        source = Source(system.function(), Sampler("constant", 0.0)).at_period(1.0, 1.0).until(5.0)
        assert sum(arrivals(source, system, 20, 1.0)) == 4


def test_a_profile_and_bursts_keep_the_mean_rate(rng: random.Random) -> None:
    with System(rng.getrandbits(32), environments_max=10**6) as system:
        smooth = Source(system.function(), Sampler("constant", 0.001)).at_rate(50.0, [0.5, 1.5], 10.0)
        counts = arrivals(smooth, system, 4000, 10.0)
        assert sum(counts[0::2]) == pytest.approx(50_000, abs=6 * 50_000**0.5)
        assert sum(counts[1::2]) == pytest.approx(150_000, abs=6 * 150_000**0.5)
    with System(rng.getrandbits(32), environments_max=10**6) as system:
        bursts = Source(system.function(), Sampler("constant", 0.001)).at_rate(20.0, on_seconds=5.0, off_seconds=15.0)
        counts = arrivals(bursts, system, 20_000, 1.0)
        # 1000 cycles: their lengths make the mean uncertain, by 6 % at six standard deviations and a bit.
        assert sum(counts) == pytest.approx(400_000, rel=0.2)
        assert sum(count == 0 for count in counts) > 0.6 * len(counts)
        assert max(counts) > 60


@pytest.mark.parametrize(
    ("sampler", "mean", "deviation"),
    [
        (Sampler("constant", 0.25), 0.25, 0.0),
        (Sampler("exponential", 2.0), 2.0, 2.0),
        (Sampler("lognormal", -0.5, 1.0), 1.0, 1.31083),
        (Sampler("quantiles", quantiles=[(0, 0), (0.5, 1), (1, 3)]), 1.25, 0.8539),
    ],
    ids=lambda value: value.kind if isinstance(value, Sampler) else "",
)
def test_samplers_have_their_moments(sampler: Sampler, mean: float, deviation: float, rng: random.Random) -> None:
    count = 200_000
    found = sampler.sample(count, rng.getrandbits(32))
    assert sum(found) / count == pytest.approx(mean, abs=6 * deviation / count**0.5 + 1e-9)
    spread = (sum((value - mean) ** 2 for value in found) / count) ** 0.5
    assert spread == pytest.approx(deviation, rel=0.1, abs=1e-9)


@pytest.mark.parametrize(
    "arguments",
    [("gauss",), ("exponential", -1.0), ("lognormal", 0.0, -1.0), ("quantiles", 0.0, 0.0, [(0, 1)]),
     ("quantiles", 0.0, 0.0, [(0, 2), (1, 1)]), ("quantiles", 0.0, 0.0, [(0.1, 1), (1, 2)])],
)  # fmt: skip
def test_a_sampler_refuses_nonsense(arguments: tuple[object, ...]) -> None:
    with pytest.raises(ValueError):
        Sampler(*arguments)  # type: ignore[arg-type]


def test_a_histogram_knows_its_values_to_two_per_cent(rng: random.Random) -> None:
    values = sorted(rng.lognormvariate(0, 3) for _ in range(5000))
    with System(rng.getrandbits(32), environments_max=10**6) as system:
        target = system.function(timeout_seconds=10**8)
        for value in values:
            system.dispatcher.call(target, value)
        system.dispatcher.run_out()
        found = system.dispatcher.responses
        assert found.count == 5000
        assert found.mean_seconds == pytest.approx(sum(values) / 5000)
        for level in (0.01, 0.5, 0.9, 0.999):
            assert found.quantile(level) == pytest.approx(values[int(level * 5000)], rel=0.017)
        assert found.quantile(1.0) == pytest.approx(values[-1])
        assert found.above(1e9) == 0
        assert found.above(0.0) == 5000
