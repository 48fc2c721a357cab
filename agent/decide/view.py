"""What a decision looks at: the task as assigned, its record, what is seen of it, and the world around it.

All values. `Seen` is the only place where an effect's success shows, so that no state is ever entered on hope.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from agent.decide.depends import OPEN, Gate
from agent.decide.health import Check
from agent.decide.record import Ending, Joined, TaskRecord
from agent.kit import backoff
from agent.ports import Found, ProbeResult, Serving
from agent.wire.messages import Resources, Task

RETRY_FIRST, RETRY_CAP = 0.2, 30.0  # seconds


@dataclass(frozen=True, slots=True)
class Trouble:
    """An action that failed and has not succeeded since. `count`: failures in a row; `at`: the last one."""

    action: str
    permanent: bool
    code: str
    message: str
    evidence: dict[str, Any] = field(default_factory=dict)
    count: int = 1
    at: float = 0.0

    @property
    def retry_at(self) -> float:
        return self.at + backoff.delay(self.count, first=RETRY_FIRST, cap=RETRY_CAP)


@dataclass(frozen=True, slots=True)
class Probed:
    attempt: int
    result: ProbeResult
    age: float  # seconds from the attempt's start to the probe's
    at: float


@dataclass(frozen=True, slots=True)
class Hooked:
    """How the commands of a hook went: all of them, or the first that failed."""

    ok: bool
    message: str = ""
    evidence: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Flows:
    """Connections to the task that were open."""

    count: int
    at: float


@dataclass(frozen=True, slots=True)
class Seen:
    attempts: tuple[Found, ...] = ()
    prepared: bool = False  # everything of Prepare is there; False after an agent's start: it is made sure again
    leftovers: bool = False  # some part of a sandbox, root file system, mount or network may be there
    published: Serving | None = None  # None: not known
    space: str = ""  # its sandbox's, as prepared
    named: int | None = None  # version of the peers in /etc/hosts; None: not known
    resources: Resources | None = None  # applied; None: as recorded
    frozen: bool | None = None  # of the newest attempt; None: not known
    flows: Flows | None = None
    hooked: Hooked | None = None  # of the state's own hook; None: not done
    signalled: bool = False
    killed_at: float | None = None
    tail: tuple[str, ...] | None = None
    probes: tuple[Probed, ...] = ()
    troubles: tuple[Trouble, ...] = ()

    def attempt(self, number: int) -> Found | None:
        return next((f for f in self.attempts if f.attempt == number), None)

    def trouble(self, action: type) -> Trouble | None:
        return next((t for t in self.troubles if t.action == action.__name__), None)

    def found(self, found: Found) -> Seen:
        """With `found` in place of what was known of that attempt."""
        others = tuple(f for f in self.attempts if f.attempt != found.attempt)
        return replace(self, attempts=(*others, found))

    def cleaned(self, attempt: int) -> Seen:
        return replace(self, attempts=tuple(f for f in self.attempts if f.attempt != attempt))

    def failed(self, trouble: Trouble) -> Seen:
        before = next((t for t in self.troubles if t.action == trouble.action), None)
        counted = replace(trouble, count=before.count + 1 if before else 1)
        return replace(self, troubles=(*(t for t in self.troubles if t is not before), counted))

    def entered(self) -> Seen:
        """At a change of state: what was seen of the state before is used up."""
        return replace(
            self,
            troubles=(),
            tail=None,
            probes=(),
            signalled=False,
            killed_at=None,
            flows=None,
            hooked=None,
        )

    def worked(self, action: type) -> Seen:
        if not self.troubles:
            return self
        return replace(self, troubles=tuple(t for t in self.troubles if t.action != action.__name__))


@dataclass(frozen=True, slots=True)
class World:
    """`boot`: changes with a reboot of the host, or when gorae's runtime directory is lost."""

    boot: str
    gate: Gate = OPEN
    slot_free: bool = True  # no other task of the slot is left
    holders: tuple[str, ...] = ()  # services that must have stopped before this task stops
    company: bool = False  # another task of its service runs, while this one is to be run again
    upstream: Mapping[str, str] = field(default_factory=dict)  # depends.upstream() now
    renewed: str = ""  # a service whose restart this task is to follow
    check: Check | Literal["unknown"] | None = None
    ending: Ending | None = None  # by spec and image; None: not known
    unmounted: tuple[str, ...] = ()  # mounts of the host on which its binds lay, and that are not there now
    virtual: str = ""  # its service's virtual address; "": none
    joined: Joined | None = None  # the sandbox of another task that it is to be in
    network: Gate = OPEN  # whether that is there; open for a task with a network of its own, or none
    gone: str = ""  # why it is not assigned any more
    peers: int = 0  # version of the names on its networks
    roll: float = 0.5  # in [0, 1): the caller's random number


@dataclass(frozen=True, slots=True)
class View:
    """Everything of one decision. `task` None: no longer assigned."""

    task: Task | None
    record: TaskRecord
    seen: Seen
    world: World
    now: float

    @property
    def current(self) -> Found | None:
        """What is seen of the record's own attempt."""
        return self.seen.attempt(self.record.attempt)

    @property
    def alive(self) -> bool:
        found = self.current
        return found is not None and found.process is not None

    @property
    def wanted(self) -> bool:
        """Whether it is assigned, and to have a process."""
        return self.task is not None and self.task.wanted
