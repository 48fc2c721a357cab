"""Random lives of a network: attached, served, rolled out, flushed by somebody, agents killed, in the middle of things
too; the kernel holds what is wanted. deploy/soak network lives hundreds of them."""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from agent.decide import nft_rules, nft_text
from agent.decide.nft_rules import Backend, Member, Policy, Served
from agent.kit.ids import instance_id
from agent.kit.layout import Layout
from agent.kit.pools import Slice
from agent.network import forwarding, nft
from agent.network.network import RoutedNetwork
from agent.network.wire import link_name
from agent.ports import Attachment, Serving
from agent.wire.messages import PublishedPort
from tests.support.netns import Namespace, moved, run

pytestmark = pytest.mark.host
SLICE = Slice(1)
TASKS = 3

_tasks = st.integers(0, TASKS - 1)
_networks = st.sets(st.sampled_from(["a", "b", "c"]), max_size=3)
_attach = st.tuples(st.just("attach"), _tasks, _networks, st.booleans(), st.booleans())
_publish = st.tuples(
    st.just("publish"), _tasks, st.sampled_from(["ready", "running", "draining", "gone"]), st.integers(0, 1)
)
_rare = st.one_of(
    st.tuples(st.just("detach"), _tasks),
    st.tuples(st.just("rollout"), _tasks, st.integers(0, 1)),
    *(st.tuples(st.just(name)) for name in ("flush", "kill", "flush_and_kill")),
)
_cut_short = st.tuples(
    st.just("cut_short"),
    st.integers(1, 40),
    st.one_of(_publish, _attach, st.tuples(st.just("rollout"), _tasks, st.integers(0, 1))),
)
_begun = st.tuples(
    *(st.tuples(st.just("attach"), st.just(n), _networks, st.booleans(), st.booleans()) for n in range(TASKS))
)
_lives = st.builds(
    lambda begun, steps: [*begun, *steps],
    _begun,
    st.lists(st.one_of(_publish, _publish, _publish, _attach, _rare, _cut_short), min_size=4, max_size=15),
)


class Killed(Exception):
    """The agent, in the middle of a step."""


@dataclass
class Life:
    """A host with one instance on it, and what its network was told. Slot n of a service is task n or, after a rollout,
    task n + TASKS, in a sandbox of its own: `live` says which."""

    root: Path
    spaces: list[Namespace]
    instance: str = field(default_factory=instance_id)
    members: dict[int, tuple[Member, ...]] = field(default_factory=dict)
    serving: dict[int, Serving] = field(default_factory=dict)
    agents: list[RoutedNetwork] = field(default_factory=list)
    live: list[int] = field(default_factory=lambda: [*range(TASKS)])
    asked: dict[int, tuple[set[str], bool, bool]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.network = self.agent()

    def agent(self) -> RoutedNetwork:
        resolv = self.root / "resolv.conf"
        made = RoutedNetwork(
            Layout.at(self.root), self.instance, SLICE, registry=self.root / "forwarding.json", resolv=resolv
        )
        self.agents.append(made)
        return made

    async def step(self, kind: str, *what: Any) -> None:
        await getattr(self, kind)(*what)

    async def attach(self, slot: int, networks: set[str], outside: bool, ipv6: bool) -> None:
        self.asked[slot] = networks, outside, ipv6
        await self._attach(self.live[slot], networks, outside, ipv6)

    async def _attach(self, n: int, networks: set[str], outside: bool, ipv6: bool) -> None:
        """Network c never has IPv6."""
        address, networks_6 = SLICE.address(n), frozenset(networks - {"c"} if ipv6 else ())
        address_6 = SLICE.twin(address) if networks_6 else ""
        attachment = Attachment(
            f"t{n}",
            "s",
            self.spaces[n].path,
            n,
            address,
            frozenset(networks),
            outside,
            address_6=address_6,
            networks_6=networks_6,
        )
        await self.network.attach(attachment)
        members = tuple(
            Member(link_name(self.instance, n), at, frozenset(map(nft_rules.network_id, on)), outside)
            for at, on in ((address, networks), (address_6, networks_6))
            if on
        )
        if self.members.get(n) != members:
            self.serving.pop(n, None)
        self.members.pop(n, None)
        if members:
            self.members[n] = members

    async def detach(self, slot: int) -> None:
        await self._detach(self.live[slot])

    async def _detach(self, n: int) -> None:
        await self.network.detach(f"t{n}")
        self.members.pop(n, None)
        self.serving.pop(n, None)

    async def rollout(self, slot: int, service: int) -> None:
        """The next task is there and ready before the one before it drains and goes."""
        old, new = self.live[slot], (self.live[slot] + TASKS) % (2 * TASKS)
        if old not in self.members:
            return
        await self._attach(new, *self.asked[slot])
        for n, state in ((new, "running"), (new, "ready"), (old, "draining"), (old, "gone")):
            await self._publish(n, state, service)
        await self._detach(old)
        self.live[slot] = new

    async def cut_short(self, after: int, step: tuple[Any, ...]) -> None:
        """The agent is killed at the nth thing it does on the host for this step, or soon after the step; its successor
        does the step again. `watch` is not told of anything: what is left, it finds."""
        dying = self.network
        on_links, on_filter, left = dying._on_links, dying._on_filter, after

        async def counted(work: Any, *arguments: Any) -> Any:
            nonlocal left
            left -= 1
            done = await work(*arguments)
            if left <= 0:
                raise Killed
            return done

        dying._on_links = lambda *arguments: counted(on_links, *arguments)  # type: ignore[method-assign,assignment]
        dying._on_filter = lambda *arguments: counted(on_filter, *arguments)  # type: ignore[method-assign,assignment]
        known = dict(self.members), dict(self.serving), list(self.live)
        try:
            await self.step(*step)
        except Killed:
            self.members, self.serving, self.live = known
        dying._on_links, dying._on_filter = on_links, on_filter  # type: ignore[method-assign]
        await self.kill()
        for n in [*self.members]:
            await self._attach(n, *self.asked[n % TASKS])  # as each worker does before the next attempt
        for n, serving in [*self.serving.items()]:
            await self.network.publish(f"t{n}", serving)
        await self.step(*step)

    async def publish(self, slot: int, state: Any, service: int) -> None:
        await self._publish(self.live[slot], state, service)

    async def _publish(self, n: int, state: Any, service: int) -> None:
        """As workers do: only of what is attached."""
        if n not in self.members:
            return
        serving = Serving(SLICE.address(n), state)
        if state == "ready":
            serving = replace(serving, ports=(PublishedPort(target=80, published=8000 + service),))
        if state in ("ready", "running"):
            serving = replace(serving, virtual=SLICE.virtual(service))
        await self.network.publish(f"t{n}", serving)
        self.serving[n] = serving

    async def flush(self) -> None:
        """Somebody's; watch() is told, and does this."""
        run("nft", "flush", "ruleset")
        self.network._committed = None
        await self.network._commit()

    async def kill(self) -> None:
        """The next agent begins from the kernel alone."""
        self.network = self.agent()
        await self.network.list()

    async def flush_and_kill(self) -> None:
        """Who is where, the links say; what they serve, their workers."""
        run("nft", "flush", "ruleset")
        await self.kill()
        for n, serving in [*self.serving.items()]:
            await self.network.publish(f"t{n}", serving)

    def policy(self) -> Policy:
        seats = [(self.serving[n], seat.address) for n in self.serving for seat in self.members[n]]
        served = {
            Served(port.protocol, port.published, "::" if ":" in address else "0.0.0.0", address, port.target)
            for serving, address in seats
            for port in serving.ports
        }
        backends = {
            Backend(SLICE.twin(virtual) if ":" in address else virtual, address, serving.state == "ready")
            for serving, address in seats
            if (virtual := serving.virtual)
        }
        members = frozenset(seat for seats in self.members.values() for seat in seats)
        return Policy(
            self.instance,
            SLICE,
            router_6=self.network._router_6 is not False,
            members=members,
            served=frozenset(served),
            backends=frozenset(backends),
        )


def table(name: str) -> list[str]:
    """Everything of it but handles and order among what has none."""
    listed = json.loads(run("nft", "-j", "list", "table", "inet", name))["nftables"]
    return sorted(json.dumps(_plain(entry), sort_keys=True) for entry in listed if "metainfo" not in entry)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        plain = {key: _plain(child) for key, child in value.items() if key != "handle"}
        if "elem" in plain:
            plain["elem"] = sorted(plain["elem"], key=lambda one: json.dumps(one, sort_keys=True))
        return plain
    return [_plain(child) for child in value] if isinstance(value, list) else value


def rules(name: str) -> dict[str, list[str]]:
    """Chain → its rules, in their order."""
    listed = json.loads(run("nft", "-j", "list", "table", "inet", name))["nftables"]
    found: dict[str, list[str]] = {}
    for entry in (entry["rule"] for entry in listed if "rule" in entry):
        found.setdefault(entry["chain"], []).append(json.dumps(entry["expr"], sort_keys=True))
    return found


def test_the_kernel_holds_what_is_wanted(request: pytest.FixtureRequest) -> None:
    rounds = request.config.getoption("rounds")
    lives = settings(max_examples=rounds or 25, deadline=None, suppress_health_check=list(HealthCheck))(
        given(_lives)(_life)
    )
    if rounds:
        lives = seed(request.config.getoption("seed"))(lives)
    lived.clear()
    lives()
    print(f"{sum(lived.values())} lives, {dict(sorted(lived.items()))} of them with so many steps")


lived: Counter[int] = Counter()


def _life(steps: list[tuple[Any, ...]]) -> None:
    lived[len(steps)] += 1
    root = Path(f"/tmp/g-{secrets.token_hex(4)}")
    root.mkdir(mode=0o755)
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, root)
        stack.enter_context(moved())
        spaces = [Namespace() for _ in range(2 * TASKS)]
        for space in spaces:
            stack.callback(space.close)
        asyncio.run(_live(Life(root, spaces), steps))
        assert "inet gorae_" not in run("nft", "list", "tables")
        assert [line for line in run("ip", "-o", "link").splitlines() if ": g" in line] == []
        for sysctl in (forwarding.IPV4, forwarding.IPV6):
            assert sysctl.read_text().strip() == "0"
        assert [line for line in run("ip", "-6", "route").splitlines() if "unreachable" in line] == []


async def _live(life: Life, steps: list[tuple[Any, ...]]) -> None:
    for step in steps:
        await life.step(*step)
    assert await life.network.list() == {f"t{n}" for n in life.members}
    name = nft_rules.table_name(life.instance)
    if life.members:
        await life.network.publish("t-none", Serving(SLICE.address(99), "draining"))  # a commit, after any flush
        held: tuple[Any, ...] = table(name), rules(name)
        nft.commit(nft_text.whole(nft_rules.ruleset(life.policy())))
        assert held == (table(name), rules(name))
    for n in range(2 * TASKS):
        await life.network.detach(f"t{n}")
    for agent in reversed(life.agents):
        await agent.close()  # of one that was killed: its sockets and threads
