"""HTTP over the daemon's unix socket, by hand: http.client alone would cost more start-up than the whole question.

HTTP/1.0, so that the end of the connection is the end of the answer and nothing is chunked. The paths repeat
agent/kit/layout.py without importing it (dataclasses and pathlib are slow to load); a test holds the two together.
"""

from __future__ import annotations

import _socket as socket  # the rest of socket loads enum and selectors, for 5 ms
import fcntl
import os
import select
import time

from agent.kit.errors import Permanent, Temporary, from_document
from orchestrator.cli import light

TYPE_CHECKING = False  # typing itself costs 2 ms of start-up
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

PATIENCE = 15.0  # seconds for an answer that is no stream
RETURN = 5.0  # seconds for a daemon to be there again: more than 3 were measured on a very busy machine
_SAFE = frozenset(b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_.~")


class Unreachable(Temporary):
    """Nobody answers on the socket. Exit code 3."""


class TimedOut(Exception):
    """Stream.next: nothing came in time."""


def run_path(root: str | None, name: str) -> str:
    """Of a socket below the runtime directory: api/gorae.sock, agent.sock."""
    root = root or os.environ.get("GORAE_ROOT") or None
    return f"{os.path.abspath(root)}/run/{name}" if root else f"/run/gorae/{name}"  # noqa: PTH100 (see above)


def lock_path(root: str | None) -> str:
    """Of the lock that the one who starts the daemons holds."""
    root = root or os.environ.get("GORAE_ROOT") or None
    return f"{os.path.abspath(root)}/state/daemon.lock" if root else "/var/lib/gorae/daemon.lock"  # noqa: PTH100


def _supervisor(root: str | None) -> int | None:
    """The pid of who starts the daemons again when they die; None: nobody does, as far as we may know."""
    try:
        return lock_holder(lock_path(root))
    except OSError:
        return None


def lock_holder(path: str) -> int | None:
    """Who holds the lock of that file, by its own account; None: nobody. PermissionError: it is root's to look at."""
    try:
        lock = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return None
    except BlockingIOError:
        text = os.pread(lock, 32, 0).strip()
        return int(text) if text.isdigit() else None
    finally:
        os.close(lock)


class Client:
    def __init__(self, root: str | None = None) -> None:
        self.root = root
        self.path = run_path(root, "api/gorae.sock")

    def get(self, path: str, **query: object) -> Any:
        return light.loads(self.raw("GET", path, **query))

    def send(self, method: str, path: str, body: object = None, **query: object) -> Any:
        return light.loads(self.raw(method, path, body, **query))

    def raw(self, method: str, path: str, body: object = None, **query: object) -> bytes:
        """The answer's bytes. Raises the daemon's own GoraeError, or Unreachable."""
        with self._open(method, path, body, query) as stream:
            return stream.rest(PATIENCE)

    def _open(self, *request: Any) -> Stream:
        """Waits for a daemon that has died and is being started again."""
        deadline = time.monotonic() + RETURN
        while True:
            try:
                return Stream(self.path, *request)
            except Unreachable as error:
                if not isinstance(error.__cause__, FileNotFoundError | ConnectionRefusedError):
                    raise
                pid = _supervisor(self.root)
                if pid is None:
                    raise
                if time.monotonic() > deadline:
                    raise Unreachable(
                        f"cannot reach gorae at {self.path}: gorae daemon (process {pid}) is starting it again",
                        code="daemon-away",
                        hint="the same again in a moment, or gorae doctor",
                    ) from error.__cause__
            time.sleep(0.05)

    def ended(self) -> Unreachable:
        """What to raise when an answer without an end has ended."""
        return Unreachable(
            f"cannot follow any longer: gorae at {self.path} ended the answer", code="daemon-away", hint="gorae doctor"
        )

    def stream(self, method: str, path: str, body: object = None, **query: object) -> Stream:
        """An NDJSON answer, to be used as a context manager."""
        return self._open(method, path, body, query)

    def batches(self, path: str, after: str, **query: object) -> Iterator[tuple[str, Any]]:
        """("open", None), then ("batch", parts) of logs (agent/wire/batches.py) and ("note", text), to the end of the
        answer. `after`: a cursor, or ""."""
        headers = {"Accept": "application/x-gorae-batches", **({"Last-Event-ID": after} if after else {})}
        with self._open("GET", path, None, query, headers) as stream:
            yield "open", None
            yield from stream.batches()


class Lines:
    """Lines of a connected socket, with a deadline for each. `room`: bytes to take at once while a line is read; few
    where long blocks follow, which are then taken straight."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self.room = 256 * 1024
        self._buffer = bytearray()
        self._start = 0
        self._poll = select.poll()
        self._poll.register(connection, select.POLLIN)

    def next(self, timeout: float | None = None) -> bytes | None:
        """Without its newline; None at the end. Raises TimedOut; OSError when the peer died."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while True:
            end = self._buffer.find(b"\n", self._start)
            if end >= 0:
                line = bytes(self._buffer[:end])
                del self._buffer[: end + 1]
                self._start = 0
                return line
            self._start = len(self._buffer)
            left = None if deadline is None else max(0.0, deadline - time.monotonic())
            if not self._poll.poll(None if left is None else left * 1000):
                raise TimedOut
            data = self._socket.recv(self.room)
            if not data:
                rest, self._buffer, self._start = bytes(self._buffer), bytearray(), 0
                return rest or None
            self._buffer += data

    def exactly(self, count: int) -> bytes:
        """So many bytes. OSError when the peer died before."""
        data = bytes(self._buffer[:count])
        del self._buffer[:count]
        self._start = 0
        while len(data) < count:  # nearly always once
            more = self._socket.recv(count - len(data), socket.MSG_WAITALL)
            if not more:
                raise ConnectionResetError("it ended in the middle of its answer")
            data += more
        return data

    def rest(self, timeout: float) -> bytes:
        parts = [bytes(self._buffer)]
        self._socket.settimeout(timeout)
        while data := self._socket.recv(262144):
            parts.append(data)
        return b"".join(parts)


class Stream:
    """One request and its answer. Iterating yields the documents of an NDJSON answer; an error line is raised."""

    def __init__(
        self,
        socket_path: str,
        method: str,
        path: str,
        body: object,
        query: dict[str, object],
        headers: dict[str, str] | None = None,
    ) -> None:
        self._what = socket_path
        self._length = 0
        self._socket = connect(socket_path, "gorae")
        self._lines = Lines(self._socket)
        try:
            self._socket.sendall(_request(method, path, body, query, headers or {}))
            self.status = self._head()
            if self.status >= 400:
                self._fail(self._lines.rest(PATIENCE))
        except TimedOut:
            self._socket.close()
            raise self._away(f"it took the request, but said nothing for {PATIENCE:g} s") from None
        except OSError as error:
            self._socket.close()
            raise self._away(error.strerror or str(error)) from error
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def __iter__(self) -> Iterator[Any]:
        while (document := self.next()) is not None:
            yield document

    def next(self, timeout: float | None = None) -> Any:
        """The next document; None at the end. Raises TimedOut."""
        try:
            line = self._lines.next(timeout)
        except OSError as error:
            raise self._away(error.strerror or str(error)) from error
        if line is None:
            return None
        try:
            document = light.loads(line)
        except ValueError:
            raise self._away("it ended in the middle of its answer") from None
        if isinstance(document, dict) and isinstance(document.get("error"), dict):
            raise from_document(document["error"])
        return document

    def batches(self) -> Iterator[tuple[str, Any]]:
        self._lines.room = 4096
        try:
            yield from _answers(self._lines)
        except (OSError, ValueError) as error:
            raise self._away(getattr(error, "strerror", None) or str(error)) from error

    def rest(self, timeout: float) -> bytes:
        try:
            body = self._lines.rest(timeout)
        except OSError as error:
            raise self._away(error.strerror or str(error)) from error
        if len(body) < self._length:
            raise self._away("it ended in the middle of its answer")
        return body

    def _head(self) -> int:
        first = self._lines.next(PATIENCE)
        while (line := self._lines.next(PATIENCE)) is not None and line.strip():
            # The end of the connection ends the answer; its length tells whether that was too soon.
            if line[:15].lower() == b"content-length:":
                self._length = int(line[15:])
        parts = (first or b"").split(None, 2)
        if len(parts) < 2 or not parts[0].startswith(b"HTTP/") or not parts[1].isdigit():
            raise self._away("it ended without an answer" if not first else "what answers there is not gorae")
        return int(parts[1])

    def _fail(self, body: bytes) -> None:
        try:
            raise from_document(light.loads(body)["error"])
        except (ValueError, KeyError, TypeError, AttributeError):
            text = body[:200].decode(errors="replace").strip()
            raise Permanent(f"cannot use the daemon's answer: HTTP {self.status} {text}", code="bad-answer") from None

    def _away(self, reason: str) -> Unreachable:
        return Unreachable(f"cannot talk to gorae at {self._what}: {reason}", code="daemon-away", hint="gorae doctor")


def connect(path: str, who: str) -> socket.socket:
    """A connected socket, or Unreachable with the likely cure."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(PATIENCE)
        connection.connect(path)
        connection.settimeout(None)
    except OSError as error:
        connection.close()
        if isinstance(error, PermissionError):
            reason, hint = "permission denied", "join the group gorae, or use sudo"
        elif isinstance(error, FileNotFoundError | ConnectionRefusedError):
            reason, hint = "it is not running", "gorae daemon --detach (as root), or gorae doctor"
        elif len(path.encode()) > 107:
            reason, hint = "a unix socket's path has 107 bytes at most", "a shorter --root"
        else:
            reason, hint = error.strerror or str(error), "gorae doctor"
        raise Unreachable(f"cannot reach {who} at {path}: {reason}", code="daemon-away", hint=hint) from error
    return connection


def ask_agent(root: str | None, op: str, **arguments: object) -> Iterator[tuple[str, Any]]:
    """One request to the agent's own socket (agent/wire/streams.py), for root, when the orchestrator is down."""
    path = run_path(root, "agent.sock")
    connection = connect(path, "the agent")
    try:
        connection.sendall(light.dumps({"op": op, **arguments}).encode() + b"\n")
        yield from _answers(Lines(connection))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise Unreachable(f"cannot talk to the agent at {path}: {reason}", code="agent-away") from error
    finally:
        connection.close()


def _answers(lines: Lines) -> Iterator[tuple[str, Any]]:
    """(kind, value) as agent/wire/streams.py has them. Raises OSError, the agent's errors, ValueError for what is none
    of it."""
    while (line := lines.next()) is not None:
        answer = light.loads(line)
        if "error" in answer:
            raise from_document(answer["error"])
        kind = next(iter(answer))
        value = answer[kind]
        if kind == "batch":
            from agent.wire import batches

            value = batches.decode(value, lines.exactly(batches.length(value)))
        yield kind, value
        if kind == "result":
            return
    raise ConnectionResetError("it ended the connection")


def _request(method: str, path: str, body: object, query: dict[str, object], headers: dict[str, str]) -> bytes:
    pairs = [
        f"{key}={quote(_plain(one))}"
        for key, value in query.items()
        for one in (value if isinstance(value, tuple) else (value,))
        if one is not None
    ]
    target = path + ("?" + "&".join(pairs) if pairs else "")
    payload = b"" if body is None else light.dumps(body).encode()
    head = f"{method} {target} HTTP/1.0\r\nHost: gorae\r\nConnection: close\r\n"
    head += "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if body is not None:
        head += f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n"
    return head.encode() + b"\r\n" + payload


def _plain(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def quote(text: str) -> str:
    """Percent-encode all but the unreserved characters (RFC 3986, section 2.3)."""
    return "".join(chr(byte) if byte in _SAFE else f"%{byte:02X}" for byte in text.encode())
