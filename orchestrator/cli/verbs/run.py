"""Run a command once in a new container of a service: its image, volumes, networks and variables, no ports.

Waits until it has ended, and exits with its code. What is typed or piped in is its input. It gets a terminal when this
is run on one; -T goes without. The container is removed afterwards, with its anonymous volumes; what it wrote into
others stays. Ctrl-C ends it, on a terminal as a key of its own; Ctrl-P Ctrl-Q leaves it running there.

With -d: returns at once, and it goes with the next change of the stack. Of a service with stdin_open, or with -i,
gorae attach is at its input.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from contextlib import suppress

from agent.kit.errors import GoraeError, Temporary, UserError
from orchestrator.cli import targets
from orchestrator.cli.client import Client, TimedOut, Unreachable, quote
from orchestrator.cli.verbs import exec as entering

TYPE_CHECKING = False  # typing itself costs 2 ms of start-up
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, TypeVar

    from orchestrator.cli.conversing import Talk

    _T = TypeVar("_T")

AWAY = 30.0  # seconds that daemons may be away
_AGAIN = 0.2  # seconds between two tries to reach them
_LOOK = 5.0  # seconds; the safety net under what should have been told
_LOST = frozenset({"agent-away", "daemon-away"})


def register(parser: argparse.ArgumentParser) -> None:
    targets.register_files(parser, short=False)
    parser.add_argument("-d", "--detach", action="store_true", help="do not wait")
    entering.register_process(parser)
    parser.add_argument("--entrypoint", metavar="WORDS", help="instead of the service's, whose command goes with it")
    parser.add_argument("--name", metavar="NAME", help="of the container, among the services of the stack")
    parser.add_argument("--rm", action="store_true", help="remove the container afterwards, as it always does")
    parser.add_argument("--no-deps", action="store_true", help="start no other service, as it never does")
    entering.register_input(parser)
    parser.add_argument("target", metavar="SERVICE", help="SERVICE or STACK/SERVICE")
    parser.add_argument("command", metavar="COMMAND", nargs=argparse.REMAINDER, help="default: the service's own")


def run(arguments: argparse.Namespace) -> int:
    from orchestrator.cli import conversing, terminal

    client = Client(arguments.root)
    arguments.targets = [arguments.target]
    stack, service = targets.one_service(arguments, client)
    if arguments.detach:
        name = _begin(client, stack, _body(arguments, service, arguments.tty, arguments.interactive or None))
        print(f"{stack}/{name} is started; gorae logs {stack}/{name}")
        return 0
    tty, stdin = conversing.wants_terminal(arguments.tty), not arguments.no_stdin
    keys = terminal.Keys(terminal.DETACH_KEYS if arguments.detach_keys is None else arguments.detach_keys)
    talk = conversing.Talk(tty=tty, stdin=stdin, keys=keys, passing=())
    # A name of our own is ours to remove even if a signal came before the answer.
    name = arguments.name or f"{service[:40]}-run-{os.urandom(4).hex()}"
    ours = arguments.name is None
    with terminal.ending():
        try:
            try:
                _begin(client, stack, {**_body(arguments, service, tty, stdin), "name": name, "attended": True})
            except GoraeError:
                ours = False
                raise
            ours = True
            return _stay(client, talk, stack, name, tty=tty)
        except conversing.Detached:
            ours = False
            return 0
        except terminal.Ended as end:
            return 128 + end.number
        except GoraeError as error:
            if error.code not in conversing.CODES:
                raise
            print(error.message, file=sys.stderr)
            return conversing.CODES[error.code]
        finally:
            if ours:
                _end(client, stack, name)


def _body(arguments: argparse.Namespace, service: str, tty: bool | None, stdin: bool | None) -> dict[str, Any]:
    return {
        "service": service,
        "name": arguments.name,
        "command": arguments.command or None,
        "entrypoint": None if arguments.entrypoint is None else _words(arguments.entrypoint),
        "environment": entering.variables(arguments.env),
        "user": arguments.user,
        "working_dir": arguments.workdir,
        "tty": tty,
        "stdin": stdin,
    }


def _words(text: str) -> list[str]:
    """As a shell splits them; of "", none."""
    from shlex import split

    try:
        return split(text)
    except ValueError as error:
        raise UserError(
            f"cannot understand the entrypoint {text!r}: {error}", code="usage", hint="as a shell has it"
        ) from None


def _begin(client: Client, stack: str, body: dict[str, Any]) -> str:
    return str(client.send("POST", f"/v1/stacks/{stack}/run", body)["service"])


def _stay(client: Client, talk: Talk, stack: str, name: str, *, tty: bool) -> int:
    """At its input and output to its end; its exit code."""
    target = f"/v1/stacks/{stack}/services/{quote(name)}/attach"
    try:
        code = talk.hold(client.path, target, {"wait": True})
    except GoraeError as error:
        if error.code not in _LOST or tty or talk.reads:
            raise
        print(f"the connection was lost; {stack}/{name} runs on, and the rest is shown at its end", file=sys.stderr)
        code = _outlasting(lambda: _until_over(client, stack, name))
        _outlasting(lambda: _catch_up(client, talk, stack, name))
    if code is None:
        code = _over(client, stack, name)
    if code is None:
        raise Temporary(f"cannot tell how {stack}/{name} ended", code="not-run", hint="gorae events")
    return code


def _outlasting(look: Callable[[], _T]) -> _T:
    """Again, while the daemons are away."""
    until = time.monotonic() + AWAY
    while True:
        try:
            return look()
        except GoraeError as error:
            if error.code not in _LOST or time.monotonic() > until:
                raise
        time.sleep(_AGAIN)


def _until_over(client: Client, stack: str, name: str) -> int:
    with client.stream("GET", "/v1/events", stack=stack, service=name, follow=True, limit=1) as events:
        while (code := _over(client, stack, name)) is None:
            with suppress(TimedOut):
                if events.next(_LOOK) is None:
                    raise client.ended()
    return code


def _over(client: Client, stack: str, name: str) -> int | None:
    """Its exit code, when it has one. Temporary not-run: it will never have one."""
    task = client.get("/v1/status", stack=stack, service=name)["stacks"][0]["services"][0]["tasks"][0]
    if task["state"] in ("completed", "failed") and task["exit_code"] is None:
        raise Temporary(f"cannot tell how {stack}/{name} ended: {task['message']}", code="not-run", hint="gorae events")
    return int(task["exit_code"]) if task["state"] in ("completed", "failed") else None


def _catch_up(client: Client, talk: Talk, stack: str, name: str) -> None:
    """What it wrote besides what was shown, from its log, which has all from the beginning."""
    from binascii import a2b_base64

    from agent.wire.kinds import STDERR, STDOUT
    from orchestrator.cli.websocket import write

    passed = {STDOUT: 0, STDERR: 0}
    with client.stream("GET", "/v1/logs", stack=stack, service=name) as lines:
        for line in lines:
            if line["kind"] == "gap":
                print("some of what it wrote is gone from its log", file=sys.stderr)
            if line["kind"] != "line":
                continue
            data = a2b_base64(line["base64"]) if "base64" in line else line["text"].encode()
            data += b"" if line.get("partial") else b"\n"
            kind = STDERR if line["stream"] == "stderr" else STDOUT
            rest = data[max(0, talk.shown[kind] - passed[kind]) :]
            passed[kind] += len(data)
            if rest:
                write(2 if kind == STDERR else 1, rest)
                talk.shown[kind] += len(rest)


def _end(client: Client, stack: str, name: str) -> None:
    """Not hindered by the next signal: nobody else would take the container away."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [(number, signal.signal(number, signal.SIG_IGN)) for number in numbers]
    try:
        client.send("DELETE", f"/v1/stacks/{stack}/runs/{name}")
    except UserError as error:
        if error.code not in ("service-unknown", "stack-unknown"):  # it never began, or is gone already
            raise
    except Unreachable as error:
        text = f"cannot remove {stack}/{name}: {error.message.partition(': ')[2] or error.message}"
        hint = f"gorae up, once it is back: {stack}/{name} goes with the next change when it has ended"
        raise Unreachable(text, code=error.code, hint=hint) from error
    finally:
        for number, handler in before:
            signal.signal(number, handler)
