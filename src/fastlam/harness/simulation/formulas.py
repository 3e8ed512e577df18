"""Closed forms of queueing theory that the dispatcher must agree with. Times in seconds, rates per second.

Sources: Erlang's loss and delay formulas as in any textbook (Gross, Shortle, Thompson and Harris, Fundamentals of
Queueing Theory, chapter 2).
"""

from __future__ import annotations

import math


def erlang_b(servers: int, offered: float) -> float:
    """Share of the calls lost by `servers` without a waiting line, whatever the distribution of service (M/G/c/c).

    `offered` is the arrival rate times the mean service time.
    """
    lost = 1.0
    for number in range(1, servers + 1):
        lost = offered * lost / (number + offered * lost)
    return lost


def erlang_c(servers: int, offered: float) -> float:
    """Share of the calls that wait in M/M/c; 1 where the line has no end."""
    if offered >= servers:
        return 1.0
    lost = erlang_b(servers, offered)
    return lost / (1.0 - offered / servers * (1.0 - lost))


def wait_mean(servers: int, rate: float, service: float) -> float:
    """Mean time in the line of M/M/c, over all calls."""
    spare = servers / service - rate
    return math.inf if spare <= 0 else erlang_c(servers, rate * service) / spare


def wait_above(servers: int, rate: float, service: float, seconds: float) -> float:
    """Share of the calls that wait longer than `seconds` in M/M/c, first come, first served."""
    spare = servers / service - rate
    return 1.0 if spare <= 0 else erlang_c(servers, rate * service) * math.exp(-spare * seconds)


def wait_quantile(servers: int, rate: float, service: float, level: float) -> float:
    """The wait that this share of the calls does not exceed."""
    delayed = erlang_c(servers, rate * service)
    if level <= 1.0 - delayed:
        return 0.0
    spare = servers / service - rate
    return math.inf if spare <= 0 or level >= 1.0 else math.log(delayed / (1.0 - level)) / spare


def states(servers: int, offered: float, places: int | None = None, count: int = 0) -> list[float]:
    """Probabilities of 0, 1, 2 ... calls in the system.

    With `places` (servers and line together) it is M/M/c/K, and the list is whole; without, the first `count` of M/M/c.
    """
    weights = [1.0]
    for number in range(1, (count if places is None else places + 1)):
        weights.append(weights[-1] * offered / min(number, servers))
    if places is not None:
        return [weight / math.fsum(weights) for weight in weights]
    below = [1.0]
    for number in range(1, servers):
        below.append(below[-1] * offered / number)
    tail = below[-1] * offered / servers / (1.0 - offered / servers)
    whole = math.fsum(below) + tail
    return [weight / whole for weight in weights]


def blocked(servers: int, offered: float, places: int) -> float:
    """Share of the calls that M/M/c/K turns away."""
    return states(servers, offered, places)[-1]


def cold_share(rate: float, keep_alive: float, period: float = 0.0) -> float:
    """Share of cold starts where at most one call runs and others are turned away: gaps after a service are memoryless.

    An environment is stopped by the first look, one every `period`, that finds it idle for longer than `keep_alive`.
    """
    warm_too_long = math.exp(-rate * keep_alive)
    if period <= 0.0:
        return warm_too_long
    return warm_too_long * -math.expm1(-rate * period) / (rate * period)
