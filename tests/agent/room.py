"""A place on the host for tests of real mounts and namespaces: own directory, own ids, nothing left behind."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from agent.kit import mounts
from agent.kit.layout import Layout
from agent.kit.pools import UID_POOL
from agent.ports import UID_RANGE, ImageConfig, Sandbox

# What an entry of a layer may be: text of a file, None for a directory, or a function that makes something odd at a path.
Entries = Mapping[str, str | Callable[[Path], object] | None]


_APPLETS = (
    "sh",
    "cat",
    "chmod",
    "chown",
    "cp",
    "ln",
    "ls",
    "mkdir",
    "mkfifo",
    "mv",
    "rm",
    "rmdir",
    "sleep",
    "stat",
    "touch",
)


@dataclass
class Room:
    layout: Layout
    root: Path
    base: int  # first host id of the first task
    children: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def uid_base(self, index: int = 0) -> int:
        return self.base + index * UID_RANGE

    def image(self, *layers: Entries) -> ImageConfig:
        """An unpacked image of these layers, lowest first."""
        digests = []
        for number, entries in enumerate(layers):
            digest = hashlib.sha256(f"{number}{sorted(entries)}{os.urandom(8).hex()}".encode()).hexdigest()
            make_tree(self.layout.images / "layers" / digest, entries)
            digests.append(f"sha256:{digest}")
        return ImageConfig(id="sha256:" + "0" * 64, layers=tuple(digests))

    def busybox(self) -> Entries:
        """A layer with /bin/sh and what it needs to run."""
        shell = shutil.which("busybox") or "/bin/busybox"
        needed = subprocess.run(["ldd", shell], capture_output=True, text=True, check=False).stdout  # static: none
        files = {shell, *re.findall(r"/\S+(?= \(0x)", needed)}
        entries: dict[str, str | Callable[[Path], object] | None] = {
            **{f"bin/{name}": lambda path: path.symlink_to("busybox") for name in _APPLETS},
            "tmp": lambda path: path.mkdir(mode=0o1777),
        }
        for file in files:
            name = "bin/busybox" if file == shell else file.lstrip("/")
            entries[name] = lambda path, file=file: shutil.copy(file, path)  # type: ignore[misc]
        return entries

    def shell(self, sandbox: Sandbox, rootfs: Path, script: str) -> str:
        """Output of a script run as the task's root, chrooted to its root file system (no runtime, no /proc)."""
        done = self.inside(sandbox, "chroot", str(rootfs), "/bin/busybox", "sh", "-ec", script)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def inside(self, sandbox: Sandbox, *argv: str, net: bool = False) -> subprocess.CompletedProcess[str]:
        """Run argv as root of the sandbox's user namespace (the host's files, seen with the task's ids)."""
        command = ["nsenter", f"--user={sandbox.user_ns}", "--setuid=0", "--setgid=0"]
        if net:
            command.append(f"--net={sandbox.net_ns}")
        return subprocess.run([*command, *argv], capture_output=True, text=True, check=False, timeout=20)


def make_tree(directory: Path, entries: Entries) -> None:
    directory.mkdir(parents=True)
    directory.chmod(0o755)
    for name, content in entries.items():
        path = directory / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(exist_ok=True)
        elif isinstance(content, str):
            path.write_text(content)
        else:
            content(path)


@contextmanager
def room() -> Iterator[Room]:
    root = Path(f"/tmp/g-{os.urandom(4).hex()}")
    root.mkdir(mode=0o755)
    layout = Layout.at(root)
    place = Room(layout, root, UID_POOL + random.randrange(30_000) * UID_RANGE)
    try:
        yield place
    finally:
        for point in mounts.points(root):  # detaching one takes all that is mounted below it
            mounts.detach(point)
        shutil.rmtree(root)


def host_facts() -> tuple[str, ...]:
    """What must be the same before and after: mounts, loopback, sysctls of the host. Places where other tests that run
    at the same time mount things, and links that come and go with them, are left out."""
    table = Path("/proc/self/mountinfo").read_text().splitlines()
    kept = [line for line in table if not line.split()[4].startswith(("/tmp/", "/run/"))]
    facts = ["/proc/sys/net/ipv4/ip_unprivileged_port_start", "/proc/sys/net/ipv4/ping_group_range"]
    facts += ["/sys/class/net/lo/flags", "/proc/self/uid_map"]
    return (*kept, *(Path(fact).read_text() for fact in facts))
