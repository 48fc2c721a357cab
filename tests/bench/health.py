"""What health checks cost, and how soon a sick container is another one.

    python -m tests.bench.health [--quick] [--json FILE]        as root; the environment of deploy/test

An exec probe is held against `crun exec` alone, with the same process in the same container; a probe's CPU is that of
everything it starts and waits for.
"""

from __future__ import annotations

import asyncio
import json
import os
import resource
import secrets
import shutil
import statistics
import subprocess
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from agent.kit import mounts
from agent.probes.prober import HostProber, process_spec
from agent.wire.messages import Healthcheck
from tests.agent.runtime.host import Host as Runtime
from tests.bench.bench import TICKS, daemons, started
from tests.bench.command import command
from tests.host.conftest import import_images, sample_tars
from tests.support.host import Host, until

INTERVAL, RETRIES = 1.0, 3
BATCH = 10  # /proc counts a process's CPU in hundredths of a second
SICK = """  s{n}:
    image: gorae/busybox:1
    command: [sleep, "86400"]
    stop_grace_period: 100ms
    stop_signal: SIGKILL
    healthcheck: {{test: [CMD-SHELL, "! test -e /sick"], interval: 1s, retries: 3}}
"""
CHECKED = """  s{n}:
    image: gorae/busybox:1
    command: {command}
    stop_grace_period: 100ms
    {check}
"""
EXEC = 'healthcheck: {test: [CMD, "true"], interval: 10s}'
TCP = "x-gorae-healthcheck: {tcp: {port: 80}, interval: 10s}"
SLEEPS, LISTENS = '[sleep, "86400"]', "[httpd, -f, -p, '80']"


def spent(helper: int) -> float:
    """Seconds of CPU of this process, of the helper, and of the children that either has waited for."""
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses) + cpu([helper])


async def probe_cost(rounds: int) -> dict[str, float]:
    """Milliseconds of CPU for each exec probe, and for a bare `crun exec` of the same, taken in turns."""
    root = Path(f"/tmp/g-{secrets.token_hex(4)}")
    root.mkdir(mode=0o755)
    host = Runtime(root)
    bundle = host.bundle("sleep", "86400")
    try:
        process = await host.runtime.start(bundle)
        prober, check = HostProber(host.layout, host.instance, host.helper), Healthcheck(test=("CMD", "true"))
        spec = root / "spec.json"
        spec.write_text(json.dumps(process_spec(bundle.config, ["true"])))
        crun = ["crun", f"--root={host.layout.crun_root}", "--cgroup-manager=cgroupfs", "exec", "--process", str(spec)]
        ours = bare = 0.0
        helper = host.helper.ready().process.pid
        for _ in range(rounds // BATCH):
            began = spent(helper)
            for _ in range(BATCH):
                assert (await prober.probe(bundle.task, 1, process, check, "", 10)).ok
            ours, began = ours + spent(helper) - began, spent(helper)
            for _ in range(BATCH):
                subprocess.run([*crun, f"{bundle.task}.1"], check=True, stdin=subprocess.DEVNULL)  # noqa: ASYNC221 (alone)
            bare += spent(helper) - began
    finally:
        host.helper.close()
        await host.runtime.remove(bundle.task, 1)
        for point in mounts.points(root):
            mounts.detach(point)
        shutil.rmtree(root)
    ours, bare = (1000 * total / rounds for total in (ours, bare))
    return {"gorae_ms": round(ours, 2), "crun_exec_ms": round(bare, 2), "ratio": round(ours / bare, 2)}


def replaced(host: Host, count: int) -> list[float]:
    """Milliseconds beyond interval × retries from a container's falling sick to the exec of the next attempt's command,
    one container after the other, each sick at another moment between two of its probes."""
    host.up("sick", "services:\n" + "".join(SICK.format(n=n) for n in range(count)))
    tasks = host.tasks("sick")
    until(lambda: time.time() - max(t["started_at"] for t in tasks) > 10.5, "10 s of stable run")
    samples = []
    for number, task in enumerate(tasks):
        place = next(Path("/sys/fs/cgroup").glob(f"**/gorae-{host.instance}/{task['id']}.1")).parent
        time.sleep(INTERVAL * number / count)
        began = time.monotonic()
        Path(f"/proc/{task['pid']}/root/sick").touch()
        procs = place / f"{task['id']}.2/cgroup.procs"
        while not started(procs):
            assert time.monotonic() - began < 30, "no new attempt"
            time.sleep(0.001)
        samples.append((time.monotonic() - began - INTERVAL * RETRIES) * 1000)
    host.down("sick")
    return samples


def checked(host: Host, count: int, seconds: float, check: str, command: str) -> float:
    """Percent of a core that the daemons and all they start use while `count` containers are checked every 10 s, beyond
    what they use for as many that nobody checks."""

    def use(name: str, checks: str) -> float:
        text = "services:\n" + "".join(CHECKED.format(n=n, command=command, check=checks) for n in range(count))
        host.up(name, text)
        time.sleep(12)  # every one has been healthy, and has its place between the others
        pids = daemons(host)
        before, began = cpu(pids), time.monotonic()
        time.sleep(seconds)
        found = 100 * (cpu(pids) - before) / (time.monotonic() - began)
        host.down(name)
        return found

    return use("checked", check) - use("unchecked", "restart: always")


def cpu(pids: list[int]) -> float:
    """Seconds, of children that were waited for as well."""
    total = 0
    for pid in pids:
        with suppress(FileNotFoundError):  # a probe's own, and over: it counts for who waited for it
            fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
            total += sum(int(field) for field in fields[11:15])
    return total / TICKS


def measure(rounds: int, sick: int, count: int, seconds: float) -> dict[str, Any]:
    result: dict[str, Any] = {"exec_probe": asyncio.run(probe_cost(rounds))}
    with Host() as host:
        import_images(host, sample_tars("busybox"), "busybox")
        late = replaced(host, sick)
        result["unhealthy_replaced"] = {
            "interval_s": INTERVAL,
            "retries": RETRIES,
            "beyond_ms": {"median": round(statistics.median(late), 1), "worst": round(max(late), 1)},
            "of": sick,
        }
        result["checked_every_10_s"] = {
            "containers": count,
            "tcp_percent": round(checked(host, count, seconds, TCP, LISTENS), 2),
            "exec_percent": round(checked(host, count, seconds, EXEC, SLEEPS), 2),
        }
    return result


def tell(result: dict[str, Any]) -> str:
    probe, sick, many = (result[key] for key in ("exec_probe", "unhealthy_replaced", "checked_every_10_s"))
    return "\n".join(
        (
            "| what | gorae | floor | ratio |",
            "|---|---|---|---|",
            f"| CPU of an exec probe | {probe['gorae_ms']} ms | {probe['crun_exec_ms']} ms (`crun exec`) | {probe['ratio']} × |",
            f"| unhealthy → next attempt, beyond interval × retries | {sick['beyond_ms']['median']} ms median, "
            f"{sick['beyond_ms']['worst']} ms worst of {sick['of']} | | |",
            f"| {many['containers']} containers checked every 10 s | {many['tcp_percent']} % of a core (tcp), "
            f"{many['exec_percent']} % (exec) | | |",
        )
    )


def main() -> int:
    def whole(quick: bool) -> dict[str, Any]:
        return measure(20, 3, 10, 10.0) if quick else measure(200, 20, 100, 30.0)

    return command(__doc__, "fewer rounds, 10 containers instead of 100", whole, tell)


if __name__ == "__main__":
    raise SystemExit(main() if os.geteuid() == 0 else "as root, please")
