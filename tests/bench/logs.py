"""How fast logs come out, beside `cat` of the files in which they lie, in one run.

    python -m tests.bench.logs [--quick]        as root; the environment of deploy/test

Every round does each once, cat and gorae logs in turn, so that a busy moment hits both; figures are medians over the
rounds. What reads them matters as much as what writes them: a pipe whose reader counts lines, one that looks for a word,
a file, a terminal, and nothing at all (/dev/null, into which cat copies no byte).
"""

from __future__ import annotations

import os
import pty
import statistics
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

from agent.logs.stream import generations
from tests.bench.command import command
from tests.host.conftest import import_images, sample_tars
from tests.support.host import CLI, Host

STACK, WIDTH = "l1", 100  # bytes of a line's text
COMPOSE = """
services:
  a:
    image: gorae/busybox:1
    command: ["awk", "BEGIN { for (i = 0; i < %d; i++) printf \\"%%08d %s\\\\n\\", i; system(\\"sleep 3600\\") }"]
    stop_grace_period: 100ms
    logging: {driver: local, options: {max-size: 500m, max-file: "2"}}
"""
SINKS = {
    "a pipe into wc -l": "| wc -l",
    "a pipe into grep": "| grep -c 77",
    "a file": "> {file}",
    "/dev/null": "> /dev/null",
}


def filled(host: Host, lines: int) -> list[Path]:
    """The files of a service that has written so many lines, oldest first."""
    host.up(STACK, COMPOSE % (lines, "x" * (WIDTH - 9)))
    [path] = (host.root / "state" / "logs" / STACK / "a").glob("*.log")
    last = f"{lines - 1:08d} ".encode()
    while last not in path.read_bytes()[-1000:]:
        time.sleep(0.2)
    return [*reversed(generations(path))]


def took(command: str, env: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(["bash", "-c", f"set -o pipefail; {command}"], env=env, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


def on_a_terminal(command: str, env: dict[str, str]) -> float:
    """Whose reader shows nothing, but takes everything."""
    master, slave = pty.openpty()

    def read() -> None:
        try:
            while os.read(master, 1 << 16):
                pass
        except OSError:  # EIO: the other side is closed
            pass

    reader = threading.Thread(target=read)
    reader.start()
    began = time.perf_counter()
    subprocess.run(["bash", "-c", command], env={**env, "TERM": "xterm"}, check=True, stdout=slave)
    done = time.perf_counter() - began
    os.close(slave)
    reader.join()
    os.close(master)
    return done


def compared(host: Host, files: list[Path], rounds: int) -> dict[str, dict[str, float]]:
    cli = " ".join(f"'{word}'" for word in CLI)
    programs = {
        "cat": f"cat {' '.join(map(str, files))}",
        "no_prefix": f"{cli} logs {STACK}/a --no-prefix",
        "prefix": f"{cli} logs {STACK}/a",
    }
    env = {**host.env, "NO_COLOR": ""}
    times: dict[str, dict[str, list[float]]] = {}
    for _ in range(rounds):
        for sink, shell in SINKS.items():
            for name, program in programs.items():
                command = f"{program} {shell.format(file=host.root / 'out')}"
                times.setdefault(sink, {}).setdefault(name, []).append(took(command, env))
        for name, program in programs.items():
            times.setdefault("a terminal", {}).setdefault(name, []).append(on_a_terminal(program, env))
    return {sink: _figures(found) for sink, found in times.items()}


def _figures(found: dict[str, list[float]]) -> dict[str, float]:
    """Milliseconds, and how fast it is beside cat: 1 is as fast."""
    figures = {f"{name}_ms": round(1000 * statistics.median(each), 1) for name, each in found.items()}
    for name in ("no_prefix", "prefix"):
        ratios = [cat / own for cat, own in zip(found["cat"], found[name], strict=True)]
        figures[f"{name}_ratio"] = round(statistics.median(ratios), 2)
    return figures


def exact(host: Host, lines: int) -> bool:
    """Whether what comes out is what was written, to the byte."""
    made = subprocess.run([*CLI, "logs", f"{STACK}/a", "--no-prefix"], env=host.env, capture_output=True, check=True)
    return made.stdout == b"".join(b"%08d %b\n" % (n, b"x" * (WIDTH - 9)) for n in range(lines))


def measure(host: Host, lines: int, rounds: int) -> dict[str, Any]:
    load = os.getloadavg()[0]
    agent = host.daemons()["agent"]
    files = filled(host, lines)
    before = _resident(agent)
    whole = exact(host, lines)
    sinks = compared(host, files, rounds)
    return {
        "lines": lines,
        "bytes": sum(file.stat().st_size for file in files),
        "files": len(files),
        "rounds": rounds,
        "load": round(load, 1),
        "exact": whole,
        "sinks": sinks,
        "agent_grew_mib": round(_resident(agent) - before, 1),
    }


def _resident(pid: int) -> float:
    """MiB of a process's own."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("RssAnon:")[2].split()[0]) / 1024


def tell(result: dict[str, Any]) -> str:
    rows = [
        f"| {sink} | {one['cat_ms']} ms | {one['no_prefix_ms']} ms | {one['no_prefix_ratio']} | {one['prefix_ms']} ms | {one['prefix_ratio']} |"
        for sink, one in result["sinks"].items()
    ]
    return "\n".join(
        [
            f"{result['lines']} lines, {result['bytes']} bytes in {result['files']} files, {result['rounds']} rounds, load {result['load']}; what came out is {'as' if result['exact'] else 'NOT as'} it was written; the agent grew by {result['agent_grew_mib']} MiB",
            "",
            "| read by | cat of the files | logs --no-prefix | speed, cat is 1 | logs | speed, cat is 1 |",
            "|---|---|---|---|---|---|",
            *rows,
        ]
    )


def main() -> int:
    def whole(quick: bool) -> dict[str, Any]:
        with Host() as host:
            import_images(host, sample_tars("busybox"), "busybox")
            return measure(host, 100_000, 3) if quick else measure(host, 1_000_000, 5)

    return command(__doc__, "100,000 lines, 3 rounds", whole, tell)


if __name__ == "__main__":
    raise SystemExit(main())
