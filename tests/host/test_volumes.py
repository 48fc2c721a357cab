"""Volumes with real containers: whose data stays, whose goes, and what holds a container back."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
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


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A mount of the host that passes on what is mounted below it."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "disk", str(path)], check=True)
    subprocess.run(["mount", "--make-shared", str(path)], check=True)
    (path / "usb").mkdir()
    yield path
    subprocess.run(["umount", "-R", "-l", str(path)], check=True)


@pytest.mark.parametrize("propagation", ["rslave", "rshared"])
def test_a_mount_of_the_host_appears_in_the_container(shared: Host, disk: Path, propagation: str) -> None:
    wait = "until test -e /disk/usb/file; do sleep 0.05; done; echo seen; sleep 3600"
    shared.up(f"prop-{propagation}", service(wait, f"volumes: ['{disk}:/disk:{propagation}']"))
    try:
        subprocess.run(["mount", "-t", "tmpfs", "usb", str(disk / "usb")], check=True)
        (disk / "usb/file").touch()
        said(shared, f"prop-{propagation}", "seen")
    finally:
        shared.down(f"prop-{propagation}")


def test_without_propagation_it_does_not(shared: Host, disk: Path) -> None:
    shared.up("prop", service("sleep 3600", f"volumes: ['{disk}:/disk']"))
    (pid,) = shared.pids("prop").values()
    subprocess.run(["mount", "-t", "tmpfs", "usb", str(disk / "usb")], check=True)
    (disk / "usb/file").touch()
    assert not Path(f"/proc/{pid}/root/disk/usb/file").exists()
    shared.down("prop")


def test_a_service_takes_the_volumes_of_another(shared: Host) -> None:
    text = """
services:
  one:
    image: gorae/busybox:1
    command: ["sh", "-c", "echo named > /named/x; echo anon > /anon/x; sleep 3600"]
    stop_grace_period: 100ms
    volumes: ["data:/named", "/anon"]
  two:
    image: gorae/busybox:1
    command: ["sh", "-c", "until cat /named/x /anon/x; do sleep 0.05; done; touch /anon/y || echo refused; sleep 3600"]
    stop_grace_period: 100ms
    volumes_from: ["one:ro"]
volumes: {data: {}}
"""
    shared.up("from", text)
    said(shared, "from", "refused")
    assert {"named", "anon"} <= set(shared.cli("logs", "from/two").stdout.replace("|", " ").split())
    shared.down("from", "--volumes")


def test_volumes_on_a_folder_in_memory_and_in_part(shared: Host, tmp_path: Path) -> None:
    (tmp_path / "device").mkdir()
    (tmp_path / "device/part").mkdir()
    command = "touch /all/a /part/b /memory/c; df -k /memory | tail -1; sleep 3600"
    text = service(
        command,
        'volumes: ["folder:/all", "memory:/memory", {type: volume, source: folder, target: /part, volume: {subpath: part}}]',
    )
    text += f"""volumes:
  folder: {{driver: local, driver_opts: {{type: none, o: bind, device: "{tmp_path / "device"}"}}}}
  memory: {{driver_opts: {{type: tmpfs, device: tmpfs, o: "size=1m"}}}}
"""
    shared.up("kinds", text)
    until(
        lambda: (tmp_path / "device/part/b").exists(),
        "the container to write",
        tell=lambda: shared.cli("logs", "kinds").stdout,
    )
    assert (tmp_path / "device/a").exists()
    said(shared, "kinds", " 1024 ")
    refused = shared.up("kinds", text.replace("type: none, o: bind", "type: none, o: 'bind,ro'"), check=False)
    assert (
        refused.returncode == 1
        and "cannot start kinds: the volume kinds_folder was made with other driver_opts" in refused.stderr
    )
    shared.down("kinds", "--volumes")
    assert (tmp_path / "device/a").exists(), "a folder of the host is not gorae's to delete"
    assert "kinds_memory" not in volumes(shared)


def test_an_external_volume_that_is_not_there(shared: Host) -> None:
    text = service("sleep 3600", "volumes: ['data:/data']") + "volumes: {data: {external: true, name: mine}}\n"
    refused = shared.up("ext", text, check=False)
    assert (
        refused.returncode == 1
        and "cannot start ext: the volume mine is external, and does not exist" in refused.stderr
    )
    assert "gorae volume create mine" in refused.stderr
    assert "ext" not in shared.cli("ls").stdout
