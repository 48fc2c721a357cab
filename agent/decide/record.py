"""What the agent knows of one task, journalled at every step: the whole memory a decision needs.

Values only: nothing here reads a clock or changes in place. A record is replaced, written to the journal, and only then
acted upon or reported. Times are Unix seconds, because they outlive a boot.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import TypeAdapter

from agent.decide.health import HealthState
from agent.ports import Allocation, Exit, ImageConfig, Process
from agent.wire.messages import Health, Hook, Resources, Restart, State, Task, TaskStatus


@dataclass(frozen=True, slots=True)
class Ending:
    """How the task is to be stopped. Copied from its spec while that is known: a task to be removed has none left."""

    signal: int = int(signal.SIGTERM)
    grace: float = 10.0  # seconds
    drain: float = 5.0  # seconds
    hooks: tuple[Hook, ...] = ()  # pre_stop
    needs: tuple[str, ...] = ()  # services it depends on, which outlive it when both are to go
    once: bool = False  # its anonymous volumes go with it


@dataclass(frozen=True, slots=True)
class Joined:
    """Another task's sandbox that a task is in: whose, which one of its lives (`space`), and what comes with it.
    `address` "": it is on no network."""

    task: str
    space: str
    address: str
    uid_base: int
    address_6: str = ""


@dataclass(frozen=True, slots=True)
class Stop:
    """A stop under way, in this order: it drains until `drained`, runs its pre_stop commands until `hooked`, and is
    signalled, to end by `deadline`; None: not so far yet. Times are Unix seconds. `ran`: so many pre_stop commands, of
    those that are not the last, are done. `quick`: it does not drain.
    `delay`: of the attempt that follows, if one does. `fresh`: that attempt gets nothing of what this one wrote."""

    then: Literal["stopped", "backoff", "failed", "removed"]
    deadline: float | None = None
    delay: float = 0.0
    drained: float | None = None
    hooked: float | None = None
    ran: int = 0
    quick: bool = False
    fresh: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRecord:
    id: str
    stack: str
    service: str
    slot: int
    template: str
    image_id: str = ""  # "": of a record that an older version wrote
    state: State = "pending"
    since: float = 0.0  # when `state` was entered
    allocation: Allocation
    virtual: str = ""  # its service's virtual address; "": none
    space: str = ""  # the boot and the namespaces of its own sandbox; "": none was made yet
    joined: Joined | None = None  # the sandbox it is in, if that is another's
    attempt: int = 0  # number of the attempt begun last; 0: none
    process: Process | None = None
    boot: str = ""  # the run (world.boot) in which its state was last looked at
    met: str = ""  # the run in which its dependencies were met
    upstream: dict[str, str] = field(default_factory=dict)  # depends.upstream() when the attempt was started
    primed: bool = False  # its pre_start commands have done their work
    greeting: bool = False  # its post_start commands are not done yet
    greeted: int = 0  # but so many of this attempt's are
    paused: bool = False
    started_at: float | None = None
    exit: Exit | None = None  # of the last attempt that ended
    failures: int = 0  # in a row; the exponent of the backoff
    retries: int = 0  # restarts by policy since the user started it; what max_attempts limits
    restarts: int = 0  # attempts after the first
    until: float | None = None  # backoff: when the next attempt starts
    restart_request: int = 0  # the newest one honoured
    policy: Restart | None = None  # at rest: the policy that let it rest
    resources: Resources = field(default_factory=Resources)  # as applied to the running attempt
    health: HealthState = field(default_factory=HealthState)
    stop: Stop | None = None
    ending: Ending = Ending()
    mounts: dict[str, str] = field(default_factory=dict)  # bind source → the mount of the host it lay on when accepted
    reason: str = ""
    message: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)
    cause: str | None = None  # id of the task's last event


_JSON = TypeAdapter(TaskRecord)


def dump(record: TaskRecord) -> str:
    return _JSON.dump_json(record, exclude_defaults=True).decode()


def load(document: str) -> TaskRecord:
    """ValueError for what is no record; fields of another version are ignored."""
    return _JSON.validate_json(document)


def ending(task: Task, image: ImageConfig | None) -> Ending:
    """Signal: the service's, else the image's, else TERM (OCI image spec, config.StopSignal)."""
    name = task.policy.stop_signal or (image.stop_signal if image else "")
    return Ending(
        signal=signal_number(name) or int(signal.SIGTERM),
        grace=max(0.0, task.policy.stop_grace),
        drain=task.policy.drain,
        hooks=task.policy.pre_stop,
        needs=tuple(sorted({d.service for d in task.policy.depends_on})),
        once=task.container.once,
    )


def signal_number(name: str) -> int | None:
    """Of "SIGTERM", "term", "15" or "SIGRTMIN+3"; None when there is no such signal."""
    text = name.strip().upper()
    if len(text) > 20:
        return None
    if text.isdecimal():
        number = int(text)
        return number if 1 <= number <= int(signal.SIGRTMAX) else None
    base, _, offset = text.removeprefix("SIG").partition("+")
    found = signal.Signals.__members__.get("SIG" + base)
    if found is None or (offset and (base != "RTMIN" or not offset.isdecimal())):
        return None
    number = int(found) + int(offset or 0)
    return number if number <= int(signal.SIGRTMAX) else None


def health_of(record: TaskRecord) -> Health:
    """As others see it: one whose post_start commands still run is not ready for anybody."""
    if record.state != "running":
        return "none"
    return "starting" if record.greeting else record.health.status


def status(record: TaskRecord) -> TaskStatus:
    """The public face of a record. No validation: every value here is already ours."""
    running = record.state in ("running", "stopping")
    return TaskStatus.model_construct(
        id=record.id,
        service=record.service,
        slot=record.slot,
        template=record.template,
        state=record.state,
        health=health_of(record),
        attempt=record.attempt,
        restarts=record.restarts,
        failures=record.failures,
        paused=record.paused and record.state == "running",
        since=record.since,
        started_at=record.started_at,
        pid=record.process.pid if record.process and running else None,
        exit_code=None if record.exit is None else record.exit.code,
        oom=record.exit is not None and record.exit.oom,
        reason=record.reason,
        message=record.message,
        evidence=record.evidence,
        next_at=record.until if record.state == "backoff" else None,
        address=(record.joined.address if record.joined else record.allocation.address) or None,
        ports=record.allocation.ports,
        restart_request=record.restart_request,
    )
