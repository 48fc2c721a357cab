"""TCP connections to ports of this host, and for each one of the API's conversations with a port of a container. One
poll loop: nothing is read faster than the other side takes it, each way ends by itself, and what fails for one
connection is said in a line and ends that connection alone."""

from __future__ import annotations

import select
import socket
import struct
import sys
from contextlib import suppress

from agent.kit.errors import GoraeError, UserError
from agent.wire.kinds import END, ERROR, RESULT, STDIN, STDOUT
from orchestrator.cli import terminal
from orchestrator.cli.render import safe
from orchestrator.cli.terminal import Ended
from orchestrator.cli.websocket import HIGH, WebSocket, outcome

TYPE_CHECKING = False  # typing itself costs 2 ms of start-up
if TYPE_CHECKING:
    from collections.abc import Sequence

AT_ONCE = 200  # connections, two descriptors each: further ones wait until the kernel's queue is read again
_CHUNK = 64 * 1024
_RESET = struct.pack("ii", 1, 0)  # struct linger: closing tells the peer that something is missing (socket(7))


def listen(address: str, port: int) -> socket.socket:
    """`port` 0: a free one. UserError not-listening."""
    try:
        family, _, _, _, where = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listener = socket.create_server(where[:2], family=family, backlog=AT_ONCE)
    except OSError as error:
        # create_server adds the address to the kernel's words
        why = (error.strerror or str(error)).partition(" (while ")[0].lower()
        raise UserError(
            f"cannot listen on {shown(address, port)}: {why}",
            code="not-listening",
            hint="another port, or :REMOTE, which takes a free one",
        ) from None
    listener.setblocking(False)
    return listener


def shown(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def run(path: str, target: str, slot: int | None, listeners: Sequence[tuple[socket.socket, int]]) -> int:
    """Until a signal comes; the exit code then, KeyboardInterrupt by Ctrl-C. `path`: of the daemon's socket; `target`:
    of the route; `listeners`: each with the container's port."""
    with terminal.ending():
        passages: set[_Passage] = set()
        try:
            while True:
                _turn(path, target, slot, listeners, passages)
        except Ended as end:
            return 128 + end.number
        finally:
            for passage in passages:
                passage.close(reset=True)


def _turn(
    path: str,
    target: str,
    slot: int | None,
    listeners: Sequence[tuple[socket.socket, int]],
    passages: set[_Passage],
) -> None:
    """Wait for whatever comes first, and do what it lets be done."""
    poll = select.poll()
    owners: dict[int, _Passage] = {}
    for passage in passages:
        for descriptor, events in passage.wants():
            poll.register(descriptor, events)
            owners[descriptor] = passage
    for listener, _ in listeners if len(passages) < AT_ONCE else ():
        poll.register(listener, select.POLLIN)
    ready = {descriptor for descriptor, _ in poll.poll()}
    for passage in {owners[descriptor] for descriptor in ready if descriptor in owners}:
        if passage.over():
            passages.discard(passage)
    for listener, port in listeners:
        if listener.fileno() not in ready:
            continue
        if (made := _accepted(listener, path, target, {"port": port, "slot": slot})) is not None:
            passages.add(made)


def _accepted(listener: socket.socket, path: str, target: str, ask: dict[str, object]) -> _Passage | None:
    try:
        local, _ = listener.accept()
    except (BlockingIOError, ConnectionError):  # it has gone again
        return None
    try:
        local.setblocking(False)
        local.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return _Passage(local, WebSocket(path, target, ask))
    except GoraeError as error:
        _tell(error)
        _close(local, reset=True)
        return None
    except BaseException:
        _close(local, reset=True)
        raise


class _Passage:
    """A connection from here, and its conversation."""

    def __init__(self, local: socket.socket, talk: WebSocket) -> None:
        self._local, self._talk = local, talk
        self._out = bytearray()  # for the program here
        self._reads = True  # what comes from it
        self._ends = self._ended = False  # nothing more comes for it; it knows
        self._done = False

    def wants(self) -> list[tuple[int, int]]:
        """(descriptor, events) of what it waits for. Of nothing, not even a hang-up, which would wake for ever."""
        local = (select.POLLIN if self._may_read() else 0) | (select.POLLOUT if self._out else 0)
        far = (select.POLLIN if self._may_hear() else 0) | (
            select.POLLOUT if self._talk.waiting and not self._done else 0
        )
        return [(end.fileno(), events) for end, events in ((self._local, local), (self._talk.socket, far)) if events]

    def _may_read(self) -> bool:
        return self._reads and self._talk.about is not None and self._talk.waiting < HIGH

    def _may_hear(self) -> bool:
        return not self._done and len(self._out) < HIGH

    def over(self) -> bool:
        """Whatever can be done without waiting. True: it has ended, and is closed."""
        try:
            if self._may_hear():
                self._hear()
            self._write()
            if self._may_read():
                self._read()
            self._talk.flush()
        except OSError:  # the program here has gone, as it may
            self.close(reset=True)
            return True
        except GoraeError as error:
            _tell(error)
            self.close(reset=True)
            return True
        if self._done and not self._out:
            self.close(reset=False)
            return True
        return False

    def close(self, *, reset: bool) -> None:
        self._talk.close()
        _close(self._local, reset=reset)

    def _hear(self) -> None:
        for kind, payload in self._talk.receive():
            if kind == STDOUT:
                self._out += payload
            elif kind == END:
                self._ends = True
            elif kind in (RESULT, ERROR):
                outcome(kind, payload)
                self._done = True
                return  # the end of the connection may stand behind it

    def _write(self) -> None:
        try:
            while self._out:
                del self._out[: self._local.send(self._out)]
        except BlockingIOError:
            return
        if self._ends and not self._ended:
            self._ended = True
            self._local.shutdown(socket.SHUT_WR)

    def _read(self) -> None:
        try:
            data = self._local.recv(_CHUNK)
        except BlockingIOError:
            return
        self._reads = bool(data)
        self._talk.send(STDIN, data) if data else self._talk.send(END)


def _close(local: socket.socket, *, reset: bool) -> None:
    if reset:
        with suppress(OSError):
            local.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    local.close()


def _tell(error: GoraeError) -> None:
    print(safe(error.message), file=sys.stderr, flush=True)
