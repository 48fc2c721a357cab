"""What crun is told about one mount, and which mounts are refused before the host is touched. Pure."""

from __future__ import annotations

import posixpath
import re
from dataclasses import replace

from agent.kit.errors import UserError
from agent.kit.volume_options import Local, understand
from agent.ports import VolumeInfo
from agent.wire.messages import Mount

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,254}")


def checked_name(name: str | None) -> str:
    """A volume's name, safe as one path component; UserError bad-volume-name."""
    if name is None or not _NAME.fullmatch(name):
        raise UserError(
            f"cannot use volume {name!r}: a name begins with a letter or digit, then letters, digits, _ . -",
            code="bad-volume-name",
            hint="rename the volume in the Compose file",
        )
    return name


def info(stack: str, mount: Mount, now: float) -> VolumeInfo:
    """What is written of a volume that is made for this mount; UserError bad-volume-name."""
    name = checked_name(mount.source)
    return VolumeInfo(name, created=now, labels=mount.labels, options=mount.options, stack=stack, owner=mount.owner)


def local(info: VolumeInfo) -> Local:
    """UserError bad-volume-options."""
    try:
        return understand(info.options)
    except ValueError as error:
        raise UserError(
            f"cannot use volume {info.name}: {error}",
            code="bad-volume-options",
            hint="correct its driver_opts; gorae volume rm removes one that was made with others",
        ) from error


def check_same(mount: Mount, info: VolumeInfo) -> None:
    """UserError volume-differs: a volume keeps the options it was made with."""
    if not mount.external and dict(info.options) != mount.options:
        raise UserError(
            f"cannot use volume {info.name} as the file says: it was made with other driver_opts",
            code="volume-differs",
            hint=f"gorae volume inspect {info.name} shows them; gorae volume rm {info.name} removes it with its data",
        )


def renamed(info: VolumeInfo, name: str | None) -> VolumeInfo:
    """A restored volume under another name is no stack's. UserError bad-volume-name."""
    if name in (None, info.name):
        checked_name(info.name)
        return info
    return replace(info, name=checked_name(name), stack="", owner="")


def check(mount: Mount) -> None:
    """Refuse, as UserError bad-mount, what could never be mounted: crun 1.8.1 takes some of it and does harm."""
    if not mount.target.startswith("/") or "\0" in mount.target or posixpath.normpath(mount.target).strip("/") == "":
        raise _bad(mount, "the target must be an absolute path below /")
    if mount.kind == "volume":
        checked_name(mount.source)
        if mount.subpath is not None and (".." in mount.subpath.split("/") or mount.subpath.startswith("/")):
            raise _bad(mount, f"the subpath {mount.subpath!r} leads out of the volume")
    elif mount.kind == "bind" and (not mount.source or not mount.source.startswith("/") or "\0" in mount.source):
        raise _bad(mount, f"the source {mount.source!r} must be an absolute path of the host")


def _bad(mount: Mount, why: str) -> UserError:
    return UserError(
        f"cannot mount at {mount.target!r}: {why}", code="bad-mount", hint="correct `volumes:` of the service"
    )


def bind_options(mount: Mount, host: tuple[str, ...] = ()) -> tuple[str, ...]:
    """For a bind or volume. `host`: flags of the host's own mount (ro, noexec …). In the container's user namespace
    they are locked, so a remount that leaves one out is refused (mount_namespaces(7))."""
    access = "ro" if mount.read_only or "ro" in host else "rw"
    propagation = "rprivate" if mount.propagation == "private" else "rslave"
    return ("rbind", access, "nosuid", "nodev", propagation, *(flag for flag in host if flag != "ro"))


def tmpfs_options(mount: Mount) -> tuple[str, ...]:
    """tmpfs(5); the flags are Docker's defaults."""
    options = ["nosuid", "nodev", "noexec", "ro" if mount.read_only else "rw"]
    if mount.size is not None:
        options.append(f"size={mount.size}")
    options.append(f"mode={0o1777 if mount.mode is None else mount.mode:o}")
    return tuple(options)
