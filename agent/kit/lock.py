"""The lock a daemon holds for life, so that two never serve one root; its file says who holds it."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from agent.kit.errors import UserError


def own(lock: int, who: str, place: Path, hint: str = "") -> int:
    """flock(2) on the open file `lock`, and our pid into it; `lock` again. UserError already-running (and the file
    closed) names the process that holds it. `who`: "the agent" …; `place`: the directory it serves; `hint`: what to do
    about it, if it is not to end that process."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(lock, 32).decode() or "unknown"
        os.close(lock)
        raise UserError(
            f"cannot start {who}: process {holder} already runs for {place}",
            code="already-running",
            hint=hint or f"end process {holder} first, or use another --root",
        ) from None
    os.ftruncate(lock, 0)
    os.write(lock, str(os.getpid()).encode())
    return lock
