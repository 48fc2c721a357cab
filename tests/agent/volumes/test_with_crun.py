"""Sandbox, root file system and volumes together under the real runtime: what the container sees, whatever crun's version."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from agent.ports import BindSource, Sandbox
from agent.rootfs.overlay import OverlayRootfs
from agent.sandbox.sandboxes import PinnedSandboxes
from agent.volumes.volumes import HostVolumes
from agent.wire.messages import Mount
from tests.agent.room import Room

pytestmark = pytest.mark.host


def config(rootfs: Path, sandbox: Sandbox, binds: tuple[BindSource, ...], script: str, uid: int) -> dict[str, Any]:
    ids = [{"containerID": 0, "hostID": sandbox.uid_base, "size": 65536}]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": uid, "gid": uid},
            "args": ["/bin/sh", "-ec", script],
            "env": ["PATH=/bin"],
            "cwd": "/",
            "noNewPrivileges": True,
        },
        "root": {"path": str(rootfs), "readonly": False},
        "hostname": "test",
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["ro", "nosuid", "nodev", "noexec"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
            *(
                {
                    "destination": bound.mount.target,
                    "type": "tmpfs" if bound.source == "tmpfs" else "bind",
                    "source": bound.source,
                    "options": list(bound.options),
                }
                for bound in binds
            ),
        ],
        "linux": {
            "uidMappings": ids,
            "gidMappings": ids,
            "namespaces": [
                {"type": "user", "path": str(sandbox.user_ns)},
                {"type": "network", "path": str(sandbox.net_ns)},
                *({"type": kind} for kind in ("pid", "ipc", "uts", "mount")),
            ],
        },
    }


async def run(room: Room, document: dict[str, Any]) -> str:
    bundle = room.layout.run_tasks / "t1" / "1"
    bundle.mkdir(exist_ok=True)
    (bundle / "config.json").write_text(json.dumps(document))
    process = await asyncio.create_subprocess_exec(
        *("crun", f"--root={room.root}/crun", "--cgroup-manager=disabled"),
        *("run", f"--bundle={bundle}", f"test-{os.urandom(4).hex()}"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output = (await process.communicate())[0].decode()
    assert process.returncode == 0, output
    return output


@pytest.mark.parametrize("uid", [0, 999], ids=["root", "unprivileged"])
async def test_a_container_over_all_three(host_room: Room, sandboxes: PinnedSandboxes, uid: int) -> None:
    source, hosts = host_room.root / "source", host_room.root / "private" / "conf"
    source.mkdir()
    (source / "owned").touch()
    hosts.parent.mkdir(mode=0o700)  # the container's root could not pass here by itself
    hosts.write_text("setting\n")

    def data(path: Path) -> None:
        path.mkdir()
        path.chmod(0o777)  # this container has no capabilities, its root cannot override
        os.chown(path, 999, 999)
        (path / "readme").write_text("from the image\n")

    sandbox = await sandboxes.ensure("t1", host_room.base)
    image = host_room.image(host_room.busybox(), {"data": data})
    rootfs = await OverlayRootfs(host_room.layout).ensure("t1", image, sandbox)
    mounts = [
        Mount(kind="volume", source="data", target="/data"),
        Mount(kind="bind", source=str(source), target="/deep/new/source"),
        Mount(kind="bind", source=str(hosts), target="/etc/conf", read_only=True),
        Mount(kind="tmpfs", target="/cache", size=1 << 20, mode=0o1777),
    ]
    binds = await HostVolumes(host_room.layout).ensure("shop", mounts, sandbox, rootfs)
    script = """
        cat /data/readme /etc/conf
        echo mine > /data/written
        stat -c '%n %u' /data /data/written /deep/new/source/owned /etc/conf /proc/self/stat
        ls /sys/class/net
        ! (echo x > /etc/conf) 2>/dev/null
        touch /cache/x
        cat /proc/self/uid_map
    """
    said = await run(host_room, config(rootfs, sandbox, binds, script, uid))
    assert said.split("\n")[:-2] == [
        "from the image",
        "setting",
        "/data 999",
        f"/data/written {uid}",
        "/deep/new/source/owned 0",
        "/etc/conf 0",
        f"/proc/self/stat {uid}",
        "lo",  # the container's own /sys, not the host's
    ]
    assert said.split()[-3:] == ["0", str(host_room.base), "65536"]
    assert (host_room.layout.volumes / "data" / "_data" / "written").stat().st_uid == uid
