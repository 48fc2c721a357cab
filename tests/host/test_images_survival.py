"""The agent killed at any moment of a pull or an unpack, and a disk that fills in the middle: the store stays whole."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.conftest import host_on_a_disk, import_images
from tests.support.host import CLI, Host, until
from tests.support.images import Item, MadeImage, Registry, file, image, layer, registry

pytestmark = pytest.mark.host

SLEEPER = """
services:
  app: {image: "gorae/busybox:1", command: [sh, -c, "while :; do date > /beat; sleep 0.1; done"], restart: always, stop_grace_period: 100ms}
"""


@pytest.fixture(scope="module")
def hub() -> Iterator[Registry]:
    with registry() as running:
        yield running


def several(dice: random.Random) -> list[MadeImage]:
    """Three images with a layer in common; large files, which take time to fetch, and many small ones, to unpack."""
    common = layer(Item("common", content=dice.randbytes(4_000_000)))
    many = layer(*(file(f"many/{number}", "x" * 40) for number in range(4000)))
    own = [layer(Item(f"own-{number}", content=dice.randbytes(2_000_000))) for number in range(3)]
    return [image(common, raw, many, compression=how) for raw, how in zip(own, ("gzip", "plain", "zstd"), strict=True)]


@pytest.mark.parametrize("rounds", [pytest.param(3, id="three-rounds")])
def test_kill_9_of_the_agent_while_it_pulls(
    own: Host, hub: Registry, rounds: int, request: pytest.FixtureRequest
) -> None:
    rounds = request.config.getoption("--rounds") or rounds
    dice = random.Random(request.config.getoption("--seed"))
    own.up("shop", SLEEPER)
    pids = own.pids("shop")
    made = several(dice)
    names = [hub.push(f"killed/{number}", "1", one) for number, one in enumerate(made)]
    lasting, whole, cut = _pull(own, names), 0, 0
    for _ in range(rounds):
        own.cli("image", "rm", *names)
        pulls = [_started(own, name) for name in names]
        time.sleep(dice.random() * lasting * 1.1)
        own.kill_daemon("agent")
        for pull in pulls:
            pull.communicate(timeout=60)
        until(lambda: own.cli("image", "ls", check=False).returncode == 0, "the agent to be back", tell=own.log)
        verdict = json.loads(own.cli("image", "fsck", "--json").stdout)
        assert verdict["problems"] == []
        assert not list((own.root / "state/images/tmp").iterdir())
        whole, cut = (whole + 1, cut) if verdict["images"] == 4 else (whole, cut + 1)
        assert own.pids("shop") == pids
        _pull(own, names)
        listed = {row["id"] for row in json.loads(own.cli("image", "ls", "--json").stdout)["images"]}
        assert {one.id for one in made} <= listed
    print(f"{rounds} kills: {cut} in the middle, {whole} after the last image had come; every check passed")


def _started(host: Host, name: str) -> subprocess.Popen[str]:
    nothing, asked = subprocess.DEVNULL, [*CLI, "image", "pull", name]
    return subprocess.Popen(asked, env=host.env, stdin=nothing, stdout=nothing, stderr=subprocess.PIPE, text=True)


def _pull(host: Host, names: list[str]) -> float:
    """All at once; how long it took."""
    began = time.monotonic()
    for pull in [_started(host, name) for name in names]:
        _, said = pull.communicate(timeout=60)
        assert pull.returncode == 0, said + host.log()[-4000:]
    return time.monotonic() - began


@pytest.fixture
def small(tars: dict[str, Path]) -> Iterator[Host]:
    """A gorae whose disk has 400 MB."""
    with host_on_a_disk(400_000_000) as host:
        host.start()
        import_images(host, tars, "busybox")
        yield host
        host.down("shop")
        host.stop()


@pytest.mark.parametrize("when", ["while unpacking", "while fetching"])
def test_a_disk_that_fills_in_the_middle_of_a_pull(small: Host, hub: Registry, when: str) -> None:
    small.up("shop", SLEEPER)
    (task,) = small.tasks("shop")
    before = shutil.disk_usage(small.root).free
    if when == "while unpacking":  # what comes packed is small; a program could not know what it becomes
        block = os.urandom(16_000)
        raw = layer(*(Item(f"block-{number}", content=block * 500) for number in range(60)))
        made, ballast = image(raw), 0
    else:  # packed it would fit, had nobody else written meanwhile
        made, ballast = image(layer(Item("x", content=os.urandom(90_000_000))), compression="plain"), 1
    name = hub.push(f"full/{ballast}", "1", made)
    pull = subprocess.Popen(
        [*CLI, "image", "pull", name], env=small.env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    )
    filler = small.root / "filler"
    if ballast:
        part = small.root / "state/images/tmp"
        until(lambda: any(path.stat().st_size > 1_000_000 for path in part.glob("pull-*/blob-*")), "the first bytes")
        with filler.open("wb") as file_:
            os.posix_fallocate(file_.fileno(), 0, shutil.disk_usage(small.root).free - 2_000_000)
    _, said = pull.communicate(timeout=60)
    filler.unlink(missing_ok=True)
    assert pull.returncode == 1
    assert said.startswith(f"cannot store {name if ballast else 'layer'}") and "\ntry  gorae image" in said, said
    until(lambda: shutil.disk_usage(small.root).free > before - 2_000_000, "the room to be free again")
    assert [row["names"] for row in json.loads(small.cli("image", "ls", "--json").stdout)["images"]] == [
        ["gorae/busybox:1"]
    ]
    assert json.loads(small.cli("image", "fsck", "--json").stdout)["problems"] == []
    (after,) = small.tasks("shop")
    assert (after["pid"], after["restarts"]) == (task["pid"], 0)
    beat = Path(f"/proc/{task['pid']}/root/beat")
    last = beat.stat().st_mtime_ns
    until(lambda: beat.stat().st_mtime_ns > last, "the container to go on writing")
