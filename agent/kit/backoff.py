"""Backoff arithmetic, pure."""

from __future__ import annotations


def delay(failures: int, *, first: float, cap: float, jitter: float = 0.0, roll: float = 0.5) -> float:
    """Seconds before try number `failures` + 1: first × 2^(failures-1), at most cap, spread by ± jitter.

    `roll` in [0, 1) is the caller's random number, so that this stays pure. failures ≤ 0 gives 0.
    """
    if failures <= 0:
        return 0.0
    base = min(cap, first * 2.0 ** min(failures - 1, 60))
    return base * (1 - jitter + 2 * jitter * roll)
