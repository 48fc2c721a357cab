"""What verbs that change a stack have in common: waiting until it is as it was asked to be, live on a terminal, one
line per change elsewhere, and in the end the result, or an account of what is not so and why. Nothing is changed here:
whoever stops waiting leaves the stack as it is."""

from __future__ import annotations

import argparse
import json
import math
import sys
import time
from collections.abc import Callable
from typing import Any

from agent.kit.errors import Temporary, UserError
from orchestrator.cli.board import brief, proof, state_text, troubles
from orchestrator.cli.client import Client, TimedOut, Unreachable
from orchestrator.cli.render import Screen, count, cut, span

TRIES = 5  # a container that ended, or could not be started, this often is reported, though gorae goes on trying
HELD_UP = 5.0  # seconds; what the daemons cannot do for so long (a full disk) is reported, though they go on trying
MOMENT = 1.0  # seconds between what has failed for good and the report, in which others may fail as well
SETTLED = 0.2  # seconds; what has no healthcheck must have run this long
RETURN = 10.0  # seconds that a daemon which went away while we wait has to come back
_TICK = 0.5  # seconds between redraws, for the counters
_AT_REST = ("running", "completed", "stopped", "failed", "waiting", "paused")


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-wait", action="store_true", help="return as soon as the change is stored")
    parser.add_argument(
        "--timeout", metavar="SECONDS", type=_seconds, default=300.0, help="how long to wait (default: 300)"
    )
    parser.add_argument("--json", action="store_true", help="the result as one document (docs/api.md)")


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def screen(arguments: argparse.Namespace) -> Screen:
    """Where progress goes: with --json, stdout is for the result alone."""
    return Screen(sys.stderr if arguments.json else None)


def conclude(
    arguments: argparse.Namespace,
    client: Client,
    answer: dict[str, Any],
    doing: str,
    *,
    stored: str,
    done: Callable[[dict[str, Any]], str],
    services: tuple[str, ...] = (),
) -> int:
    """Wait if that is wanted, and print the result. `answer`: the API's. `doing`: "bring up", "remove" …, for errors.
    `stored`: what to say without waiting; `done`: what to say of the status document when all is as it was asked.
    `services`: whom to wait for; (): everybody."""
    document = None
    if not arguments.no_wait:
        document = wait(
            client, answer["stack"], answer["generation"], arguments.timeout, screen(arguments), doing, services
        )
    if arguments.json:
        result = {key: answer.get(key, []) for key in ("stack", "generation", "actions")}
        print(json.dumps({**result, "status": document["stacks"][0] if document and document["stacks"] else None}))
    elif document is None or document.get("drained"):
        print(stored)
    else:
        print(done(document))
    if document is not None and document.get("drained"):
        print("note  the host is drained: nothing starts until gorae drain --undo", file=sys.stderr)
    return 0


def wait(
    client: Client,
    stack: str,
    generation: int,
    timeout: float,
    screen: Screen,
    doing: str = "bring up",
    services: tuple[str, ...] = (),
) -> dict[str, Any]:
    """The status document in which the stack has converged at `generation`, or, for "remove", is gone.

    Raises Temporary not-up with the reasons: something failed, `timeout` seconds went by, or somebody else removed the
    stack (or made it anew) meanwhile.
    """
    deadline = time.monotonic() + timeout
    shown, away = _Shown(screen), None
    try:
        while True:
            began = time.monotonic()
            try:
                document = _follow(client, stack, generation, deadline, timeout, shown, doing, services)
            except Unreachable:
                now = time.monotonic()
                away = now if away is None or now - began > 1 else away
                if now > min(away + RETURN, deadline):
                    raise
                time.sleep(0.1)
                continue
            if bool(document["stacks"]) is (doing == "remove"):
                what = "made it anew" if document["stacks"] else "removed it"
                raise Temporary(
                    f"cannot {doing} {stack}: somebody else has {what} meanwhile",
                    code="changed",
                    hint=f"gorae events {stack} says who",
                )
            wait_more = _too_young(document)
            if not wait_more:
                break
            time.sleep(wait_more)
    except KeyboardInterrupt:
        shown.finish()
        screen.stream.flush()
        raise Interrupted(stack) from None
    finally:
        shown.finish()
    if not shown.rolled and any(entry["generation"] > generation for entry in document["stacks"]):
        print(f"note  somebody else has changed stack {stack} too: gorae events {stack}", file=sys.stderr)
    for entry in document["stacks"]:
        if entry.get("update") and entry["update"]["phase"] == "rolled-back":
            raise Temporary(
                f"cannot {doing} {stack}: {entry['update']['message']}",
                code="rolled-back",
                hint=f"gorae events {stack} says what happened; gorae logs {stack}",
            )
    return document


def _too_young(document: dict[str, Any]) -> float:
    """Seconds until everything without a healthcheck has run for SETTLED: a program that ends right after its start
    has run for a moment, too."""
    ages = [
        document["at"] - task["started_at"]
        for stack in document["stacks"]
        for row in stack["services"]
        for task in row["tasks"]
        if task["state"] == "running" and task["health"] == "none" and task["started_at"]
    ]
    return max(0.0, SETTLED - min(ages, default=SETTLED))


def _follow(
    client: Client,
    stack: str,
    generation: int,
    deadline: float,
    timeout: float,
    shown: _Shown,
    doing: str,
    services: tuple[str, ...],
) -> dict[str, Any]:
    document: dict[str, Any] | None = None
    with client.stream("GET", f"/v1/stacks/{stack}/watch", generation=generation, service=services) as stream:
        while True:
            left = deadline - time.monotonic()
            try:
                latest = stream.next(max(0.0, min(left, _TICK)))
            except TimedOut:
                if time.monotonic() >= deadline:
                    raise _not_up(client, document, stack, doing, f"after {span(timeout)}") from None
                if document is not None:
                    document = {**document, "at": time.time()}
                    shown.update(document)
                    if error := _held_up(document, stack, doing):
                        raise error from None
                    if hopeless(document["stacks"][0], generation, document["at"]):
                        raise _not_up(client, document, stack, doing, "") from None
                continue
            if latest is None:
                return _ended(document, stack, generation)
            document = latest
            if not latest["stacks"]:
                return document
            shown.update(latest)
            if hopeless(latest["stacks"][0], generation, latest["at"]):
                raise _not_up(client, latest, stack, doing, "")


def _held_up(document: dict[str, Any], stack: str, doing: str, patience: float = HELD_UP) -> Temporary | None:
    """What keeps gorae itself from going on, if it has for `patience`; `document` is of now."""
    lasting = [one for one in troubles(document, stack) if document["at"] - one["since"] >= patience]
    if not lasting:
        return None
    first = lasting[0]
    return Temporary(
        f"cannot {doing} {stack}: {first['message']}",
        code=first["code"],
        hint=first["hint"] or "gorae doctor; it is tried again and again",
    )


class Interrupted(UserError):
    """Ctrl-C while waiting."""

    def __init__(self, stack: str) -> None:
        super().__init__(
            f"stopped waiting; stack {stack} stays as it is, and gorae goes on with it",
            code="interrupted",
            hint=f"gorae status {stack}, or gorae down {stack}",
        )


def _ended(document: dict[str, Any] | None, stack: str, generation: int) -> dict[str, Any]:
    entry = document["stacks"][0] if document else {"converged": False}
    if document and entry["converged"] and entry["observed_generation"] >= generation:
        return document
    raise Unreachable(
        f"cannot follow stack {stack}: the daemon ended the connection; gorae goes on with it",
        code="daemon-away",
        hint=f"gorae status {stack}",
    )


def hopeless(entry: dict[str, Any], generation: int, at: float) -> bool:
    """Whether to wait no longer at time `at`: something has failed for good, or does again and again while all else has
    come to rest."""
    if entry["converged"] or entry["observed_generation"] < generation or entry["state"] == "stopping":
        return False
    update = entry.get("update")
    if update and update["phase"] in ("updating", "rolling-back"):
        return False  # what fails is gone back from, or the update is paused
    if update and update["phase"] == "paused":
        return True
    bad = [row for row in entry["services"] if row["failed"] or _looping(row)]
    if bad and not any(_coming(row) for row in entry["services"] if row not in bad):
        return True
    final = [row["since"] for row in bad if row["failed"]]
    return bool(final) and at - max(final) >= MOMENT


def _coming(row: dict[str, Any]) -> bool:
    return row["state"] not in _AT_REST or row["health"] == "starting"


def _looping(row: dict[str, Any]) -> bool:
    return any(
        task["state"] == "backoff" and max(task["attempt"], task.get("failures", 0)) >= TRIES for task in row["tasks"]
    )


def _ailing(row: dict[str, Any]) -> bool:
    return row["state"] == "backoff" or any(task.get("failures") for task in row["tasks"])


def not_up(row: dict[str, Any]) -> bool:
    return bool(row["failed"]) or (
        row["state"] not in ("completed", "stopped") and (row["ready"] < row["replicas"] or row["state"] != "running")
    )


def _not_up(client: Client, document: dict[str, Any] | None, stack: str, doing: str, when: str) -> Temporary:
    """Every service that is not up: its state, its last lines, and the next step."""
    if document is None or not document["stacks"]:
        return Temporary(f"cannot tell how stack {stack} is doing", code="not-up", hint=f"gorae status {stack}")
    if error := _held_up(document, stack, doing, patience=0):
        return error
    if not document["agent"]["online"]:
        return Temporary(
            f"cannot {doing} {stack}: the agent does not answer {when}".rstrip(), code="not-up", hint="gorae doctor"
        )
    entry = document["stacks"][0]
    if entry.get("update") and entry["update"]["phase"] == "paused":
        return Temporary(
            f"cannot {doing} {stack}: the change is paused: {entry['update']['message']}",
            code="paused",
            hint=f"gorae logs {stack}; gorae up again goes on, gorae rollback {stack} goes back",
        )
    bad = [row for row in entry["services"] if not_up(row)]
    # When others are not waited for, no more can be said of them yet; but of what was up, and did not stay so.
    early = [] if when else [row for row in bad if not row["failed"] and _coming(row) and not _ailing(row)]
    bad = [row for row in bad if row not in early]
    # What others wait for comes first: it is the reason.
    bad.sort(key=lambda row: row["state"] == "waiting")
    paragraphs = []
    for row in bad[:8]:
        ready = f" ({row['ready']} of {row['replicas']} ready)" if row["replicas"] > 1 else ""
        text = [f"cannot {doing} {stack}/{row['name']}{ready}: {state_text(row, document['at'])} {when}".rstrip()]
        lines = proof(row)[1][-8:] or _log_tail(client, stack, row)
        paragraphs.append("\n".join([*text, *(f"  │ {cut(line, 200)}" for line in lines)]))
    if len(bad) > 8:
        paragraphs.append(f"and {count(len(bad) - 8, 'more service')}")
    if early and bad:
        names = ", ".join(row["name"] for row in early[:8]) + (" …" if len(early) > 8 else "")
        paragraphs.append(f"not waited for: {names}; gorae goes on with what is not up yet")
    first = bad[0] if bad else None
    hint = f"gorae logs {stack}/{first['name']}" if first else f"gorae status {stack}"
    own = [t["evidence"].get("hint") for t in (first["tasks"] if first else ()) if t.get("evidence")]
    hint = next((str(text) for text in own if text), hint)
    return Temporary("\n".join(paragraphs) or f"cannot {doing} {stack} {when}", code="not-up", hint=hint)


def _log_tail(client: Client, stack: str, row: dict[str, Any]) -> list[str]:
    if row["state"] == "waiting" or not any(task["attempt"] for task in row["tasks"]):
        return []
    from agent.kit.errors import GoraeError

    try:
        with client.stream("GET", "/v1/logs", stack=stack, service=row["name"], tail=5) as stream:
            return [line["text"] for line in stream if line["kind"] == "line"][-5:]
    except GoraeError:
        return []  # the reason for the failure matters more than its log


def _progress(update: dict[str, Any] | None, service: str) -> str:
    """How far a change of the service is, if there is one."""
    if not update or service not in update["services"]:
        return ""
    done = update["services"][service]
    return f", {done['done']} of {done['of']}" + (" back" if update["phase"] == "rolling-back" else "")


class _Shown:
    """Draws on a terminal; elsewhere says each change of a service once."""

    def __init__(self, screen: Screen) -> None:
        self.live = screen.live
        self._screen = screen
        self._last: dict[str, str] = {}
        self.rolled = False  # the change went on in steps, each of a generation

    def update(self, document: dict[str, Any]) -> None:
        self.rolled = self.rolled or any(stack.get("update") for stack in document["stacks"])
        if self.live:
            self._screen.draw(brief(document, self._screen))
            return
        for stack in document["stacks"]:
            for row in stack["services"]:
                text = f"{row['ready']}/{row['replicas']} {state_text({**row, 'tasks': []}, 0)}"
                if not document.get("drained"):
                    text += _progress(stack.get("update"), row["name"])
                if self._last.get(row["name"]) != text:
                    self._last[row["name"]] = text
                    self._screen.line(f"{stack['name']}/{row['name']}  {text}")
        self._screen.stream.flush()

    def finish(self) -> None:
        self._screen.erase()
