"""Moments as people say them, for --since and --until."""

from __future__ import annotations

import argparse
import re
import time

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def moment(text: str, now: float | None = None) -> float:
    """Unix seconds. "10m", "1h30m": ago. "14:02[:03]": today, or yesterday if that is still to come."""
    now = time.time() if now is None else now
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if re.fullmatch(r"(\d+[smhd])+", text):
        return now - sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)([smhd])", text))
    if match := re.fullmatch(r"(\d{1,2}):(\d{2})(?::(\d{2}))?", text):
        day = time.localtime(now)
        hour, minute, second = (int(part or 0) for part in match.groups())
        if hour < 24 and minute < 60 and second < 60:
            at = time.mktime((day.tm_year, day.tm_mon, day.tm_mday, hour, minute, second, 0, 0, -1))
            earlier = (day.tm_year, day.tm_mon, day.tm_mday - 1, hour, minute, second, 0, 0, -1)
            return at if at <= now else time.mktime(earlier)
    try:
        from datetime import datetime

        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no moment: try 10m, 14:02 or 2024-05-01T14:02") from None
