"""Fixtures of the host tests: real daemons, real containers, images made from the distribution's packages."""

from __future__ import annotations

import contextlib
import json
import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host import CLONE, Host, until
from tests.support.leaks import leftovers, snapshot

CACHE = Path("/var/cache/gorae/images")
NAMES = {"busybox": "gorae/busybox:1", "redis": "gorae/redis:7", "web": "gorae/visits-web:1"}
LARGE = {"postgres": "gorae/postgres:1"}  # for the tests that ask for it


def sample_tars(*kinds: str) -> dict[str, Path]:
    """Root file systems of the sample images, made once per machine."""
    CACHE.mkdir(parents=True, exist_ok=True)
    for kind in kinds or NAMES:
        subprocess.run([str(CLONE / "deploy/images/build"), kind, str(CACHE / f"{kind}.tar")], check=True, timeout=300)
    return {kind: CACHE / f"{kind}.tar" for kind in kinds or NAMES}


@pytest.fixture(scope="session")
def tars() -> dict[str, Path]:
    return sample_tars()


def import_images(host: Host, tars: dict[str, Path], *kinds: str) -> None:
    for kind in kinds or NAMES:
        host.cli("image", "import", str(tars[kind]), "--config", f"{tars[kind]}.json", (NAMES | LARGE)[kind])


@pytest.fixture(scope="session")
def shared(tars: dict[str, Path]) -> Iterator[Host]:
    """One gorae for all tests that do not hurt it; each test uses stack names of its own."""
    with Host() as host:
        import_images(host, tars)
        yield host


@contextlib.contextmanager
def host_on_a_disk(size: int) -> Iterator[Host]:
    """A gorae, not started, whose disk has `size` bytes; not a tmpfs, whose ids cannot be mapped before Linux 6.3."""
    root = Path(f"/tmp/g-{secrets.token_hex(4)}")
    root.mkdir(mode=0o755)
    disk = root.with_suffix(".ext4")
    with disk.open("wb") as blank:
        blank.truncate(size)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", str(disk)], check=True)
    subprocess.run(["mount", "-o", "loop", str(disk), str(root)], check=True)
    host = Host(root)
    try:
        yield host
    finally:
        with contextlib.suppress(AssertionError):
            host.stop()
        host.destroy()
        subprocess.run(["umount", "-l", str(root)], check=False)
        disk.unlink()
        with contextlib.suppress(OSError):
            root.rmdir()


def service(command: str, *lines: str) -> str:
    """A Compose file of one service, app, whose shell runs `command`; `lines`: more of its keys."""
    text = f"""
services:
  app:
    image: gorae/busybox:1
    command: ["sh", "-c", {json.dumps(command)}]
    stop_grace_period: 100ms
"""
    return text + "".join(f"    {line}\n" for line in lines)


@pytest.fixture
def own(tars: dict[str, Path]) -> Iterator[Host]:
    """A gorae of the test's own, to be hurt; afterwards nothing of it may be left on the host."""
    before = snapshot()
    host = Host()
    try:
        host.start()
        import_images(host, tars)
        yield host
        if host.supervisor is None:
            host.start()
        for stack in host.get("/v1/stacks")["stacks"]:
            host.down(stack["name"], "--volumes")
        host.stop()
        instance = host.instance
        # What was killed last may be on its way out of the kernel still, which writes to the disk what it had written.
        until(
            lambda: not leftovers(instance, host.root, before),
            "the host to be as it was",
            patience=20.0,
            tell=lambda: json.dumps(leftovers(instance, host.root, before), indent=1),
        )
    finally:
        host.destroy()
