"""`gorae exec` as scripts say it: no terminal, STACK/SERVICE, the commonest options. Before the request is on its way
nothing is loaded but what sends it: the whole way (main.py, verbs/exec.py, conversing.py) takes longer to load than the
command to run. What this does not understand goes that way; a test compares the two.
"""

from __future__ import annotations

import _signal as signal  # type: ignore[import-not-found]  # what is around it loads enum, for 7 ms
import os
import sys

from agent.kit.errors import GoraeError
from agent.wire.kinds import END, ERROR, RESULT, SIGNAL, STDERR, STDIN, STDOUT
from orchestrator.cli.client import run_path
from orchestrator.cli.websocket import WebSocket, outcome, write

TYPE_CHECKING = False  # typing itself costs 2 ms of start-up
if TYPE_CHECKING:
    from collections.abc import Sequence

_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyz0123456789")
_VALUES = {"-u": "user", "--user": "user", "-w": "working_dir", "--workdir": "working_dir"}
_CHUNK = 64 * 1024


def understood(words: Sequence[str]) -> tuple[str, dict[str, object]] | None:
    """(the API's path, the first message) of what follows `gorae exec`; None: go the whole way."""
    found: dict[str, object] = {"user": None, "working_dir": None}
    environment: dict[str, str] = {}
    terminal, at = True, 0
    while at < len(words) and words[at][:1] == "-":
        word, at = words[at], at + 1
        value = words[at] if at < len(words) else ""
        if word in ("-T", "--no-tty"):
            terminal = False
        elif word in ("-i", "--interactive"):
            pass
        elif value[:1] in ("-", ""):
            return None
        elif word in _VALUES:
            found[_VALUES[word]], at = value, at + 1
        elif word in ("-e", "--env") and "=" in value:
            name, _, text = value.partition("=")
            environment[name], at = text, at + 1
        else:
            return None
    stack, _, service = (words[at] if at < len(words) else "").partition("/")
    command = list(words[at + 1 :])
    if not _name(stack) or not _name(service) or not command or command[0][:1] == "-":
        return None
    if terminal and os.isatty(0) and os.isatty(1):
        return None
    ask = {"command": command, "slot": None, **found, "environment": environment}
    ask |= {"tty": False, "stdin": True, "detach": False}
    return f"/v1/stacks/{stack}/services/{service}/exec", ask


def _name(text: str) -> bool:
    return text[:1] in _LETTERS and len(text) < 64 and _LETTERS.issuperset(text.replace("-", "").replace("_", ""))


def run(words: Sequence[str]) -> None:
    """Ends this process if it is understood; else nothing was done."""
    if (meant := understood(words)) is None:
        return
    target, ask = meant
    ask["stdin"] = reads = not _empty(0)
    try:
        code = _converse(WebSocket(run_path(None, "api/gorae.sock"), target, ask), reads=reads)
    except GoraeError as error:
        code = _failed(error)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        code = 130
    os._exit(code)  # nothing is buffered, and to take the interpreter apart would cost 3 ms


def _empty(fd: int) -> bool:
    """It is /dev/null, as that of a program without an input there is: nothing needs to stand between the two."""
    try:
        return os.fstat(fd).st_rdev == os.makedev(1, 3)
    except OSError:
        return False


def _failed(error: GoraeError) -> int:
    from orchestrator.cli import conversing, main

    if error.code in conversing.CODES:
        print(error.message, file=sys.stderr)
        return conversing.CODES[error.code]
    return main.failed(error)


def _converse(talk: WebSocket, *, reads: bool) -> int:
    """As orchestrator/cli/conversing.py does without a terminal."""
    wake, sink = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    came: list[int] = []

    def end(number: int, _: object) -> None:
        os._exit(128 + number)

    def passed(number: int, _: object) -> None:
        signal.signal(number, signal.default_int_handler)  # the second time it ends us
        came.append(number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    for number in (signal.SIGINT, signal.SIGQUIT):
        signal.signal(number, passed)
    signal.set_wakeup_fd(sink, warn_on_full_buffer=False)
    if not reads:
        talk.send(END)
    while True:
        woken, typed, answered = talk.wait(wake, reads=reads)
        if woken:
            os.read(wake, 512)
            while came:
                talk.send(SIGNAL, str(came.pop(0)).encode())
        if typed:
            data = _read()
            reads = bool(data)
            talk.send(STDIN if data else END, data)
        if answered:
            for kind, payload in talk.receive():
                if kind in (RESULT, ERROR):
                    return outcome(kind, payload) or 0
                if kind in (STDOUT, STDERR):
                    write(1 if kind == STDOUT else 2, payload)


def _read() -> bytes:
    try:
        return os.read(0, _CHUNK)
    except OSError:
        return b""
