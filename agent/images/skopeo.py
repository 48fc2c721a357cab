"""skopeo(1) does transport: registries, mirrors, credentials, archive formats. Nothing here knows the store.

Copies of archives go into the `dir:` form with --preserve-digests: it is the only one that keeps a Docker manifest byte
for byte (`oci:` refuses it, and without the option converts it, losing HEALTHCHECK and SHELL and changing digests).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import shutil
from pathlib import Path

from agent.images.errors import not_in_registry, pull_failed, registry_away, wrong_platform
from agent.images.names import Reference, insecure
from agent.kit.errors import GoraeError, Permanent

# skopeo dies with us: a copy that nobody waits for would go on filling the disk
_COMMAND = ("setpriv", "--pdeathsig=KILL", "skopeo")
_POLICY = Path("/etc/containers/policy.json")
_INDEX_LIMIT = 4 << 20

# What skopeo says, in lower case → what it means. Its exit status is 1 (2 since 1.15 for "not found") for everything.
_MISSING = (
    "manifest unknown",
    "name unknown",
    "not found",
    "status code 404",
    "unauthorized",
    "authentication required",
    "access to the resource is denied",
    "denied:",
    "status code 401",
    "status code 403",
    "invalid username/password",
)
_AWAY = (
    "connection refused",
    "no such host",
    "temporary failure in name resolution",
    "server misbehaving",
    "i/o timeout",
    "timeout exceeded",
    "deadline exceeded",
    "tls handshake timeout",
    "connection reset",
    "broken pipe",
    "network is unreachable",
    "no route to host",
    "toomanyrequests",
    "too many requests",
    "server closed",
)
_EOF = re.compile(r"(?<![\w/.-])eof(?![\w/-])")  # also part of names, like geoffrey
_SERVER_ERROR = re.compile(r"\b(?:status(?: code)?(?: from registry)?|http)\D{0,3}(?:429|5\d\d)\b")
_WORDS = re.compile(r'level=\w+ msg="((?:[^"\\]|\\.)*)"')


class Skopeo:
    """`tmp`: a directory for skopeo's own large files. Every failure is a SkopeoFailed, for explain() to read."""

    def __init__(self, tmp: Path) -> None:
        self._tmp = tmp

    async def manifest(self, reference: Reference, auth: Path) -> bytes:
        """What the registry serves under this name, manifest or index, as it is. `auth`: containers-auth.json(5)."""
        flags = ("--tls-verify=false",) if insecure(reference.domain) else ()
        return await self._run("inspect", "--raw", f"--authfile={auth}", *flags, f"docker://{reference.full}")

    async def proxy(self, reference: Reference, auth: Path, descriptor: int) -> asyncio.subprocess.Process:
        """The image proxy at this socket (lanes.py); the caller ends it."""
        flags = ("--tls-verify=false",) if insecure(reference.domain) else ()
        command = ("experimental-image-proxy", f"--authfile={auth}", *flags, f"--sockfd={descriptor}")
        nothing = asyncio.subprocess.DEVNULL
        return await self._start(*command, out=nothing, err=nothing, pass_fds=(descriptor,))

    async def login(self, registry: str, user: str, password: str, auth: Path) -> None:
        """Ask the registry whether it takes them, then write them into `auth`."""
        flags = ("--tls-verify=false",) if insecure(registry) else ()
        arguments = (f"--authfile={auth}", *flags, f"--username={user}", "--password-stdin", registry)
        await self._run("login", *arguments, given=password.encode())

    async def unpack(self, source: str, target: Path) -> None:
        """Copy out of an archive or layout (a containers-transports(5) name) into the empty directory `target`."""
        await self._run("copy", "-q", "--preserve-digests", source, f"dir:{target}")

    async def _run(self, *arguments: str, given: bytes = b"") -> bytes:
        pipe = asyncio.subprocess.PIPE
        # A file, not a pipe: uvloop raises RuntimeError where what is written meets a child that is gone already.
        with os.fdopen(os.memfd_create("given"), "wb", buffering=0) as file:
            file.write(given)
            file.seek(0)
            process = await self._start(*arguments, given=file.fileno(), out=pipe, err=pipe)
        try:
            out, complaint = await process.communicate()
        finally:
            if process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode:
            raise SkopeoFailed(said_by(complaint.decode(errors="replace")))
        return out

    async def _start(
        self,
        *arguments: str,
        out: int,
        err: int,
        given: int = asyncio.subprocess.DEVNULL,
        pass_fds: tuple[int, ...] = (),
    ) -> asyncio.subprocess.Process:
        if shutil.which(_COMMAND[-1]) is None:  # setpriv would say so, in words of its own
            raise Permanent(
                "cannot handle images: skopeo is not installed", code="skopeo-missing", hint="apt install skopeo"
            )
        policy = () if _POLICY.exists() else ("--insecure-policy",)
        return await asyncio.create_subprocess_exec(
            *_COMMAND,
            "--tmpdir",
            str(self._tmp),
            *policy,
            *arguments,
            stdin=given,
            stdout=out,
            stderr=err,
            pass_fds=pass_fds,
            env={**os.environ, "TMPDIR": str(self._tmp)},
            limit=_INDEX_LIMIT,
            preexec_fn=_private,  # uvloop takes no umask
        )


def _private() -> None:
    os.umask(0o077)


class SkopeoFailed(Exception):
    """With skopeo's own words."""


def said_by(stderr: str) -> str:
    """The innermost reason of skopeo's last message: "a: b: c" is told from the general to the particular."""
    found = _WORDS.findall(stderr)
    text = found[-1].replace('\\"', '"') if found else (stderr.strip().splitlines() or ["no reason given"])[-1]
    return str(text)[-600:]


def explain(name: str, said: str) -> GoraeError:
    """skopeo's words about pulling `name` as an error of ours."""
    lower = said.lower()
    short = ": ".join(said.split(": ")[-2:])
    if "no image found in manifest list for" in lower or "no image found in image index for" in lower:
        return wrong_platform(name, short)
    if is_away(said):
        return registry_away(name, short)
    if any(word in lower for word in _MISSING):
        return not_in_registry(name, short)
    return pull_failed(name, said)


def is_away(said: str) -> bool:
    """Whether it may work later: no connection, a cut one, 429 or 5xx."""
    lower = said.lower()
    return any(word in lower for word in _AWAY) or bool(_SERVER_ERROR.search(lower) or _EOF.search(lower))
