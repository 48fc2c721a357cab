"""Volumes with real containers: whose data stays, whose goes, and what holds a container back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.host import Host, until

pytestmark = pytest.mark.host


def service(command: str, *lines: str) -> str:
    text = f"""
services:
  app:
    image: gorae/busybox:1
    command: ["sh", "-c", {json.dumps(command)}]
    stop_grace_period: 100ms
"""
    return text + "".join(f"    {line}\n" for line in lines)


COUNT = "echo x >> /data/x; wc -l < /data/x; sleep 3600"


def said(host: Host, stack: str, text: str) -> None:
    until(
        lambda: text in host.cli("logs", stack).stdout,
        f"{stack} to say {text!r}",
        tell=lambda: host.cli("logs", stack).stdout,
    )


def volumes(host: Host) -> dict[str, Path]:
    return {path.name: path / "_data" for path in (host.root / "state/volumes").glob("*")}


def made(host: Host, before: dict[str, Path]) -> Path:
    (name,) = volumes(host).keys() - before.keys()
    return volumes(host)[name]


def test_an_anonymous_volume_lives_as_long_as_its_slot(shared: Host) -> None:
    before = volumes(shared)
    text = service(COUNT, "volumes: [/data]")
    shared.up("anon", text)
    data = made(shared, before)
    said(shared, "anon", "1\n")
    shared.cli("restart", "anon")
    said(shared, "anon", "2\n")
    shared.cli("recreate", "anon")
    said(shared, "anon", "3\n")
    shared.up("anon", text + "    environment: {A: b}\n")
    said(shared, "anon", "4\n")
    assert volumes(shared).keys() - before.keys() == {data.parent.name}
    shared.down("anon")
    assert (data / "x").read_text() == "x\n" * 4, "down keeps data"
    shared.up("anon", text)
    assert len(volumes(shared).keys() - before.keys()) == 2, "a stack made anew begins with empty ones, as docker's"
    shared.down("anon", "--volumes")
    assert volumes(shared).keys() == before.keys()


def test_an_image_s_volume_is_filled_and_kept(shared: Host, tars: dict[str, Path], tmp_path: Path) -> None:
    config: dict[str, Any] = json.loads(Path(f"{tars['busybox']}.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "Volumes": {"/bin": {}, "/data": {}}}))
    shared.cli("image", "import", str(tars["busybox"]), "--config", str(tmp_path / "config.json"), "gorae/volumes:1")
    before = volumes(shared)
    shared.up("imgvol", service(COUNT).replace("busybox:1", "volumes:1"))
    new = [volumes(shared)[name] for name in volumes(shared).keys() - before.keys()]
    assert sorted(path.exists() for data in new for path in [data / "busybox"]) == [False, True]
    shared.cli("recreate", "imgvol")
    said(shared, "imgvol", "2\n")
    shared.down("imgvol", "--volumes")
    assert volumes(shared).keys() == before.keys()
