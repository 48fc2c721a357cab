"""Run gorae's daemons: the bus, the agent and the orchestrator. Needs root.

In the foreground until SIGTERM or Ctrl-C; whichever dies is started again. Stopping the daemons stops no container.
--detach puts them into the background and returns when the API answers.
"""

from __future__ import annotations

import argparse
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

from agent.kit import disk
from agent.kit.errors import GoraeError, Temporary, UserError
from agent.kit.layout import Layout
from agent.wire import broker
from orchestrator.cli import household
from orchestrator.cli.client import Client, Unreachable
from orchestrator.cli.supervisor import Supervisor, User, log

PATIENCE = 60.0  # seconds for the API to answer, and for the daemons to stop


def register(parser: argparse.ArgumentParser) -> None:
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--detach", action="store_true", help="start in the background, return when the API answers")
    how.add_argument("--stop", action="store_true", help="stop the daemons; containers go on running")


def run(arguments: argparse.Namespace) -> int:
    if os.geteuid() != 0:
        raise UserError("cannot run the daemons: that needs root", code="not-root", hint="sudo gorae daemon")
    if arguments.root is None:
        arguments.root = os.environ.get("GORAE_ROOT") or None
    layout = Layout.at(arguments.root)
    if arguments.stop:
        return _stop(layout)
    if arguments.detach:
        return _detach(layout, arguments.root)
    os.umask(0o022)
    layout.state.mkdir(parents=True, exist_ok=True)
    lock = household.hold(layout)
    try:
        orchestrator = _orchestrator_user()
        household.directories(layout, orchestrator)
        broker.prepare(layout)  # a missing mosquitto is said now, not as a restart loop
        log(f"starting in {layout.state}, API at {layout.api_socket}")
        code = Supervisor(household.daemons(layout, arguments.root, orchestrator), log).run()
        log(_stopped(layout))
        return code
    finally:
        os.close(lock)


def _orchestrator_user() -> User | None:
    user = household.account(household.ORCHESTRATOR_USER, broker.USER)
    if user is None:
        log("note: there is no user gorae, so the orchestrator runs as root; deploy/setup makes that user")
        return None
    missing = household.unreadable(user)
    if missing is not None:
        log(f"note: user gorae cannot read {missing}, so the orchestrator runs as root; deploy/setup cures that")
        return None
    return user


def _detach(layout: Layout, root: str | None) -> int:
    running = household.holder(layout)
    if running is not None:
        _answering(root, running, layout)
        print(f"gorae already runs (process {running})")
        return 0
    layout.state.mkdir(parents=True, exist_ok=True)
    log_file = layout.state / "daemon.log"
    arguments = [] if root is None else ["--root", str(Path(root).absolute())]
    with log_file.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "orchestrator.cli.main", "daemon", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd="/",
            start_new_session=True,
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, [str(household.CODE), os.environ.get("PYTHONPATH")])),
            },
        )
    _answering(root, process.pid, layout)
    print(f"gorae runs (process {process.pid}), log {log_file}")
    return 0


def _answering(root: str | None, pid: int, layout: Layout) -> None:
    """Wait until the API answers. Nothing tells when a socket of another process begins to listen, so this asks, ten
    times a second at most, and notices at once when that process dies."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        raise _dead(layout) from None
    deadline = time.monotonic() + PATIENCE
    try:
        while True:
            try:
                Client(root).get("/v1/version")
                return
            except GoraeError as error:
                if not isinstance(error, Unreachable):
                    raise
            if select.select([pidfd], [], [], 0.1)[0]:
                raise _dead(layout)
            if time.monotonic() > deadline:
                why = disk.trouble(layout.state)  # which may keep it out of the log, too
                raise Temporary(
                    f"cannot reach the API: process {pid} runs, but did not answer for {PATIENCE:g} s"
                    + (f": {why}" if why else f"\n{_tail(layout)}"),
                    code="daemon-slow",
                    hint="gorae doctor" if why else f"less {layout.state / 'daemon.log'}",
                )
    finally:
        os.close(pidfd)


def _dead(layout: Layout) -> Temporary:
    return Temporary(
        f"cannot start gorae: its daemon ended\n{_tail(layout)}",
        code="daemon-ended",
        hint=f"gorae doctor, or less {layout.state / 'daemon.log'}",
    )


def _tail(layout: Layout) -> str:
    try:
        with (layout.state / "daemon.log").open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
            lines = file.read().decode(errors="replace").splitlines()[-6:]
    except OSError:
        return ""
    return "\n".join(f"  │ {line}" for line in lines)


def _stop(layout: Layout) -> int:
    pid = household.holder(layout)
    if pid is None:
        print("gorae does not run")
        return 0
    pidfd = os.pidfd_open(pid)
    try:
        if household.holder(layout) != pid:  # the number may have been taken over before we held it
            print("gorae has just ended")
            return 0
        signal.pidfd_send_signal(pidfd, signal.SIGTERM)
        if not select.select([pidfd], [], [], PATIENCE)[0]:
            raise Temporary(
                f"cannot stop gorae: process {pid} did not end in {PATIENCE:g} s",
                code="daemon-slow",
                hint=f"kill {pid}",
            )
    finally:
        os.close(pidfd)
    print(f"gorae is {_stopped(layout)}")
    return 0


def _stopped(layout: Layout) -> str:
    """A container has a directory for as long as it runs, and until the agent has seen its end."""
    return "stopped" + ("; containers go on running" if any(layout.run_tasks.glob("*/[0-9]*")) else "")
