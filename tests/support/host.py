"""One gorae of the tests' own: its root directory, its daemons, its command line, and what the kernel says of it.

What happened is read from /proc, from cgroups and through sockets where that is the point of a test; `status` and
`watch` are
used only to wait.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SITE = sysconfig.get_path("purelib")
# As deploy/setup installs it.
CODE = f'import sys; sys.path.append("{SITE}"); from orchestrator.cli.main import main; raise SystemExit(main())'
CLI = [sys.executable, "-SP", "-c", CODE]
CLONE = Path(__file__).resolve().parents[2]
PATIENCE = 120.0  # seconds; a bound for what hangs, never a pace


class Host:
    """`with Host() as host:` starts the daemons and ends everything afterwards, whatever the test did."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = root or Path(f"/tmp/g-{secrets.token_hex(4)}")
        self.root.mkdir(mode=0o755, exist_ok=True)
        self.root.chmod(0o755)
        self.supervisor: subprocess.Popen[bytes] | None = None
        self.env = {
            **os.environ,
            "GORAE_ROOT": str(self.root),
            "PYTHONPATH": str(CLONE),
            "NO_COLOR": "1",
            "PYTHONDONTWRITEBYTECODE": "",  # start-up is measured with byte code, as installed
            "COLUMNS": "80",
        }

    # the daemons

    def __enter__(self) -> Host:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        with (self.root / "daemon.log").open("ab") as log:
            self.supervisor = subprocess.Popen(
                [*CLI, "daemon"], env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
            )
        self.wait_ready()

    def wait_ready(self) -> None:
        """Until the API answers and the agent is there."""

        def ready() -> bool:
            if self.supervisor is not None and self.supervisor.poll() is not None:
                raise AssertionError(f"the daemon ended:\n{self.log()}")
            try:
                return bool(self.get("/v1/version")["agent"]["online"])
            except (OSError, ValueError, KeyError):
                return False

        until(ready, "the daemons to be ready", tell=self.log)

    def stop(self, sig: int = signal.SIGTERM) -> None:
        """End the supervisor; its daemons end with it, the containers stay."""
        if self.supervisor is not None:
            self.supervisor.send_signal(sig)
            self.supervisor.wait(PATIENCE)
            self.supervisor = None
        until(lambda: not self.daemons(), "the daemons to end", tell=lambda: str(self.daemons()))

    def daemons(self) -> dict[str, int]:
        """Name → pid of this root's daemons, from /proc."""
        found = {}
        for pid, argv in processes():
            line = " ".join(argv)
            if str(self.root) not in line and f"GORAE_ROOT={self.root}" not in environ_of(pid):
                continue
            for name, mark in (
                ("agent", "agent.main"),
                ("resolver", "agent.resolver.main"),
                ("orchestrator", "orchestrator.main"),
                ("broker", "mosquitto"),
            ):
                if mark in line and "import main" not in line:
                    found[name] = pid
        return found

    def kill_daemon(self, name: str) -> int:
        """kill -9; the pid it had."""
        pid = self.daemons()[name]
        os.kill(pid, signal.SIGKILL)
        return pid

    def log(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.root / "daemon.log").read_text(errors="replace")[-8000:]
        return ""

    def close(self) -> None:
        """Down with every stack, then the daemons, then whatever is left by force, then the directory."""
        try:
            if self.supervisor is None:
                self.start()
            for stack in self.get("/v1/stacks")["stacks"]:
                self.cli("down", stack["name"], "--volumes", check=False)
        finally:
            with contextlib.suppress(Exception):  # whatever is wrong, what follows must still run
                self.stop()
            self.destroy()

    def destroy(self) -> None:
        """Last resort, by force: processes, mounts, links, tables and cgroups with this instance's id."""
        for pid, argv in processes():
            if any(str(self.root) in word for word in argv) and pid != os.getpid():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        instance = self.instance
        if instance:
            for pid in cgroup_pids(instance):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            until(lambda: not cgroup_pids(instance), "containers to end")
            for link in Path("/sys/class/net").glob(f"g{instance}*"):
                subprocess.run(["ip", "link", "delete", link.name], check=False, capture_output=True)
            for family in ("inet", "ip"):
                subprocess.run(
                    ["nft", "delete", "table", family, f"gorae_{instance}"], check=False, capture_output=True
                )
            for directory in cgroup_dirs(instance):
                with contextlib.suppress(OSError):
                    directory.rmdir()
        for mount in sorted(mounts_below(self.root), reverse=True):
            subprocess.run(["umount", "-l", mount], check=False, capture_output=True)
        shutil.rmtree(self.root, ignore_errors=True)

    @property
    def instance(self) -> str:
        with contextlib.suppress(FileNotFoundError):
            return (self.root / "state" / "instance").read_text().strip()
        return ""

    # the command line and the API

    def cli(
        self, *args: str, check: bool = True, timeout: float = PATIENCE, given: str = "", **extra: Any
    ) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [*CLI, *args],
            env=self.env,
            capture_output=True,
            text=True,
            timeout=timeout,
            input=given,
            **extra,
        )
        if check:
            assert done.returncode == 0, (
                f"gorae {' '.join(args)} → {done.returncode}\n{done.stdout}{done.stderr}\n{self.log()}"
            )
        return done

    def compose(self, stack: str, text: str) -> Path:
        """Write a Compose file in a folder named for the stack; its path."""
        folder = self.root / "files" / stack
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "compose.yaml").write_text(text)
        return folder / "compose.yaml"

    def up(
        self, stack: str, text: str, *args: str, check: bool = True, **extra: Any
    ) -> subprocess.CompletedProcess[str]:
        return self.cli("up", "-f", str(self.compose(stack, text)), "-p", stack, *args, check=check, **extra)

    def down(self, stack: str, *args: str) -> None:
        self.cli("down", stack, *args)

    def get(self, path: str) -> Any:
        """One JSON document of the API."""
        return json.loads(b"".join(self.stream(path)))

    def stream(self, path: str) -> Iterator[bytes]:
        """The body, line by line, by a client independent of the program's own."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(PATIENCE)
            connection.connect(str(self.root / "run" / "api" / "gorae.sock"))
            connection.sendall(f"GET {path} HTTP/1.0\r\nHost: gorae\r\nConnection: close\r\n\r\n".encode())
            with connection.makefile("rb") as reader:
                while reader.readline().strip():
                    pass
                yield from reader

    def status(self, stack: str) -> dict[str, Any]:
        """Of a stack that is not known (yet): no services, not converged."""
        nothing = {"services": [], "converged": False, "generation": 0}
        stacks = self.get(f"/v1/status?stack={stack}").get("stacks", [])
        return next((s for s in stacks if s["name"] == stack), nothing)

    def tasks(self, stack: str, service: str | None = None) -> list[dict[str, Any]]:
        return [
            {**task, "service": s["name"]}
            for s in self.status(stack)["services"]
            if service in (None, s["name"])
            for task in s["tasks"]
        ]

    def pids(self, stack: str) -> dict[str, int]:
        """Task id → pid of what runs, cross-checked with /proc."""
        pids = {task["id"]: task["pid"] for task in self.tasks(stack) if task["pid"]}
        for pid in pids.values():
            assert Path(f"/proc/{pid}").exists()
        return pids

    def wait(self, stack: str, reached: Callable[[dict[str, Any]], bool], what: str) -> dict[str, Any]:
        """Until the stack's status document satisfies `reached`; that document."""
        last: dict[str, Any] = {}

        def satisfied() -> bool:
            nonlocal last
            try:
                last = self.status(stack)
            except (OSError, ValueError):  # the orchestrator is away just now
                return False
            return reached(last)

        until(satisfied, what, tell=lambda: json.dumps(last, indent=1)[-6000:] + self.log())
        return last

    def wait_task(
        self, stack: str, service: str, reached: Callable[[dict[str, Any]], bool], what: str
    ) -> dict[str, Any]:
        """Until the first task of a service satisfies `reached`."""

        def check(document: dict[str, Any]) -> bool:
            return any(s["name"] == service and s["tasks"] and reached(s["tasks"][0]) for s in document["services"])

        document = self.wait(stack, check, what)
        return next(s["tasks"][0] for s in document["services"] if s["name"] == service)

    def events(self, stack: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.stream(f"/v1/events?stack={stack}&limit=1000") if line.strip()]


def until(true: Callable[[], bool], what: str, *, patience: float = PATIENCE, tell: Callable[[], str] = str) -> None:
    """Look every 10 ms (what is looked at has no event to await from outside); AssertionError after `patience`."""
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, f"waited {patience:.0f} s for {what}\n{tell()}"
        time.sleep(0.01)


def processes() -> Iterator[tuple[int, list[str]]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                argv = (entry / "cmdline").read_bytes().split(b"\0")
                if argv != [b""]:
                    yield int(entry.name), [word.decode(errors="replace") for word in argv if word]


def environ_of(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace").replace("\0", "\n")
    return ""


def cgroup_dirs(instance: str) -> list[Path]:
    """Deepest first, in every hierarchy. os.walk and not glob: what is swept meanwhile must not end the walk."""
    tops = [Path(d) / f"gorae-{instance}" for d, names, _ in os.walk("/sys/fs/cgroup") if f"gorae-{instance}" in names]
    found = [Path(directory) for top in tops for directory, _, _ in os.walk(top)]
    return sorted(found, key=lambda p: len(p.parts), reverse=True)


def cgroup_files(instance: str, cgroup: str, name: str) -> list[Path]:
    """The file of that name of one container's cgroup, in every hierarchy that has it."""
    paths = [directory / name for directory in cgroup_dirs(instance) if directory.name == cgroup]
    return [path for path in paths if path.exists()]


def cgroup_pids(instance: str) -> set[int]:
    return {pid for directory in cgroup_dirs(instance) for pid in _members(directory)}


def _members(directory: Path) -> set[int]:
    with contextlib.suppress(OSError):
        return set(map(int, (directory / "cgroup.procs").read_text().split()))
    return set()


def container_pids(instance: str) -> set[int]:
    """Of the containers alone: on a host with systemd the conmons sit in a cgroup of the instance's as well."""
    attempts = [directory for directory in cgroup_dirs(instance) if directory.name != "monitors"]
    return {pid for directory in attempts for pid in _members(directory)}


def mounts_below(root: Path) -> list[str]:
    lines = Path("/proc/self/mountinfo").read_text().splitlines()
    return [line.split()[4] for line in lines if line.split()[4].startswith(f"{root}/")]


def fetch(port: int, path: str = "/", timeout: float = 5.0) -> str:
    """The body over a fresh connection; raises OSError on any failure."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=timeout) as answer:
        return str(answer.read().decode())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Load:
    """Requests, one after the other on fresh connections, until `stop`; counts what failed and says how."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.done = 0
        self.failed: list[str] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Load:
        self._thread.start()
        until(lambda: self.done + len(self.failed) > 5, "the first requests")
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join(PATIENCE)

    def more(self, count: int = 20) -> None:
        """Wait until `count` further requests were answered."""
        goal = self.done + count
        until(
            lambda: self.done >= goal or len(self.failed) > 50,
            f"{count} more requests",
            tell=lambda: str(self.failed[-3:]),
        )

    def _run(self) -> None:
        while not self._end.is_set():
            try:
                fetch(self.port)
                self.done += 1
            except OSError as error:
                self.failed.append(f"{time.time():.3f} {error!r}")
            self._end.wait(0.005)


def power_cut(host: Host) -> None:
    """What a reboot does: no process, no mount, no namespace, no cgroup, no table, no /run."""
    instance = host.instance

    def dead() -> bool:
        """What was on its way (a crun that an agent had just begun) is ended as well."""
        own = {pid for pid, argv in processes() if any(str(host.root) in word for word in argv)}
        left = cgroup_pids(instance) | own - {os.getpid()}
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return not left

    def gone() -> bool:
        """A task that has just died counts for a moment more."""
        for directory in cgroup_dirs(instance):
            with contextlib.suppress(OSError):
                directory.rmdir()
        return not cgroup_dirs(instance)

    until(dead, "the containers to end")
    until(gone, "their cgroups to go")
    for mount in sorted(mounts_below(host.root), reverse=True):
        subprocess.run(["umount", "-l", mount], check=True)
    for link in Path("/sys/class/net").glob(f"g{instance}*"):
        subprocess.run(["ip", "link", "delete", link.name], check=False, capture_output=True)
    subprocess.run(["nft", "delete", "table", "inet", f"gorae_{instance}"], check=False, capture_output=True)
    shutil.rmtree(host.root / "run")
