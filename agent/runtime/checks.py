"""What is checked of a container between `crun create` and its start, from outside, trusting nothing inside.

Two holes of crun ≤ 1.8.1 and of configuration are closed here: a /sys that is the host's (crun falls back to binding it
when the network namespace is not owned by the container's user namespace), and a working directory that leads out of
the container through /proc/self/fd/N.
"""

from __future__ import annotations

import os
from pathlib import Path

from agent.kit.errors import Permanent


def rootfs(path: Path) -> None:
    """Permanent bad-rootfs: an image whose /proc, /sys or /dev is a symlink would aim crun's mounts elsewhere."""
    for name in ("proc", "sys", "dev"):
        inside = path / name
        if inside.is_symlink() or (inside.exists() and not inside.is_dir()):
            raise Permanent(
                f"cannot use this image: its /{name} is not a directory",
                code="bad-rootfs",
                hint="rebuild the image with a plain directory there, or leave it out",
            )


def created(pid: int, name: str, *, in_host: bool) -> None:
    """Raises Permanent host-sysfs or bad-workdir; `pid` waits in `crun create`'s last line, its mounts are made.
    `in_host`: it is in the host's network, and its /sys the host's, read-only."""
    host = Path("/sys").stat().st_dev
    mounts: set[str] = set()
    for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        number, _, device, _, point, options, *_ = left.split()
        mounts.add(number)
        if in_host and (point == "/sys" or point.startswith("/sys/")) and "ro" not in options.split(","):
            raise Permanent(
                f"cannot start {name}: {point}, which is the host's, could be written to", code="host-sysfs"
            )
        if not in_host and right.split()[0] == "sysfs" and device == f"{os.major(host)}:{os.minor(host)}":
            raise Permanent(
                f"cannot start {name}: its /sys would be the host's",
                code="host-sysfs",
                hint="this is a bug: its network namespace is not owned by its user namespace",
            )
    if _mount_of_directory(pid) not in mounts:
        raise Permanent(
            f"cannot start {name}: its working directory leads out of the container",
            code="bad-workdir",
            hint="give working_dir as a plain absolute path inside the image",
        )


def directory_inside(pid: int) -> bool:
    """Whether the working directory of a process is on a mount that it sees. OSError: it has ended."""
    mounts = {line.split(None, 1)[0] for line in Path(f"/proc/{pid}/mountinfo").read_text().splitlines()}
    return _mount_of_directory(pid) in mounts


def _mount_of_directory(pid: int) -> str:
    cwd = os.open(f"/proc/{pid}/cwd", os.O_PATH | os.O_CLOEXEC)
    try:
        info = Path(f"/proc/self/fdinfo/{cwd}").read_text()
    finally:
        os.close(cwd)
    return next(line.split()[1] for line in info.splitlines() if line.startswith("mnt_id:"))
