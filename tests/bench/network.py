"""What the network costs, measured in one run beside a plain veth pair between two namespaces.

    python -m tests.bench.network [--quick]        as root; the environment of deploy/test

Streams are iperf3's, one TCP connection; a round trip is one byte there and back over a connection that is up. Every
round measures each path once, so that a busy moment hits all of them; figures are medians over the rounds.
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
import sys
import time
from collections.abc import Callable
from contextlib import AsyncExitStack, ExitStack
from pathlib import Path
from typing import Any

from agent.decide.nft_rules import Backend, Member, network_id
from agent.kit.layout import Layout
from agent.kit.pools import Slice
from agent.network.network import RoutedNetwork
from agent.network.wire import link_name
from agent.ports import Attachment, Serving
from agent.sandbox.link import Helper
from agent.sandbox.sandboxes import PinnedSandboxes
from agent.wire.messages import PublishedPort
from tests.bench.bench import look_ups, stack
from tests.bench.command import command
from tests.host.conftest import import_images, sample_tars
from tests.support.host import Host
from tests.support.netns import Namespace, machine, moved, run

INSTANCE, SLICE = "be9cbe9c", Slice(31)
STREAM, ECHO, SHIFT = 5201, 5202, 10000  # ports of the servers; published SHIFT higher
ON = frozenset({"bench"})

SERVE = """
import socket, sys
with socket.create_server(("0.0.0.0", int(sys.argv[1]))) as ear:
    print(flush=True)
    while True:
        talk, _ = ear.accept()
        talk.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while heard := talk.recv(1):
            talk.send(heard)
"""
CALL = """
import json, socket, sys, time
talk = socket.create_connection((sys.argv[1], int(sys.argv[2])), 5)
talk.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
took = []
for _ in range(int(sys.argv[3])):
    began = time.perf_counter_ns()
    talk.send(b"x")
    talk.recv(1)
    took.append(time.perf_counter_ns() - began)
print(json.dumps(took[len(took) // 10 :]))
"""


class Route:
    """From a client's namespace to a server's, which is reached at `address`; ports are `shift` higher there."""

    def __init__(self, client: Namespace, address: str, shift: int = 0) -> None:
        self.client, self.address, self.shift = client, address, shift

    def stream(self, seconds: int) -> tuple[float, float]:
        """Gbit/s, and ms of processor for a Gbit: what both ends and the way between them take. A machine that has
        other things to do changes the one, and hardly the other."""
        command = ("iperf3", "-J", "-c", self.address, "-p", str(STREAM + self.shift), "-t", str(seconds))
        answer = json.loads(self.client.run(*command))
        end = answer["end"]
        received, used = end["sum_received"], end["cpu_utilization_percent"]
        rate = float(received["bits_per_second"]) / 1e9
        return rate, 10 * (used["host_total"] + used["remote_total"]) / rate

    def round_trips(self, count: int) -> tuple[float, float]:
        """Median and 99th percentile, µs."""
        port = str(ECHO + self.shift)
        took = json.loads(self.client.run(sys.executable, "-c", CALL, self.address, port, str(count)))
        took.sort()
        return took[len(took) // 2] / 1000, took[len(took) * 99 // 100] / 1000


def serve(space: Namespace, cleanup: ExitStack) -> None:
    """Both servers, listening when this returns."""
    with space.inside():
        streams = subprocess.Popen(["iperf3", "-s", "-p", str(STREAM)], stdout=subprocess.DEVNULL)
        echo = subprocess.Popen([sys.executable, "-c", SERVE, str(ECHO)], stdout=subprocess.PIPE)
    for process in (streams, echo):
        cleanup.enter_context(process)
        cleanup.callback(process.kill)
    assert echo.stdout
    echo.stdout.readline()
    while f":{STREAM}" not in space.run("ss", "-Hltn"):
        time.sleep(0.01)


def plain(cleanup: ExitStack) -> Route:
    client, server = Namespace(), Namespace()
    for space in (client, server):
        cleanup.callback(space.close)
    names = ("veth0", "netns", str(client.path), "type", "veth", "peer", "name", "veth0", "netns", str(server.path))
    run("ip", "link", "add", *names)
    for space, address in ((client, "192.0.2.17/28"), (server, "192.0.2.18/28")):
        space.run("ip", "address", "add", address, "dev", "veth0")
        space.run("ip", "link", "set", "veth0", "up")
    serve(server, cleanup)
    return Route(client, "192.0.2.18")


async def paths(network: RoutedNetwork, cleanup: ExitStack) -> dict[str, Route]:
    client, server = Namespace(), Namespace()
    for n, space in enumerate((client, server)):
        cleanup.callback(space.close)
        await network.attach(Attachment(f"t{n}", "bench", space.path, n, SLICE.address(n), ON))
    ports = tuple(PublishedPort(target=port, published=port + SHIFT) for port in (STREAM, ECHO))
    virtual = SLICE.virtual(0)
    await network.publish("t1", Serving(SLICE.address(1), "ready", ports, virtual))
    serve(server, cleanup)
    outside = machine("192.0.2.1/28", "192.0.2.9/28")
    cleanup.callback(outside.close)
    return {
        "plain veth": plain(cleanup),
        "container to container": Route(client, SLICE.address(1)),
        "by the service's address": Route(client, virtual),
        "from outside, by a published port": Route(outside, "192.0.2.1", SHIFT),
    }


def compared(found: dict[str, Route], rounds: int, seconds: int, trips: int) -> dict[str, dict[str, float]]:
    streams: dict[str, list[float]] = {name: [] for name in found}
    costs: dict[str, list[float]] = {name: [] for name in found}
    medians: dict[str, list[float]] = {name: [] for name in found}
    tails: dict[str, list[float]] = {name: [] for name in found}
    for _ in range(rounds):
        for name, path in found.items():
            rate, cost = path.stream(seconds)
            streams[name].append(rate)
            costs[name].append(cost)
        for name, path in found.items():
            middle, tail = path.round_trips(trips)
            medians[name].append(middle)
            tails[name].append(tail)
    floor = "plain veth"
    return {
        name: {
            "gbit_s": round(statistics.median(streams[name]), 2),
            "ratio": round(statistics.median(map(_ratio, streams[name], streams[floor])), 3),
            "processor_ms_gbit": round(statistics.median(costs[name]), 1),
            "processor_ratio": round(statistics.median(map(_ratio, costs[name], costs[floor])), 2),
            "median_us": round(statistics.median(medians[name]), 1),
            "p99_us": round(statistics.median(tails[name]), 1),
            "more_us": round(statistics.median(map(float.__sub__, medians[name], medians[floor])), 1),
        }
        for name in found
    }


def _ratio(one: float, other: float) -> float:
    return one / other


async def set_up(root: Path, count: int) -> dict[str, float]:
    """Milliseconds a task for its sandbox and for its place on the network, `count` of them at once, and away again."""
    sandboxes, network = PinnedSandboxes(Layout.at(root), Helper()), _network(root)
    await sandboxes.ensure("t0", SLICE.uid_base(0))  # and its helper
    await sandboxes.remove("t0")  # one alone: what is removed, the kernel takes apart while others are made
    began = time.monotonic()
    made = await asyncio.gather(*(sandboxes.ensure(f"t{n}", SLICE.uid_base(n)) for n in range(count)))
    spaces = time.monotonic()
    await asyncio.gather(
        *(
            network.attach(Attachment(one.task, "s", _net_ns(one.net_ns), n, SLICE.address(n), ON))
            for n, one in enumerate(made)
        )
    )
    wired = time.monotonic()
    await asyncio.gather(*(network.detach(one.task) for one in made))
    gone = time.monotonic()
    await asyncio.gather(*(sandboxes.remove(one.task) for one in made))
    await network.close()
    sandboxes.helper.close()
    each = [round(1000 * took / count, 2) for took in (spaces - began, wired - spaces, wired - began, gone - wired)]
    return dict(zip(("namespaces_ms", "network_ms", "both_ms", "away_ms"), each, strict=True))


def _net_ns(found: Path | None) -> Path:
    assert found is not None
    return found


async def one_endpoint(root: Path, services: int, rounds: int) -> dict[str, float]:
    """Milliseconds for a task to leave its service and to come back, until it is committed: among so many services of one
    task each, which are told to the network as an agent that starts finds them."""
    network = _network(root)
    await network.list()
    for n in range(services):
        address = SLICE.address(n)
        network._members[f"t{n}"] = (Member(link_name(INSTANCE, n), address, frozenset({network_id(f"net{n % 10}")})),)
        network._backends[f"t{n}"] = frozenset({Backend(SLICE.virtual(n), address, True)})
    middle = f"t{services // 2}"
    serving = Serving(SLICE.address(services // 2), "ready", (), SLICE.virtual(services // 2))
    await network.publish(middle, serving)
    took, used = [], _cpu()
    for n in range(rounds):
        began = time.monotonic()
        await network.publish(middle, Serving(serving.address, "draining") if n % 2 == 0 else serving)
        took.append(1000 * (time.monotonic() - began))
    processor = 1000 * (_cpu() - used) / rounds
    began = time.monotonic()
    batch = [Serving(SLICE.address(n), "draining") for n in range(20)]
    await asyncio.gather(*(network.publish(f"t{n}", one) for n, one in enumerate(batch)))
    together = 1000 * (time.monotonic() - began) / len(batch)
    for known in (network._members, network._backends):
        known.clear()
    await network.close()
    return {
        "median_ms": round(statistics.median(took), 1),
        "processor_ms": round(processor, 1),
        "of_20_at_once_ms": round(together, 1),
    }


def _cpu() -> float:
    """Seconds of processor, nft's included."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def _network(root: Path) -> RoutedNetwork:
    return RoutedNetwork(Layout.at(root), INSTANCE, SLICE, registry=root / "forwarding.json")


def in_a_host(work: Callable[[Path], Any]) -> Any:
    """The work, in a network namespace that stands for a host, with a directory in memory as /run is."""
    root = Path(f"/dev/shm/g-{secrets.token_hex(4)}")
    root.mkdir(mode=0o755)
    try:
        with moved():
            return work(root)
    finally:
        shutil.rmtree(root, ignore_errors=True)


def traffic(root: Path, rounds: int, seconds: int, trips: int) -> dict[str, dict[str, float]]:
    async def work() -> dict[str, dict[str, float]]:
        async with AsyncExitStack() as stack:
            cleanup = stack.enter_context(ExitStack())
            network = _network(root)
            found = await paths(network, cleanup)
            try:
                return await asyncio.to_thread(compared, found, rounds, seconds, trips)
            finally:
                for task in ("t0", "t1"):
                    await network.detach(task)
                await network.close()

    return asyncio.run(work())


def measure(rounds: int, seconds: int, trips: int, tasks: int, services: int) -> dict[str, Any]:
    return {
        "rounds": rounds,
        "load": round(os.getloadavg()[0], 1),
        "paths": in_a_host(lambda root: traffic(root, rounds, seconds, trips)),
        "set_up": {"tasks": tasks, **in_a_host(lambda root: asyncio.run(set_up(root, tasks)))},
        "one_endpoint": {"services": services, **in_a_host(lambda root: asyncio.run(one_endpoint(root, services, 40)))},
    }


def tell(result: dict[str, Any]) -> str:
    lines = [
        f"{result['rounds']} rounds, begun at a load of {result['load']}",
        "",
        "| path | stream | of plain veth | processor per Gbit | of plain veth | round trip, median | p99 | more than plain veth |",
        "|---|---|---|---|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {one['gbit_s']} Gbit/s | {one['ratio']} | {one['processor_ms_gbit']} ms | {one['processor_ratio']} | {one['median_us']} µs | {one['p99_us']} µs | {one['more_us']} µs |"
        for name, one in result["paths"].items()
    ]
    made, changed = result["set_up"], result["one_endpoint"]
    lines += [
        "",
        "| what | | goal |",
        "|---|---|---|",
        f"| network of a task, {made['tasks']} at once | {made['both_ms']} ms each, {made['namespaces_ms']} of it its namespaces | 8 ms |",
        f"| taken away again | {made['away_ms']} ms each | |",
        f"| one endpoint among {changed['services']} services | {changed['median_ms']} ms, {changed['processor_ms']} of it processor; of 20 changed together {changed['of_20_at_once_ms']} ms each | 25 ms |",
    ]
    if found := result.get("look_ups"):
        lines.append(
            f"| look-ups a second from one container, one after the other | {found['gorae']}, dnsmasq {found['dnsmasq']} | |"
        )
    return "\n".join(lines)


def main() -> int:
    def whole(quick: bool) -> dict[str, Any]:
        result = measure(3, 1, 5000, 100, 1000) if quick else measure(9, 2, 20000, 100, 1000)
        with Host() as host:
            import_images(host, sample_tars("busybox"), "busybox")
            host.up("n1", stack(1))
            result["look_ups"] = look_ups(host, "n1")
        return result

    return command(__doc__, "3 short rounds instead of 9", whole, tell)


if __name__ == "__main__":
    raise SystemExit(main())
