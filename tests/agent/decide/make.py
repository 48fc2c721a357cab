"""Short ways to make the values that decisions look at."""

from __future__ import annotations

from typing import Any

from agent.decide.health import Check
from agent.decide.record import Stop, TaskRecord
from agent.decide.view import Seen, World
from agent.ports import Allocation, Exit, Found, ImageConfig, Process
from agent.wire.messages import (
    Assignment,
    ContainerSpec,
    Dependency,
    Healthcheck,
    Policy,
    PublishedPort,
    Resources,
    Restart,
    Task,
)

BOOT = "boot-1.run"
NOW = 1_700_000_000.0
IMAGE = ImageConfig(id="sha256:1", layers=("sha256:2",))
PROCESS = Process(pid=100, start_ticks=7, conmon=99)
PORT = PublishedPort(target=80, published=8080)


def task(
    id_: str = "t1",
    service: str = "web",
    slot: int = 1,
    *,
    restart: str | Restart = "always",
    needs: tuple[Dependency, ...] = (),
    check: Healthcheck | None = None,
    grace: float = 10.0,
    resources: Resources | None = None,
    container: dict[str, Any] | None = None,
    policy: dict[str, Any] | None = None,
    **fields: Any,
) -> Task:
    made = Policy(
        restart=Restart.model_validate({"condition": restart}) if isinstance(restart, str) else restart,
        healthcheck=check,
        stop_grace=grace,
        depends_on=needs,
        resources=resources or Resources(),
        **(policy or {}),
    )
    spec = ContainerSpec(image="web:1", image_id="sha256:1", **(container or {}))
    return Task(id=id_, service=service, slot=slot, template="a", container=spec, policy=made, **fields)


def allocation(index: int = 0, ports: tuple[PublishedPort, ...] = ()) -> Allocation:
    return Allocation(index, f"10.181.0.{16 + index}", 0x7000_0000 + index * 65536, ports)


def record(id_: str = "t1", service: str = "web", **fields: Any) -> TaskRecord:
    base: dict[str, Any] = {
        "id": id_,
        "stack": "shop",
        "service": service,
        "slot": 1,
        "template": "a",
        "allocation": allocation(),
        "boot": BOOT,
        "met": BOOT,
    }
    if fields.get("state") in ("running", "stopping"):
        base |= {"attempt": 1, "process": PROCESS, "started_at": NOW - 100}
    if fields.get("state") == "stopping":
        base["stop"] = Stop("stopped")
    return TaskRecord(**{**base, **fields})


def alive(attempt: int = 1, process: Process = PROCESS) -> Found:
    return Found("t1", attempt, process, None)


def over(code: int | None = 0, attempt: int = 1, *, oom: bool = False, at: float = NOW) -> Found:
    return Found("t1", attempt, None, Exit(code, None, oom, at))


def seen(*attempts: Found, **fields: Any) -> Seen:
    return Seen(attempts=attempts, **{"named": 0, "frozen": False, **fields})


def world(**fields: Any) -> World:
    return World(**{"boot": BOOT, **fields})


def check(**fields: Any) -> Check:
    base = {"interval": 30.0, "timeout": 30.0, "retries": 3, "start_period": 0.0, "start_interval": 5.0}
    return Check(spec=Healthcheck(kind="exec", test=("CMD", "true")), **{**base, **fields})


def assignment(*tasks: Task, stack: str = "shop", generation: int = 1, store: str = "S1", **fields: Any) -> Assignment:
    return Assignment(store_id=store, stack=stack, generation=generation, tasks=tasks, **fields)
