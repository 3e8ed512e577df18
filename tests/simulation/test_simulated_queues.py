"""The dispatcher on a virtual clock against Erlang: what it throttles and how long it makes calls wait.

Each figure must lie in an interval by batch means, and the same formula for a system that is a little different must
not: an interval that contains everything shows nothing.
"""

from __future__ import annotations

import random
from itertools import pairwise

import pytest

from batch_means import BATCHES, System, interval, throttled
from fastlam.core.dispatcher import Sampler, Source
from fastlam.harness.simulation import formulas

# Services with a mean of one second, from none to much variation.
SERVICES = {
    "constant": Sampler("constant", 1.0),
    "exponential": Sampler("exponential", 1.0),
    "lognormal": Sampler("lognormal", -0.5, 1.0),
    "two-valued": Sampler("quantiles", quantiles=[(0.0, 0.2), (0.9, 0.2), (0.9000001, 8.2), (1.0, 8.2)]),
}


@pytest.mark.parametrize("service", SERVICES)
def test_reserved_concurrency_loses_as_erlang_says(service: str, rng: random.Random) -> None:
    """M/G/c/c: the share of throttles depends on the mean of the service time, and on nothing else of it."""
    servers, offered = 10, 8.0
    with System(rng.getrandbits(32)) as system:
        system.poisson(system.function(reserved=servers), offered, SERVICES[service])
        found = system.batches(1000, {"lost": throttled})["lost"]
    assert formulas.erlang_b(servers, offered) in found
    assert formulas.erlang_b(servers + 1, offered) not in found
    assert formulas.erlang_b(servers, offered * 1.1) not in found


def test_calls_wait_for_the_machine_as_erlang_says(rng: random.Random) -> None:
    """M/M/c: the account would let them run, but there is room for so many environments only."""
    servers, rate = 20, 17.0
    bound = 0.5
    with System(rng.getrandbits(32), environments_max=servers, pending_max=1_000_000) as system:
        system.poisson(system.function(), rate, Sampler("exponential", 1.0))
        waits = system.dispatcher.waits
        found = system.batches(
            2000,
            {
                "delayed": lambda figures: figures["delayed"] / figures["ok"],
                "mean": lambda _: waits.mean_seconds,
                "above": lambda _: waits.above(bound) / waits.count,
                "line": lambda figures: figures["waiting_mean"],
                "throttled": throttled,
            },
        )
    assert formulas.erlang_c(servers, rate) in found["delayed"]
    assert formulas.wait_mean(servers, rate, 1.0) in found["mean"]
    assert formulas.wait_above(servers, rate, 1.0, bound) in found["above"]
    assert rate * formulas.wait_mean(servers, rate, 1.0) in found["line"]
    assert found["throttled"] == (0.0, 0.0)
    assert formulas.erlang_c(servers + 1, rate) not in found["delayed"]
    assert formulas.wait_mean(servers + 1, rate, 1.0) not in found["mean"]
    assert formulas.wait_above(servers + 1, rate, 1.0, bound) not in found["above"]


def test_the_number_of_calls_is_distributed_as_it_should(rng: random.Random) -> None:
    servers, rate = 5, 4.0
    counts = (0, 2, 4, 5, 7, 10)
    with System(rng.getrandbits(32), environments_max=servers, pending_max=1_000_000) as system:
        system.poisson(system.function(), rate, Sampler("exponential", 1.0))
        system.dispatcher.run(1000)
        batches = []
        for _ in range(BATCHES):
            system.dispatcher.clear()
            system.dispatcher.run(system.dispatcher.now_seconds + 3000)
            shares = system.dispatcher.state_shares()
            assert sum(shares) == pytest.approx(1.0)
            batches.append([*shares, *[0.0] * 20])
    right, wrong = formulas.states(servers, rate, count=20), formulas.states(servers + 1, rate, count=20)
    for count in counts:
        found = interval([shares[count] for shares in batches])
        assert right[count] in found
        assert wrong[count] not in found


def test_a_line_that_is_full_turns_calls_away(rng: random.Random) -> None:
    """M/M/c/K: `pending_max` are the places of the line."""
    servers, places, rate = 8, 12, 8.0
    with System(rng.getrandbits(32), environments_max=servers, pending_max=places - servers) as system:
        system.poisson(system.function(), rate, Sampler("exponential", 1.0))
        found = system.batches(1000, {"rejected": lambda figures: figures["rejected"] / figures["arrivals"]})
    assert formulas.blocked(servers, rate, places) in found["rejected"]
    assert formulas.blocked(servers, rate, places + 1) not in found["rejected"]


@pytest.mark.parametrize("service", ["exponential", "lognormal"])
def test_littles_law(service: str, rng: random.Random) -> None:
    """Calls in the system are arrivals by time in it: to the call, once everything that arrived is done."""
    with System(rng.getrandbits(32), environments_max=30, pending_max=1_000_000) as system:
        for _ in range(3):
            system.poisson(system.function(), 9.0, SERVICES[service])
        system.dispatcher.run(5000)
        system.dispatcher.run_out()
        figures = system.dispatcher.figures()
        responses, waits = system.dispatcher.responses, system.dispatcher.waits
    assert figures["ok"] == figures["arrivals"] > 100_000
    assert figures["in_system_mean"] * figures["seconds"] == pytest.approx(figures["ok"] * responses.mean_seconds)
    assert figures["waiting_mean"] * figures["seconds"] == pytest.approx(figures["ok"] * waits.mean_seconds)


def test_functions_share_the_account(rng: random.Random) -> None:
    """All of them see the same share of throttles, that of one system with the offered loads' sum."""
    loads = {"exponential": 3.0, "constant": 6.0, "lognormal": 9.0}
    limit = 20
    with System(rng.getrandbits(32), limit) as system:
        for name, offered in loads.items():
            system.poisson(system.function(), offered, SERVICES[name])
        shares: list[list[float]] = [[], [], []]
        system.dispatcher.run(1000)
        for _ in range(BATCHES):
            arrived = [target.throttles + target.invocations for target in system.targets]
            lost = [target.throttles for target in system.targets]
            system.dispatcher.run(system.dispatcher.now_seconds + 1000)
            for index, target in enumerate(system.targets):
                fresh = target.throttles + target.invocations - arrived[index]
                shares[index].append((target.throttles - lost[index]) / fresh)
        reasons = system.dispatcher.figures()["throttled_by_reason"]
    expected = formulas.erlang_b(limit, sum(loads.values()))
    for values in shares:
        assert expected in interval(values)
        assert formulas.erlang_b(limit + 1, sum(loads.values())) not in interval(values)
    assert set(reasons) == {"ConcurrentInvocationLimitExceeded"}


def test_a_reservation_parts_the_account(rng: random.Random) -> None:
    """The function with one is a system of its own, and the others have what is left."""
    limit, reserved = 30, 12
    with System(rng.getrandbits(32), limit) as system:
        own, others = system.function(reserved=reserved), system.function()
        system.poisson(own, 11.0, SERVICES["exponential"])
        system.poisson(others, 15.0, SERVICES["constant"])
        for target, servers, offered in ((own, reserved, 11.0), (others, limit - reserved, 15.0)):
            values = []
            for _ in range(BATCHES):
                lost, ran = target.throttles, target.invocations
                system.dispatcher.run(system.dispatcher.now_seconds + 500)
                values.append((target.throttles - lost) / (target.throttles + target.invocations - lost - ran))
            assert formulas.erlang_b(servers, offered) in interval(values)
            assert formulas.erlang_b(servers + 1, offered) not in interval(values)


def test_environments_grow_by_a_thousand_and_a_hundred_a_second() -> None:
    """Where rates are enforced: 1000 new environments at once, and 100 more each second."""
    with System(1, 50_000, enforce_rates=True, environments_max=20_000) as system:
        target = system.function()
        system.dispatcher.add(Source(target, Sampler("constant", 800.0)).at_period(0.001, 0.001))
        system.dispatcher.sample_every(10.0)
        system.dispatcher.run(100.0)
        samples = system.dispatcher.samples
        reasons = system.dispatcher.figures()["throttled_by_reason"]
    for seconds, environments, *_ in samples:
        # Tokens flow back from the first call on; after 1.1 seconds every new environment has waited for its own.
        assert environments == pytest.approx(1000 + 100 * seconds, abs=1.5)
    assert [late[1] - early[1] for early, late in pairwise(samples)] == pytest.approx([1000] * 9, abs=1)
    assert set(reasons) == {"FunctionInvocationRateLimitExceeded"}


@pytest.mark.parametrize(("reserved", "limit"), [(None, 50), (20, 50)])
def test_request_rates_are_ten_times_the_concurrency(reserved: int | None, limit: int) -> None:
    """Calls so short that concurrency does not matter: the bucket gives its whole size at once and then the rate."""
    rate = 10 * (limit if reserved is None else reserved)
    with System(1, limit, enforce_rates=True) as system:
        target = system.function(reserved=reserved)
        system.dispatcher.add(Source(target, Sampler("constant", 1e-6)).at_period(1e-4, 1e-4))
        system.dispatcher.run(20.0)
        figures = system.dispatcher.figures()
    assert figures["ok"] == pytest.approx(rate + 20 * rate, abs=2)
    assert figures["ok"] + figures["throttled"] == figures["arrivals"] == 200_000
    reason = (
        "FunctionInvocationRateLimitExceeded" if reserved is None else "ReservedFunctionInvocationRateLimitExceeded"
    )
    assert figures["throttled_by_reason"] == {reason: figures["throttled"]}


def test_a_cold_start_holds_the_concurrency_of_its_call(rng: random.Random) -> None:
    """Hardly kept alive, each environment has one call, whose start then is a part of the service: M/G/1/1."""
    rate = 1.5
    with System(rng.getrandbits(32)) as system:
        system.poisson(system.function(reserved=1, start=Sampler("constant", 0.25)), rate, Sampler("constant", 0.75))
        system.dispatcher.keep_alive(0.0, 0.0005)
        found = system.batches(500, {"lost": throttled, "cold": lambda figures: figures["cold_starts"] / figures["ok"]})
    assert found["cold"].low > 0.99
    assert formulas.erlang_b(1, rate) in found["lost"]
    assert formulas.erlang_b(1, rate * 0.75) not in found["lost"]


def test_a_call_does_not_stick_to_the_environment_that_starts_for_it(rng: random.Random) -> None:
    """Whatever becomes free first takes it; the new environment is then there for the next one."""
    with System(1) as system:
        target = system.function(start=Sampler("constant", 10.0))
        first = system.dispatcher.call(target, 3.0)
        system.dispatcher.run(11.0)
        second = system.dispatcher.call(target, rng.uniform(1.0, 2.0))
        system.dispatcher.run(30.0)
        third = system.dispatcher.call(target, 1.0)
        system.dispatcher.run(40.0)
    assert second.environment_id == first.environment_id
    assert second.posted_ns - second.submitted_ns == 2_000_000_000  # not the ten seconds of a start
    assert third.environment_id != first.environment_id
    assert third.init_ns == 10_000_000_000


def test_a_function_that_asks_for_too_much_does_not_keep_others_from_running(rng: random.Random) -> None:
    """On a machine that is full, a function without an environment gets one of those of a function that has many."""
    with System(rng.getrandbits(32), environments_max=10, pending_max=1_000_000) as system:
        greedy, modest = system.function(), system.function(start=Sampler("constant", 0.2))
        system.poisson(greedy, 15.0, Sampler("exponential", 1.0))
        system.dispatcher.run(10.0)
        assert greedy.counts[3] > 10, "the machine is not full"
        calls = []
        for second in range(60):
            system.dispatcher.run(10.0 + second)
            calls.append(system.dispatcher.call(modest, 0.1))
        system.dispatcher.run(80.0)
        assert all(call.done for call in calls)
        # One of ten environments is up after a second at most for an end, and 0.2 for the start; see it from afar.
        assert max(call.done_ns - call.submitted_ns for call in calls) < 5_000_000_000
        assert greedy.invocations > 400


def test_functions_on_a_full_machine_take_turns(rng: random.Random) -> None:
    """More of them than environments, and each asks for more than its share: all get about the same."""
    with System(rng.getrandbits(32), environments_max=4, pending_max=1_000_000) as system:
        for _ in range(12):
            system.poisson(system.function(start=Sampler("constant", 0.1)), 1.0, Sampler("exponential", 1.0))
        system.dispatcher.run(600.0)
        ran = [target.invocations for target in system.targets]
    assert min(ran) > 0.5 * sum(ran) / len(ran)
