"""Fixtures of the host tests: real daemons, real containers, images made from the distribution's packages."""

from __future__ import annotations

import json
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
