"""net.ipv4.ip_forward, and its like of IPv6: switched on when the first task of the host needs it, put back when the
last instance is gone.

The registry, one small file for all instances of a host, says what was before us and who needs it now. It is written
before the sysctl. It belongs to one boot: the sysctl does not outlive it either.

A host that forwards IPv6 no longer listens to its routers, and drops the default route they gave it, unless the link's
accept_ra is 2. So where a router has been heard, that is set before, and put back after. And each of the two switches
sets others without being asked (the forwarding of every link; accept_redirects, which hardened hosts have off): those
are put back after it was switched off.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

REGISTRY = Path("/run/gorae-forwarding.json")
IPV4 = Path("/proc/sys/net/ipv4/ip_forward")
IPV6 = Path("/proc/sys/net/ipv6/conf/all/forwarding")
_CONF, _CONF_6 = Path("/proc/sys/net/ipv4/conf"), Path("/proc/sys/net/ipv6/conf")
_ROUTES_6 = Path("/proc/thread-self/net/ipv6_route")
_ADDRCONF = 0x40000  # RTF_ADDRCONF, linux/ipv6_route.h: a router said so
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class Forwarding:
    def __init__(self, instance: str, registry: Path = REGISTRY, sysctl: Path = IPV4) -> None:
        """`registry`: a file per sysctl."""
        self._instance = instance
        self._registry = registry
        self._sysctl = sysctl

    def require(self) -> bool:
        """Forwarding is on when this returns. True: the host forwarded before any instance asked. A host that has no
        IPv6 (booted with ipv6.disable=1) does not forward it."""
        if not self._read():
            return False
        with self._locked() as (before, instances, undo):
            before = before if instances else self._read()
            off = self._read() != "1"
            deaf = _would_be_deaf() if off and self._sysctl == IPV6 else []
            if self._instance not in instances or off:
                undo |= self._dragged() if off and before == "0" else {}
                undo |= {str(_CONF_6 / link / "accept_ra"): ("2", "1") for link in deaf}
                self._save(before, sorted({*instances, self._instance}), undo)
            for link in deaf:
                _write(_CONF_6 / link / "accept_ra", "2")
            if off:
                self._sysctl.write_text("1")
        return before == "1"

    def _dragged(self) -> dict[str, tuple[str, str]]:
        """Path → (what it will be once forwarding is switched off again, what it is), where these differ."""
        conf = _CONF if self._sysctl == IPV4 else _CONF_6
        found = {path: "0" for path in conf.glob("*/forwarding") if path.parent.name != "all"}
        if self._sysctl == IPV4:
            found[_CONF / "all/accept_redirects"] = "1"
        now = {path: _read(path) for path in found}
        return {str(path): (off, now[path]) for path, off in found.items() if now[path] not in ("", off)}

    def release(self, alive: Callable[[str], bool]) -> None:
        """This instance needs it no more. `alive` says of another whether it still does (one may have died without a
        word). When none is left and it was off before us and is still on, it is switched off."""
        with self._locked() as (before, instances, undo):
            if self._instance not in instances:
                return
            left = [other for other in instances if other != self._instance and alive(other)]
            if left:
                self._save(before, left, undo)
                return
            if before == "0" and self._read() == "1":
                self._sysctl.write_text("0")
                for path, (ours, value) in undo.items():
                    if _read(Path(path)) == ours:
                        _write(Path(path), value)
            self._registry.unlink(missing_ok=True)

    def changes(self) -> list[str]:
        """Of what this instance needed: "net.ipv4.ip_forward: 0 → 1". Put back when the last container is gone."""
        with self._locked() as (before, instances, undo):
            if self._instance not in instances or before != "0":
                return []
            listening = [Path(path) for path in undo if path.endswith("/accept_ra")]
            return [f"{_name(self._sysctl)}: 0 → 1", *(f"{_name(path)}: 1 → 2" for path in listening)]

    @contextmanager
    def _locked(self) -> Iterator[tuple[str, list[str], dict[str, tuple[str, str]]]]:
        self._registry.parent.mkdir(parents=True, exist_ok=True)
        lock = os.open(self._registry.with_suffix(".lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield self._load()
        finally:
            os.close(lock)

    def _load(self) -> tuple[str, list[str], dict[str, tuple[str, str]]]:
        """(before, instances, what to put back: path → (if it is this, to that))."""
        try:
            entry = json.loads(self._registry.read_text())
            if entry["boot"] == _BOOT_ID.read_text().strip():
                undo = {str(path): (str(ours), str(value)) for path, (ours, value) in entry.get("undo", {}).items()}
                return str(entry["before"]), [str(instance) for instance in entry["instances"]], undo
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            pass  # none, or torn by a power cut: as after a boot
        return self._read(), [], {}

    def _save(self, before: str, instances: list[str], undo: dict[str, tuple[str, str]]) -> None:
        temporary = self._registry.with_suffix(".tmp")
        boot = _BOOT_ID.read_text().strip()
        temporary.write_text(json.dumps({"boot": boot, "before": before, "instances": instances, "undo": undo}))
        temporary.replace(self._registry)

    def _read(self) -> str:
        return _read(self._sysctl)


def deafened(routes: str, accept: Callable[[str], str]) -> list[str]:
    """Links on which a router was heard (`routes`: proc(5)'s net/ipv6_route) that would not be heard any more if the
    host forwarded. `accept`: a link's accept_ra."""
    rows = [line.split() for line in routes.splitlines()]
    return sorted({row[9] for row in rows if int(row[8], 16) & _ADDRCONF and accept(row[9]) == "1"})


def _name(path: Path) -> str:
    return ".".join(path.parts[3:])


def _would_be_deaf() -> list[str]:
    return deafened(_read(_ROUTES_6), lambda link: _read(_CONF_6 / link / "accept_ra"))


def _read(path: Path) -> str:
    """ "" where there is none: the link is gone, or the host has no IPv6."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _write(path: Path, value: str) -> None:
    with suppress(FileNotFoundError):  # the link is gone
        path.write_text(value)
