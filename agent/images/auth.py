"""Credentials for registries: those of `gorae login`, and those of whoever asks, for this one request.

The agent is root and never reads a user's files: the CLI reads them with the user's own rights and hands over the
entries of the registries in question. skopeo gets both as a file (containers-auth.json(5)) that root alone can read and
that goes with the request. No error, event or log ever holds one.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from agent.images.errors import bad_login, bad_name, not_logged_in
from agent.images.names import parse
from agent.images.skopeo import Skopeo, SkopeoFailed, is_away
from agent.kit.errors import GoraeError, Permanent, UserError

Keys = Mapping[str, str]  # registry, or registry/path, → base64 of USER:PASSWORD

NONE: Keys = {}


class Logins:
    """`own`: the instance's auth.json, mode 0600."""

    def __init__(self, own: Path, skopeo: Skopeo) -> None:
        self._own = own
        self._skopeo = skopeo

    @contextlib.contextmanager
    def file(self, keys: Keys, directory: Path) -> Iterator[Path]:
        """An auth file for one request: the asker's own keys first, the instance's for the rest."""
        auths = self._kept() | {scope: {"auth": key} for scope, key in keys.items()}
        descriptor, name = tempfile.mkstemp(prefix="auth-", dir=directory)  # mode 0600
        try:
            with os.fdopen(descriptor, "w") as file:
                json.dump({"auths": auths}, file)
            yield Path(name)
        finally:
            Path(name).unlink(missing_ok=True)

    async def login(self, registry: str, user: str, password: str) -> None:
        """Kept once the registry has taken them. UserError bad-login, Temporary registry-away."""
        host = checked(registry)
        if not user or not password or ":" in user or "\n" in password:
            raise bad_login(host, "a user name without colons and a password of one line are needed")
        self._own.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        try:
            await self._skopeo.login(host, user, password, self._own)
        except SkopeoFailed as error:
            raise _refused(host, str(error).replace(password, "…")) from error
        self._own.chmod(0o600)

    def logout(self, registry: str) -> None:
        """UserError not-logged-in."""
        host, kept = checked(registry), self._kept()
        if host not in kept:
            raise not_logged_in(host)
        del kept[host]
        unfinished = self._own.with_suffix(".new")
        unfinished.touch(mode=0o600)
        unfinished.write_text(json.dumps({"auths": kept}, indent=1))
        unfinished.replace(self._own)

    def known(self) -> dict[str, str]:
        """registry → user; never a password."""
        return {scope: _user(entry) for scope, entry in sorted(self._kept().items())}

    def _kept(self) -> dict[str, Any]:
        try:
            document = json.loads(self._own.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError:
            document = None
        auths = document.get("auths", {}) if isinstance(document, dict) else None
        if not isinstance(auths, dict):
            raise UserError(
                f"cannot read {self._own}: it is no containers-auth.json(5)",
                code="bad-auth-file",
                hint="remove it, then gorae login again",
            )
        return dict(auths)


def checked(registry: str) -> str:
    """A registry's host and port; docker.io has several names."""
    host = registry.removeprefix("https://").removeprefix("http://").partition("/")[0]
    if host in ("index.docker.io", "registry-1.docker.io"):
        host = "docker.io"
    try:
        found = parse(f"{host}/x")
    except GoraeError:
        found = None
    if found is None or found.domain != host or len(host) > 255:
        raise bad_name(registry, "it is not the host of a registry, like ghcr.io or registry.example.com:5000")
    return host


def keys_of(document: Any) -> Keys:
    """As they come over the agent's socket. Permanent bad-request; it never repeats what was given."""
    if document is None:
        return NONE
    if not isinstance(document, dict) or len(document) > 100:
        raise Permanent("cannot use the credentials: they are no object", code="bad-request")
    for scope, key in document.items():
        try:
            whole = isinstance(key, str) and b":" in base64.b64decode(key, validate=True)
        except (binascii.Error, ValueError):
            whole = False
        if not whole or not scope or len(scope) > 512 or not scope.isprintable():
            raise Permanent(f"cannot use the credentials of {scope[:80]!r}: bad form", code="bad-request")
    return dict(document)


def mark(keys: Keys) -> str:
    """Equal for equal keys, and tells nothing of them: part of the name of a flight."""
    return hashlib.sha256(json.dumps(dict(keys), sort_keys=True).encode()).hexdigest()[:16] if keys else ""


def _user(entry: Any) -> str:
    try:
        return base64.b64decode(entry["auth"]).partition(b":")[0].decode()
    except (ValueError, KeyError, TypeError):
        return ""


def _refused(host: str, said: str) -> GoraeError:
    short = ": ".join(said.split(": ")[-2:])
    return bad_login(host, short, away=is_away(said))
