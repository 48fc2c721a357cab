"""A network in memory: what is attached and published can be read back, and a call can be made to fail once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from agent.decide import hosts
from agent.ports import Attachment, NameFiles, Serving


class FakeNetwork:
    """`attached`, `published`, `files` are the world; `failures`: method → the error its next call raises."""

    def __init__(self) -> None:
        self.attached: dict[str, Attachment] = {}
        self.published: dict[str, Serving] = {}
        self.files: dict[Path, str] = {}
        self.failures: dict[str, Exception] = {}
        self.closed = False
        self.connections: dict[str, int] = {}  # address → open ones

    def _maybe_fail(self, method: str) -> None:
        if error := self.failures.pop(method, None):
            raise error

    async def attach(self, attachment: Attachment) -> None:
        self._maybe_fail("attach")
        if attachment.networks:
            self.attached[attachment.task] = attachment
        else:
            self.attached.pop(attachment.task, None)

    async def detach(self, task: str) -> None:
        self._maybe_fail("detach")
        self.attached.pop(task, None)
        self.published.pop(task, None)
        self.files = {path: text for path, text in self.files.items() if path.parent.name != task}

    async def publish(self, task: str, serving: Serving) -> None:
        self._maybe_fail("publish")
        if serving.ports or serving.virtual:
            self.published[task] = serving
        else:
            self.published.pop(task, None)

    async def open(self, address: str) -> int:
        self._maybe_fail("open")
        return self.connections.get(address, 0)

    async def names(
        self,
        task: str,
        hostname: str,
        address: str,
        peers: Mapping[str, tuple[str, ...]],
        *,
        address_6: str = "",
        domain: str = "",
        search: Sequence[str] | None = None,
        options: Sequence[str] = (),
        servers: Sequence[str] | None = None,
    ) -> NameFiles:
        self._maybe_fail("names")
        base = Path("/fake") / task
        files = NameFiles(base / "hosts", base / "resolv.conf", base / "hostname")
        self.files[files.hosts] = hosts.hosts(hostname, address, peers, domain, address_6)
        host = "nameserver 192.0.2.53\n"
        self.files[files.resolv] = (
            hosts.resolv(host, search, options)
            if servers is None
            else hosts.host_resolv(host, servers, search, options)
        )
        self.files[files.hostname] = f"{hostname}\n"
        return files

    async def list(self) -> frozenset[str]:
        self._maybe_fail("list")
        return frozenset(self.attached) | frozenset(self.published)

    async def close(self) -> None:
        self._maybe_fail("close")
        self.closed = True
