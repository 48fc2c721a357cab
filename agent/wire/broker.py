"""The private mosquitto: its configuration, its two accounts and its access list, written anew at every start.

The broker keeps nothing: no persistence (autosave would rewrite its whole database for every change, and loses
acknowledged messages anyway), because every message is state that can be sent again. It must not listen on TCP.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import pwd
import secrets
import shutil
import tempfile
from pathlib import Path

from agent.kit.errors import UserError
from agent.kit.layout import Layout
from agent.wire import topics

USER = "mosquitto"
ORCHESTRATOR_USER = "gorae"

# Each role writes its own flow and reads the other's; nothing else exists on this bus.
WRITES: dict[str, tuple[str, ...]] = {"agent": topics.FROM_AGENT, "orchestrator": topics.FROM_ORCHESTRATOR}
READS: dict[str, tuple[str, ...]] = {"agent": topics.FROM_ORCHESTRATOR, "orchestrator": topics.FROM_AGENT}


def matches(pattern: str, topic: str) -> bool:
    """A filter of ours ends in "/+" or is exact (MQTT 5, section 4.7)."""
    if pattern.endswith("/+"):
        return topic.startswith(pattern[:-1]) and "/" not in topic[len(pattern) - 1 :]
    return pattern == topic


def password_file(layout: Layout, role: str) -> Path:
    return layout.bus_dir / f"{role}.pw"


def prepare(layout: Layout) -> list[str]:
    """Write everything the broker reads; returns the argv that runs it in the foreground, as user mosquitto.

    Passwords that are there are kept, so a broker started again takes the same clients. Raises UserError when
    mosquitto is not installed.
    """
    program = shutil.which("mosquitto", path=os.environ.get("PATH", "/usr/bin") + ":/usr/sbin:/sbin")
    if program is None:
        raise UserError(
            "cannot start the bus: mosquitto is not installed",
            code="mosquitto-missing",
            hint="apt-get install mosquitto",
        )
    broker, orchestrator = _account(USER), _account(ORCHESTRATOR_USER)
    directory = layout.bus_dir
    directory.mkdir(parents=True, exist_ok=True)
    # Sticky and group-writable: the broker may create its socket there, but cannot replace a file root will read.
    if os.geteuid() == 0:
        os.chown(directory, 0, broker[1])
    directory.chmod(0o1771)
    owners = {"agent": (0, 0), "orchestrator": orchestrator}
    passwords = {role: _password(password_file(layout, role), owners[role]) for role in WRITES}
    hashed = "".join(f"{role}:{_hash(password)}\n" for role, password in passwords.items())
    _write(directory / "passwords", hashed, (0, broker[1]), 0o640)
    _write(directory / "acl", _access_list(), (0, broker[1]), 0o640)
    config = directory / "mosquitto.conf"
    _write(config, _config(layout), (0, broker[1]), 0o640)
    return [program, "-c", str(config)]


def _config(layout: Layout) -> str:
    # max_queued_messages 0: the default of 1000 drops the rest of a long list of retained topics in silence.
    # user: mosquitto's own fallback would leave the account we chose when that is root.
    return "\n".join(
        (
            f"listener 0 {layout.bus_socket}",
            "allow_anonymous false",
            f"password_file {layout.bus_dir / 'passwords'}",
            f"acl_file {layout.bus_dir / 'acl'}",
            f"user {USER if _exists(USER) else 'root'}",
            "persistence false",
            "max_queued_messages 0",
            "max_queued_bytes 268435456",
            "max_inflight_messages 1000",
            f"max_packet_size {topics.MESSAGE_LIMIT}",
            "retain_available true",
            "log_dest stderr",
            "log_type error",
            "log_type warning",
            "log_type notice",
            "log_type information",
            "connection_messages false",
            "",
        )
    )


def _access_list() -> str:
    lines = []
    for role in WRITES:
        lines.append(f"user {role}")
        lines += [f"topic write {topic}" for topic in WRITES[role]]
        lines += [f"topic read {topic}" for topic in READS[role]]
    return "\n".join(lines) + "\n"


def _password(path: Path, owner: tuple[int, int]) -> str:
    with contextlib.suppress(FileNotFoundError):
        password = path.read_text().strip()
        if password:
            _own(path, owner, 0o600)
            return password
    password = secrets.token_urlsafe(32)
    _write(path, password + "\n", owner, 0o600)
    return password


def _hash(password: str) -> str:
    """mosquitto's form $7$: PBKDF2-HMAC-SHA512. Few rounds are enough for 256 random bits."""
    salt, rounds = secrets.token_bytes(12), 101
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, rounds)
    return f"$7${rounds}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}"


def _write(path: Path, text: str, owner: tuple[int, int], mode: int) -> None:
    """Replace atomically; the temporary name is random and exclusive, as the directory is writable by the broker."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    _own(Path(temporary), owner, mode)
    Path(temporary).replace(path)


def _own(path: Path, owner: tuple[int, int], mode: int) -> None:
    if os.geteuid() == 0:
        os.chown(path, *owner, follow_symlinks=False)
    path.chmod(mode)


def _exists(user: str) -> bool:
    return _account(user) != (0, 0)


def _account(user: str) -> tuple[int, int]:
    """(uid, gid); root's where the account does not exist (a developer's machine)."""
    try:
        entry = pwd.getpwnam(user)
    except KeyError:
        return 0, 0
    return entry.pw_uid, entry.pw_gid
