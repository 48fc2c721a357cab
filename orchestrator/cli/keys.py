"""The asker's own passwords for registries: read here, with the user's rights, so that the daemon never opens a user's
files. Only what the images in question need is handed over, with the one request that needs it.

containers-auth.json(5); Docker's config.json, with its credential helpers.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from collections.abc import Iterable, Iterator
from typing import Any

_HUB = "docker.io"
_HUB_KEYS = ("docker.io", "index.docker.io", "https://index.docker.io/v1/", "https://registry-1.docker.io/v2/")
_PATIENCE = 20.0  # seconds for a helper, which may ask its keyring


def of(images: Iterable[str]) -> dict[str, str]:
    """registry, or registry/path, → base64 of USER:PASSWORD, for as many of the images as the user's files know."""
    files = [(path, document) for path in _paths() if (document := _read(path)) is not None]
    found: dict[str, str] = {}
    for scopes in sorted({_scopes(image) for image in images}) if files else ():
        for path, document in files:
            hit = next(((scope, key) for scope in scopes if (key := _key(path, document, scope))), None)
            if hit:
                found.setdefault(*hit)
                break
    return found


def _paths() -> Iterator[str]:
    """In the order in which podman and skopeo look."""
    environ, home = os.environ, os.path.expanduser("~")  # noqa: PTH111 (pathlib is slow to load)
    if environ.get("REGISTRY_AUTH_FILE"):
        yield environ["REGISTRY_AUTH_FILE"]
        return
    runtime = environ.get("XDG_RUNTIME_DIR")
    if runtime or os.access("/run/containers", os.X_OK):  # root's own, if podman has made it for root
        yield f"{runtime}/containers/auth.json" if runtime else f"/run/containers/{os.getuid()}/auth.json"
    yield f"{environ.get('XDG_CONFIG_HOME') or home + '/.config'}/containers/auth.json"
    yield f"{environ.get('DOCKER_CONFIG') or home + '/.docker'}/config.json"


def _read(path: str) -> dict[str, Any] | None:
    try:
        with open(path, encoding="utf-8") as file:  # noqa: PTH123 (one small file)
            document = json.load(file)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no JSON"
        print(f"note  cannot read the passwords in {path}: {why}", file=sys.stderr)
        return None
    return document if isinstance(document, dict) else None


def _scopes(image: str) -> tuple[str, ...]:
    """ghcr.io/team/app:1 → ghcr.io/team/app, ghcr.io/team, ghcr.io: the narrowest first."""
    name = image.partition("@")[0]
    first, slash, rest = name.partition("/")
    if not slash or not ("." in first or ":" in first or first == "localhost" or first.lower() != first):
        first, rest = _HUB, name if slash else f"library/{name}"
    if first == "index.docker.io":
        first = _HUB
    head, last = rest.rpartition("/")[::2]
    parts = [first, *(head.split("/") if head else ()), last.partition(":")[0]]
    return tuple("/".join(parts[:count]) for count in range(len(parts), 0, -1))


def _key(path: str, document: dict[str, Any], scope: str) -> str | None:
    names = _HUB_KEYS if scope == _HUB else (scope, f"https://{scope}", f"https://{scope}/v1/", f"https://{scope}/v2/")
    auths, helpers = document.get("auths"), document.get("credHelpers")
    for name in names:
        entry = auths.get(name) if isinstance(auths, dict) else None
        key = entry.get("auth") if isinstance(entry, dict) else None
        if isinstance(key, str) and key:
            return key
        helper = helpers.get(name) if isinstance(helpers, dict) else None
        if not helper and isinstance(entry, dict):
            helper = document.get("credsStore")  # the entry says only that the helper has one
        if isinstance(helper, str) and helper:
            return _ask(path, helper, name)
    return None


def _ask(path: str, helper: str, name: str) -> str | None:
    """docker-credential-helpers: the name on stdin, {"Username", "Secret"} on stdout."""
    import subprocess

    try:
        program = [f"docker-credential-{helper}", "get"]
        done = subprocess.run(program, input=name, capture_output=True, text=True, timeout=_PATIENCE, check=True)
        answer = json.loads(done.stdout)
        pair = f"{answer['Username']}:{answer['Secret']}"
    except (OSError, subprocess.SubprocessError, ValueError, KeyError, TypeError) as error:
        print(
            f"note  docker-credential-{helper}, named in {path}, gave nothing: {type(error).__name__}", file=sys.stderr
        )
        return None
    return base64.b64encode(pair.encode()).decode()
