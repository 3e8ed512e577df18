"""Billed duration and list price (AWS Lambda pricing, us-east-1, x86, first tier, without the free tier)."""

from __future__ import annotations

from typing import Final

PRICE_GB_SECOND_USD: Final = 0.0000166667
PRICE_REQUEST_USD: Final = 0.20 / 1_000_000


def billed_ms(duration_ns: int, init_ns: int = 0) -> int:
    """Milliseconds charged: duration and INIT together, rounded up; INIT counts since August 2025."""
    return -(-(duration_ns + max(0, init_ns)) // 1_000_000)


def price_usd(requests: int, billed_ms_total: int, memory_mb: int) -> float:
    """What Lambda would have charged for these invocations of one function."""
    return requests * PRICE_REQUEST_USD + billed_ms_total / 1000 * memory_mb / 1024 * PRICE_GB_SECOND_USD
