"""Real containers for tests, with nothing of the other rooms: a busybox root file system, namespaces pinned by hand."""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from agent.decide.oci_config import oci_config
from agent.kit import syscalls
from agent.kit.ids import instance_id, task_id
from agent.kit.layout import Layout
from agent.ports import Bundle, ImageConfig, NameFiles, Process, Sandbox, UserIds
from agent.runtime import pidfd
from agent.runtime.inotify import IN_MODIFY, Inotify
from agent.runtime.runtime import CrunRuntime
from agent.runtime.seccomp import default_profile
from agent.sandbox.link import Helper
from agent.wire.messages import ContainerSpec, Policy, Resources, Task

BUSYBOX = Path("/bin/busybox")
APPLETS = "sh sleep cat echo true false ls id grep head dd yes seq wget httpd nc setsid kill ping mkdir touch printf trap ln stty tty pwd"
UID_BASE = 0x7000_0000 - 65536  # below the pool: no instance gives it out


class Host:
    """One test's root directory, instance and runtime. `sandboxed`: user and network namespaces of its own."""

    def __init__(self, root: Path, *, sandboxed: bool = True) -> None:
        self.root = root
        self.instance = instance_id()
        self.layout = Layout.at(root)
        for directory in (self.layout.state, self.layout.run):
            directory.mkdir(mode=0o711, parents=True)
        self.layout.run_tasks.mkdir(mode=0o711)
        self.rootfs = make_rootfs(root / "rootfs", UID_BASE if sandboxed else 0)
        self.sandbox = pin_namespaces(root) if sandboxed else None
        self.names = NameFiles(*(root / name for name in ("hosts", "resolv.conf", "hostname")))
        for path in (self.names.hosts, self.names.resolv, self.names.hostname):
            path.write_text(f"{path.name}\n")
        self.runtime = CrunRuntime(self.layout, self.instance)
        self.helper = Helper()

    def bundle(
        self,
        *args: str,
        task: str | None = None,
        attempt: int = 1,
        rootfs: Path | None = None,
        ids: UserIds | None = None,
        resources: Resources | None = None,
        **spec: Any,
    ) -> Bundle:
        task = task or task_id()
        sandbox = self.sandbox or Sandbox(task, Path("/proc/1/ns/user"), Path("/proc/1/ns/net"), 0)
        wanted = Task(
            id=task,
            service="web",
            slot=1,
            template="x",
            container=ContainerSpec(image="busybox", image_id="sha256:0", command=args, **spec),
            policy=Policy(resources=resources or Resources()),
        )
        config = oci_config(
            instance=self.instance,
            stack="shop",
            task=wanted,
            attempt=attempt,
            image=ImageConfig("sha256:0", ()),
            ids=ids or UserIds(0, 0),
            sandbox=sandbox,
            rootfs=rootfs or self.rootfs,
            binds=(),
            names=self.names,
            seccomp=default_profile(),
            hostname="web-1",
            cgroup=self.runtime.cgroup_version(),
        )
        if self.sandbox is None:
            kinds = [n for n in config["linux"]["namespaces"] if n["type"] not in ("user", "network")]
            config["linux"]["namespaces"] = [*kinds, {"type": "network"}]
        log = self.layout.logs / "shop" / "web" / f"1-{task}.log"
        return Bundle(task, attempt, "shop", "web", rootfs or self.rootfs, sandbox, config, log)

    def leftovers(self) -> list[str]:
        """What is left on the host of this instance: processes, cgroups, files; read without our own code."""
        found = [
            f"process {p.parent.name} {p.read_bytes()[:300]!r}"
            for p in Path("/proc").glob("[0-9]*/cmdline")
            if self._is_ours(p)
        ]
        for parent, names, _ in os.walk("/sys/fs/cgroup"):
            found += [f"cgroup {parent}/{name}" for name in names if self.instance in name]
        for directory in ("exits", "crun", "at", "tasks"):
            found += [str(p) for p in (self.layout.run / directory).glob("*") if p.name != ".cache"]
        return found

    def _is_ours(self, cmdline: Path) -> bool:
        with suppress(OSError):
            return str(self.root).encode() in cmdline.read_bytes()
        return False

    def log(self, bundle: Bundle) -> str:
        return bundle.log.read_text()

    def is_running(self, process: Process) -> bool:
        """A zombie that its parent has not taken yet is not running."""
        try:
            fields = Path(f"/proc/{process.pid}/stat").read_text().rpartition(")")[2].split()
        except FileNotFoundError:
            return False
        return fields[0] != "Z" and int(fields[19]) == process.start_ticks

    async def says(self, bundle: Bundle, word: str) -> None:
        """Wait until the container has written `word`."""
        watch = Inotify()
        try:
            watch.watch(bundle.log, IN_MODIFY)
            async with asyncio.timeout(10):
                while word not in self.log(bundle):
                    await pidfd.readable(watch.fd)
                    list(watch.events())
        finally:
            watch.close()

    async def close(self) -> None:
        for found in await self.runtime.list():
            await self.runtime.remove(found.task, found.attempt)
        self.runtime.close()
        self.helper.close()
        if self.sandbox is not None:
            syscalls.umount(self.sandbox.user_ns)
            syscalls.umount(self.sandbox.net_ns)
        shutil.rmtree(self.root)


def new_root() -> Path:
    """Not pytest's tmp_path: its parents are 0700, and the mapped root must pass through."""
    root = Path(f"/tmp/g-{secrets.token_hex(4)}")
    root.mkdir(mode=0o755)
    root.chmod(0o755)
    return root


def make_rootfs(path: Path, owner: int) -> Path:
    (path / "bin").mkdir(parents=True)
    shutil.copy(BUSYBOX, path / "bin/busybox")
    for library in _libraries(BUSYBOX):
        (path / library.relative_to("/")).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, path / library.relative_to("/"))
    for applet in APPLETS.split():
        (path / "bin" / applet).symlink_to("busybox")
    for name in ("proc", "sys", "dev", "tmp", "etc"):
        (path / name).mkdir()
    for name in ("hosts", "resolv.conf", "hostname"):
        (path / "etc" / name).touch()
    (path / "etc/notes").write_text("not a program\n")
    for file in (path, *path.rglob("*")):
        os.chown(file, owner, owner, follow_symlinks=False)
    (path / "tmp").chmod(0o1777)
    path.chmod(0o755)
    return path


def _libraries(program: Path) -> list[Path]:
    """Of a dynamic busybox; none of a static one (ldd then fails)."""
    said = subprocess.run(["ldd", program], capture_output=True, text=True, check=False).stdout
    return [Path(word) for word in said.split() if word.startswith("/")]


def pin_namespaces(root: Path) -> Sandbox:
    """A network namespace owned by a new user namespace, both kept by bind mounts."""
    with _unshared() as pid:
        for kind in ("uid_map", "gid_map"):
            Path(f"/proc/{pid}/{kind}").write_text(f"0 {UID_BASE} 65536")
        pins = [root / "user.ns", root / "net.ns"]
        for pin, kind in zip(pins, ("user", "net"), strict=True):
            pin.touch()
            syscalls.mount(f"/proc/{pid}/ns/{kind}", pin, None, syscalls.MS_BIND)
    return Sandbox("none", pins[0], pins[1], UID_BASE)


@contextmanager
def _unshared() -> Iterator[int]:
    child = subprocess.Popen(
        ["unshare", "--user", "--net", "sh", "-c", "echo; exec cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    child.stdout.readline()
    try:
        yield child.pid
    finally:
        child.kill()
        child.communicate()
