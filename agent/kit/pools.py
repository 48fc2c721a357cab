"""Slices of the host's address and uid pools, one per instance, registered under a lock in one host file.

Several instances (production, a developer's, the tests') live side by side: each has its own slice, so that no two ever
give out the same address or uid range. A slice whose root directory is gone is free again.
"""

from __future__ import annotations

import fcntl
import ipaddress
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.kit.errors import UserError

REGISTRY = Path("/var/lib/gorae-pools.json")
SLICES = 32
TASKS = 1024  # per slice
VIRTUALS = 1008  # virtual addresses per slice: what is left of its /21
UID_POOL = 0x7000_0000  # above systemd-nspawn's pool (ends 0x6FFF0000) and every /etc/subuid default
UID_RANGE = 65536
ADDRESS_POOL = "10.181.0.0/16"
ADDRESS_POOL_6 = "fd67:6f72:6165::/48"  # RFC 4193; the 40 bits that should be random spell gorae
GATEWAY = "169.254.1.1"  # the host's side of every veth


@dataclass(frozen=True, slots=True)
class Slice:
    """`pool`: a /16. Every address of the instance has a twin in IPv6, at the same place of `subnet_6`."""

    number: int
    pool: str = ADDRESS_POOL

    @property
    def subnet(self) -> str:
        """The /21 that holds every address of the instance: "10.181.8.0/21"."""
        base = int(ipaddress.ip_network(self.pool).network_address) + self.number * 2048
        return f"{ipaddress.ip_address(base)}/21"

    @property
    def subnet_6(self) -> str:
        """ "fd67:6f72:6165:1::/64"."""
        base = int(ipaddress.ip_network(ADDRESS_POOL_6).network_address) + (self.number << 64)
        return f"{ipaddress.ip_address(base)}/64"

    @property
    def gateway_6(self) -> str:
        """The host's side of every veth that has IPv6. Not fe80::1: what is translated to it must have a way back."""
        return str(ipaddress.ip_network(self.subnet_6).network_address + 1)

    def twin(self, address: str) -> str:
        """The IPv6 address of who has `address`. ValueError for one of another instance."""
        place = int(ipaddress.IPv4Address(address)) - int(ipaddress.ip_network(self.subnet).network_address)
        if not 0 <= place < 2048:
            raise ValueError(f"{address} is not in {self.subnet}")
        return str(ipaddress.ip_network(self.subnet_6).network_address + place)

    def address(self, index: int) -> str:
        """Of task `index`; the first 16 addresses of the subnet stay free for the instance itself. ValueError out of
        range: the next slice's addresses are another instance's."""
        _check(index)
        return str(ipaddress.ip_network(self.subnet).network_address + 16 + index)

    def virtual(self, number: int) -> str:
        """A service's address, above those of the tasks. ValueError out of range."""
        if not 0 <= number < VIRTUALS:
            raise ValueError(f"virtual address {number} is not below {VIRTUALS}")
        return str(ipaddress.ip_network(self.subnet).network_address + 16 + TASKS + number)

    @property
    def virtuals(self) -> str:
        """All of them, as a range: "10.181.12.16-10.181.15.255"."""
        return f"{self.virtual(0)}-{self.virtual(VIRTUALS - 1)}"

    @property
    def virtuals_6(self) -> str:
        return f"{self.twin(self.virtual(0))}-{self.twin(self.virtual(VIRTUALS - 1))}"

    @property
    def virtual_nets(self) -> tuple[str, str]:
        """The halves of both subnets with every virtual address, and those of the last sixteen tasks."""
        first = ipaddress.ip_network(self.subnet).network_address + TASKS
        return f"{first}/22", f"{self.twin(str(first))}/118"

    def uid_base(self, index: int) -> int:
        """The first of UID_RANGE ids of task `index`; the pool ends below 2^32. ValueError out of range."""
        _check(index)
        return UID_POOL + (self.number * TASKS + index) * UID_RANGE


def _check(index: int) -> None:
    if not 0 <= index < TASKS:
        raise ValueError(f"allocation index {index} is not below {TASKS}")


def claim(
    instance: str,
    root: Path,
    registry: Path = REGISTRY,
    *,
    pool: str = ADDRESS_POOL,
    held: bool = False,
    routes: Sequence[str] = (),
) -> Slice:
    """This instance's slice, the same at every start. `root`: its state directory, with the instance's id in it.
    `held`: tasks have addresses of it. `routes`: networks of the host's own, which a first slice keeps clear of; one
    that comes later than tasks is `doctor`'s to name, since what runs must not be lost over it.

    UserError no-slice when all are taken; instance-copied when `root` is a copy of one that is still there: what runs
    of that one would pass for ours, and be ended; pool-held when `pool` is another than the tasks'; pool-overlaps.
    """
    with _locked(registry) as entries:
        mine = next((n for n, e in entries.items() if e["instance"] == instance), None)
        if mine is None:
            mine = _free(entries, registry, pool, routes)
        elif held and (before := entries[mine]["pool"]) != pool:
            raise UserError(
                f"cannot use {pool} as the pool of addresses: containers have addresses of {before}",
                code="pool-held",
                hint=f'set [network] pool back to "{before}", take every stack down, then change it',
            )
        elif not held and (route := _overlap(Slice(int(mine), pool), routes)):
            raise _overlapping(Slice(int(mine), pool).subnet, route)
        elif _lives(instance, original := Path(entries[mine]["root"])) and not original.samefile(root):
            raise UserError(
                f"cannot start: {root} is a copy of {original}, whose containers it would take for its own",
                code="instance-copied",
                hint=f"delete {root}/instance and {root}/agent to make it a gorae of its own, "
                f"or {original} if this is to take its place",
            )
        entries[mine] = {"instance": instance, "root": str(root), "pool": pool}
        return Slice(int(mine), pool)


def _overlap(slice_: Slice, routes: Sequence[str]) -> str:
    """The first of `routes` that leads to some address of the slice; "" for none."""
    for text in routes:
        network = ipaddress.ip_network(text)
        for subnet in map(ipaddress.ip_network, (slice_.subnet, slice_.subnet_6)):
            if network.version == subnet.version and network.overlaps(subnet):
                return text
    return ""


def _overlapping(addresses: str, route: str) -> UserError:
    return UserError(
        f"cannot give containers addresses of {addresses}: the host has a route to {route}",
        code="pool-overlaps",
        hint='name another /16 in gorae.toml: [network] pool = "10.77.0.0/16"',
    )


def _free(entries: Mapping[str, Mapping[str, str]], registry: Path, pool: str, routes: Sequence[str]) -> str:
    """One that nobody ever had, before one whose root is gone: that may be on a disk that is not mounted yet."""
    numbers = list(map(str, range(SLICES)))
    never = (number for number in numbers if number not in entries)
    gone = (number for number in numbers if number in entries and not Path(entries[number]["root"]).exists())
    found = [*never, *gone]
    for number in found:
        if not _overlap(Slice(int(number), pool), routes):
            return number
    if found:
        raise _overlapping(pool, _overlap(Slice(int(found[0]), pool), routes))
    raise UserError(
        f"cannot give this instance addresses: all {SLICES} slices in {registry} are taken",
        code="no-slice",
        hint="remove the entry of an instance that is gone",
    )


def _lives(instance: str, root: Path) -> bool:
    try:
        return (root / "instance").read_text().strip() == instance
    except OSError:
        return False


def release(instance: str, registry: Path = REGISTRY) -> None:
    with _locked(registry) as entries:
        for number in [n for n, e in entries.items() if e["instance"] == instance]:
            del entries[number]


class _locked:
    """The registry's entries, written back atomically when the block ends without an exception."""

    def __init__(self, registry: Path) -> None:
        self._registry = registry

    def __enter__(self) -> dict[str, dict[str, str]]:
        self._registry.parent.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(self._registry.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        try:
            self._entries = _load(self._registry)
        except BaseException:
            os.close(self._lock)
            raise
        return self._entries

    def __exit__(self, kind: object, *_: object) -> None:
        try:
            if kind is None:
                temporary = self._registry.with_suffix(".tmp")
                with temporary.open("w") as file:
                    file.write(json.dumps(self._entries, indent=1))
                    file.flush()
                    os.fsync(file.fileno())  # an empty registry after a power cut would forget who has what
                temporary.replace(self._registry)
        finally:
            os.close(self._lock)


def _load(registry: Path) -> dict[str, dict[str, str]]:
    """Empty when there is none. UserError bad-registry: to begin anew would give out what others hold."""
    try:
        document = json.loads(registry.read_text())
        return {
            str(int(n)): {
                "instance": str(e["instance"]),
                "root": str(e["root"]),
                "pool": str(e.get("pool", ADDRESS_POOL)),
            }
            for n, e in document.items()
        }
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"cannot read {registry}: {error!r}",
            code="bad-registry",
            hint="restore it, or delete it while no container of any gorae runs",
        ) from error
