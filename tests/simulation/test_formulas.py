"""The closed forms: values that anybody can look up or work out by hand, and what holds between them."""

from __future__ import annotations

import math
import random

import pytest

from fastlam.harness.simulation import formulas


def test_values_of_tables() -> None:
    assert formulas.erlang_b(1, 1.0) == pytest.approx(1 / 2)
    assert formulas.erlang_b(2, 1.0) == pytest.approx(1 / 5)
    assert formulas.erlang_b(10, 5.0) == pytest.approx(0.018385, abs=1e-6)
    assert formulas.erlang_b(0, 3.0) == 1.0
    assert formulas.erlang_c(2, 1.0) == pytest.approx(1 / 3)
    assert formulas.erlang_c(3, 3.0) == 1.0


def test_one_server(rng: random.Random) -> None:
    """M/M/1 needs no Erlang."""
    load = rng.uniform(0.1, 0.95)
    assert formulas.erlang_c(1, load) == pytest.approx(load)
    assert formulas.wait_mean(1, load, 1.0) == pytest.approx(load / (1 - load))
    assert formulas.wait_above(1, load, 1.0, 2.0) == pytest.approx(load * math.exp(-2 * (1 - load)))
    assert formulas.states(1, load, count=4) == pytest.approx([(1 - load) * load**n for n in range(4)])


def test_they_belong_together(rng: random.Random) -> None:
    servers = rng.randint(2, 40)
    offered = rng.uniform(0.2, 0.95) * servers
    states = formulas.states(servers, offered, count=2000)
    assert sum(states) == pytest.approx(1.0)
    assert sum(states[servers:]) == pytest.approx(formulas.erlang_c(servers, offered))
    assert sum((n - servers) * share for n, share in enumerate(states) if n > servers) == pytest.approx(
        offered * formulas.wait_mean(servers, offered, 1.0)
    )
    assert formulas.blocked(servers, offered, servers) == pytest.approx(formulas.erlang_b(servers, offered))
    assert formulas.states(servers, offered, 3000)[:2000] == pytest.approx(states)
    level = 1 - formulas.erlang_c(servers, offered) / 7
    wait = formulas.wait_quantile(servers, offered, 1.0, level)
    assert formulas.wait_above(servers, offered, 1.0, wait) == pytest.approx(1 - level)


def test_cold_share() -> None:
    assert formulas.cold_share(0.5, 2.0) == pytest.approx(math.exp(-1))
    assert formulas.cold_share(0.5, 2.0, 1e-6) == pytest.approx(math.exp(-1), rel=1e-5)
    assert formulas.cold_share(0.5, 2.0, 4.0) == pytest.approx(math.exp(-1) * (1 - math.exp(-2)) / 2)
