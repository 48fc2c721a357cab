"""What the daemons need before they start: directories with the right owners, users, the lock of the one supervisor."""

from __future__ import annotations

import os
import pwd
import sys
from pathlib import Path

from agent.kit.errors import UserError
from agent.kit.layout import Layout
from agent.kit.lock import own
from agent.wire import broker
from orchestrator.cli.client import lock_holder
from orchestrator.cli.supervisor import Daemon, User

ORCHESTRATOR_USER, RESOLVER_USER = "gorae", "gorae-resolver"
CODE = Path(__file__).resolve().parents[2]  # the folder that holds the packages


def account(name: str, *more_groups: str) -> User | None:
    """With the account's own groups and those of the named accounts; None when there is no such account."""
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    groups = set(os.getgrouplist(name, entry.pw_gid))
    for other in more_groups:
        try:
            groups.add(pwd.getpwnam(other).pw_gid)
        except KeyError:
            pass  # the broker then runs as root, and so does whoever talks to it
    return User(entry.pw_uid, entry.pw_gid, tuple(sorted(groups)))


def directories(layout: Layout, orchestrator: User | None) -> None:
    """state and run: 0711, for the mapped root of a container passes through. What is there keeps its content."""
    owner = (orchestrator.uid, orchestrator.gid) if orchestrator else (0, 0)
    wanted = [
        (layout.state, (0, 0), 0o711),
        (layout.run, (0, 0), 0o711),
        (layout.agent_dir, (0, 0), 0o700),
        (layout.locks, (0, 0), 0o700),
        (layout.orchestrator_dir, owner, 0o700),
        (layout.api_dir, owner, 0o755),
    ]
    for path, ids, mode in wanted:
        try:
            _directory(path, ids, mode)
        except OSError as error:
            raise UserError(
                f"cannot prepare the directory {path}: {error.strerror}",
                code="state-unusable",
                hint="it must be a directory that root can write, not a link; or use another --root",
            ) from error
    _hand_over(layout.orchestrator_dir, owner)


def _directory(path: Path, ids: tuple[int, int], mode: int) -> None:
    path.mkdir(parents=True, exist_ok=True)
    # Through a descriptor that follows no link: an owner other than root could swap what is inside its directory.
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fchown(descriptor, *ids)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _hand_over(directory: Path, owner: tuple[int, int]) -> None:
    """Files of an orchestrator that ran as someone else before."""
    for entry in os.scandir(directory):
        status = entry.stat(follow_symlinks=False)
        if entry.is_file(follow_symlinks=False) and (status.st_uid, status.st_gid) != owner and status.st_nlink == 1:
            os.chown(entry.path, *owner, follow_symlinks=False)


def unreadable(user: User) -> str | None:
    """What of the code or the interpreter `user` cannot read; None when it can run the orchestrator."""
    import uvicorn

    needed = [sys.executable, str(Path(sys.executable).resolve()), os.__file__, str(CODE / "orchestrator" / "main.py")]
    needed.append(uvicorn.__file__)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.setgroups(user.groups)
            os.setgid(user.gid)
            os.setuid(user.uid)
            for path in needed:
                if not os.access(path, os.R_OK):
                    os.write(writing, path.encode())
                    break
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        found = answer.read().decode()
    os.waitpid(child, 0)
    return found or None


def hold(layout: Layout) -> int:
    """The lock of the one supervisor of this root, held for life. UserError already-running names the holder."""
    lock = os.open(layout.state / "daemon.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    return own(lock, "gorae", layout.state, "gorae status, or gorae daemon --stop")


def holder(layout: Layout) -> int | None:
    """The pid of the running supervisor; None when there is none."""
    return lock_holder(str(layout.state / "daemon.lock"))


def daemons(layout: Layout, root: str | None, orchestrator: User | None) -> list[Daemon]:
    """In the order in which they start."""
    arguments = [] if root is None else ["--root", str(Path(root).absolute())]
    # -P: never import from the working directory; the packages are found by path, installed or not.
    path = os.pathsep.join(filter(None, [str(CODE), os.environ.get("PYTHONPATH")]))
    environment = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1"}
    socket = str(layout.resolver_socket)
    python = [sys.executable, "-P", "-m"]
    return [
        Daemon("mosquitto", lambda: broker.prepare(layout), account(broker.USER)),
        # -S: it needs the standard library alone, and its memory counts. It gives up root by itself, once it listens.
        Daemon(
            "gorae-resolver",
            lambda: [sys.executable, "-P", "-S", "-m", "agent.resolver.main", socket],
            None,
            environment,
        ),
        Daemon("gorae-agent", lambda: [*python, "agent.main", *arguments], None, environment),
        Daemon("gorae-orchestrator", lambda: [*python, "orchestrator.main", *arguments], orchestrator, environment),
    ]
