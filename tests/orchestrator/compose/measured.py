"""What loading a folder's files costs: each time in a process of its own, forked from one that has imported all.

Run as a program it is that process: it reads a line with a folder's path, and answers with a line of JSON.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

_ADDRESS_SPACE = 2**30  # a runaway ends as a MemoryError, not with the machine


class Cost(NamedTuple):
    """`seconds` of processor time, `mib` at the peak. `problems`: of a ComposeError. `crash`: any other error."""

    seconds: float
    mib: float
    problems: list[str]
    crash: str


class Loader:
    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def load(self, folder: Path) -> Cost:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.write(f"{folder}\n")
        self._process.stdin.flush()
        return Cost(*json.loads(self._process.stdout.readline()))


@contextmanager
def loader() -> Iterator[Loader]:
    command = [sys.executable, "-m", __name__]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Loader(process)
        assert process.stdin
        process.stdin.close()


def slowness() -> float:
    """How much longer this processor takes now for plain Python than the one whose seconds the limits are in."""
    started, total = time.process_time(), 0
    for number in range(1_000_000):
        total += number
    return (time.process_time() - started) / 0.07


def _cost(folder: Path) -> Cost:
    import resource

    from orchestrator.compose.load import ComposeError, load

    resource.setrlimit(resource.RLIMIT_AS, (_ADDRESS_SPACE, _ADDRESS_SPACE))
    started = time.process_time()
    problems, crash = [], ""
    try:
        load(None, project="p", environ={"A": "v" * 100_000, "HOME": "/h", "BYTES": "\udcff"}, cwd=folder)
    except ComposeError as error:
        problems = [str(problem) for problem in error.problems]
    except BaseException:
        crash = traceback.format_exc()[-1000:]
    seconds = time.process_time() - started
    return Cost(seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, problems, crash)


def _serve() -> None:
    import orchestrator.compose.load
    import orchestrator.compose.runtime  # noqa: F401 - what a start costs is no matter here

    gc.freeze()  # what is imported by now costs the processes to come neither time nor copies
    for line in sys.stdin:
        if not os.fork():
            print(json.dumps(_cost(Path(line.rstrip("\n")))), flush=True)
            os._exit(0)
        os.wait()


if __name__ == "__main__":
    _serve()
