"""One overlay mount: image layers, idmapped for the task, below a writable layer. Nothing here knows about tasks.

An overlay that is already merged cannot be idmapped, so each layer is, as a detached clone that never enters the mount
table. Kernels from 6.13 take those clones by descriptor, older ones (Debian 12: 6.1) only by a path in the mount
table: there they are attached for a moment and named by /proc/self/fd, which keeps the option string short (more than a
page of it fails with ENOENT).
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from agent.kit import mounts, syscalls
from agent.kit.errors import Permanent, Temporary

# index=off: an upper directory may outlive the inodes of its lower ones (a restored backup, a layer fetched again).
_FLAGS = {"index": "off"}
_LAYER = syscalls.MOUNT_ATTR_RDONLY | syscalls.MOUNT_ATTR_NODEV


class ByDescriptorUnsupported(Exception):
    """This kernel takes overlay layers by path only, or refuses detached ones, or these options whichever way."""


@contextmanager
def idmapped(layers: Sequence[Path], userns: Path) -> Iterator[list[int]]:
    """Detached read-only clones of the layers, topmost first, as overlay wants them; closed at the end."""
    with ExitStack() as stack:
        namespace = os.open(userns, os.O_RDONLY | os.O_CLOEXEC)
        stack.callback(os.close, namespace)
        fds = []
        for layer in reversed(layers):
            fds.append(_idmapped(layer, namespace))
            stack.callback(os.close, fds[-1])
        yield fds


def _idmapped(layer: Path, namespace: int) -> int:
    try:
        return mounts.clone(layer, userns=namespace, attributes=_LAYER)
    except FileNotFoundError as error:
        raise Permanent(
            f"cannot use image layer {layer.name[:12]}: it is not in the store",
            code="layer-missing",
            hint="gorae image pull",
        ) from error
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise Permanent(
            f"cannot map the ids of {layer}: its file system does not allow it",
            code="idmap-unsupported",
            hint="keep the state directory on ext4, xfs or btrfs",
        ) from error


def by_descriptor(lower: Sequence[int], upper: Path, work: Path) -> int:
    """The detached overlay; ByDescriptorUnsupported on kernels before 6.13."""
    with ExitStack() as stack:
        context = syscalls.fsopen("overlay")
        stack.callback(os.close, context)
        try:
            for fd in lower:
                syscalls.fsconfig(context, syscalls.FSCONFIG_SET_FD, "lowerdir+", aux=fd)
            for key, path in (("upperdir", upper), ("workdir", work)):
                fd = os.open(path, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
                stack.callback(os.close, fd)
                syscalls.fsconfig(context, syscalls.FSCONFIG_SET_FD, key, aux=fd)
            for key, value in _FLAGS.items():
                syscalls.fsconfig(context, syscalls.FSCONFIG_SET_STRING, key, value)
            syscalls.fsconfig(context, syscalls.FSCONFIG_CMD_CREATE)
        except OSError as error:
            # EOPNOTSUPP: a kernel (6.1) whose overlay knows only the old way to mount takes no descriptors at all.
            if error.errno in (errno.EINVAL, errno.EOPNOTSUPP):
                raise ByDescriptorUnsupported from error
            raise _refused(error, _log(context)) from error
        return syscalls.fsmount(context, syscalls.MOUNT_ATTR_NODEV)


def by_path(lower: Sequence[int], upper: Path, work: Path, scratch: Path) -> int:
    """The same for kernels before 6.13. `scratch`: a directory of ours for the layers' moment in the mount table."""
    with ExitStack() as stack:
        merged = _place(stack, scratch / "merged")
        names = []
        for position, fd in enumerate(lower):
            syscalls.move_mount(fd, _place(stack, scratch / str(position)))
            names.append(f"/proc/self/fd/{fd}")
        options = [f"lowerdir={':'.join(names)}", f"upperdir={_escape(upper)}", f"workdir={_escape(work)}"]
        options += [f"{key}={value}" for key, value in _FLAGS.items()]
        try:
            syscalls.mount("overlay", merged, "overlay", syscalls.MS_NODEV, ",".join(options))
        except OSError as error:
            raise _refused(error, "") from error
        return mounts.clone(merged)


def _place(stack: ExitStack, point: Path) -> Path:
    """A mount point for the duration of the stack; what an agent that died here left on it goes."""
    point.mkdir(mode=0o700, parents=True, exist_ok=True)
    mounts.detach(point)
    stack.callback(point.rmdir)
    stack.callback(mounts.detach, point)
    return point


def _escape(path: Path) -> str:
    return re.sub(r"([\\,:])", r"\\\1", str(path))


def _log(context: int) -> str:
    """What the kernel says about the failure, one message per read(2); none on old kernels."""
    lines = []
    try:
        while True:
            lines.append(os.read(context, 4096).decode(errors="replace").strip())
    except OSError:  # ENODATA: no more messages
        return "; ".join(lines)


def _refused(error: OSError, log: str) -> Temporary:
    return Temporary(
        f"cannot mount the root file system: {log or error.strerror}",
        code="overlay-refused",
        hint="gorae doctor checks the kernel and the file system of the state directory",
        errno=error.errno,
    )
