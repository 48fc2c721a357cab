"""Whom to ask what is not ours, in which order: a task's own servers, or the host's resolv.conf(5).

`now` is an argument. The host's file is read again when it has changed: a machine that moves between networks gets
another one.
"""

from __future__ import annotations

import os
import socket

MOST = 6
SULK = 10.0  # seconds for which one that did not answer comes last


class Servers:
    def __init__(self, path: str = "/etc/resolv.conf") -> None:
        self._path = path
        self._known: tuple[int, int] | None = None
        self._host: tuple[str, ...] = ()
        self._looked = -1.0
        self._failed: dict[str, float] = {}

    def order(self, own: tuple[str, ...], now: float) -> list[str]:
        """Those that answered of late before those that did not; each part in the order it was given in."""
        servers = own or self._of_host(now)
        self._failed = {server: at for server, at in self._failed.items() if now - at < SULK}
        return sorted(servers[:MOST], key=lambda server: server in self._failed)

    def failed(self, server: str, now: float) -> None:
        self._failed[server] = now

    def answered(self, server: str) -> None:
        self._failed.pop(server, None)

    def _of_host(self, now: float) -> tuple[str, ...]:
        if now - self._looked >= 1.0 or self._looked < 0:
            self._looked = now
            try:
                status = os.stat(self._path)  # noqa: PTH116
                known = (status.st_mtime_ns, status.st_ino)
                if known != self._known:
                    with open(self._path, errors="replace") as file:  # noqa: PTH123
                        self._host = nameservers(file.read())
                    self._known = known
            except OSError:
                pass  # between two writes of somebody: what was known stays
        return self._host


def nameservers(text: str) -> tuple[str, ...]:
    """Addresses of its "nameserver" lines; none means this host, as resolv.conf(5) says. A zone ("%eth0") is kept."""
    words = [line.split() for line in text.splitlines()]
    found = tuple(w[1] for w in words if len(w) > 1 and w[0] == "nameserver" and family(w[1]) is not None)
    return found or ("127.0.0.1",)


def family(server: str) -> int | None:
    for kind, text in ((socket.AF_INET, server), (socket.AF_INET6, server.partition("%")[0])):
        try:
            socket.inet_pton(kind, text)
        except OSError:
            continue
        return int(kind)
    return None
