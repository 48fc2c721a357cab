"""Commands that run once in containers of their own: tasks beside the services of a stack's model. Pure.

A run is known by its name, which no service of the model has. Other changes leave it alone while it runs, and take it
away when it is over.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field

from agent.kit.errors import UserError
from agent.wire.messages import Healthcheck, Naming, Restart
from orchestrator.decide.expand import Desired, as_it_is, template, unkeepable
from orchestrator.decide.records import StackRecord


@dataclass(frozen=True, slots=True)
class Wanted:
    """None: as the service has it. `attended`: it begins when somebody is attached."""

    command: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    user: str | None = None
    working_dir: str | None = None
    tty: bool | None = None
    stdin: bool | None = None
    attended: bool = False


def under_way(record: StackRecord | None, over: Collection[str]) -> dict[str, Desired]:
    """The runs of a stack that are not over. `over`: tasks that rest by themselves."""
    if record is None:
        return {}
    services = record.model.get("services", {})
    return as_it_is([task for task in record.goal if task.service not in services and task.id not in over])


def run(service: Desired, name: str, wanted: Wanted) -> Desired:
    """One container of the service, under a name of its own: no ports, no fixed name, no probes, never restarted.
    UserError bad-command for what no program can be given."""
    given = {key: value for key, value in asdict(wanted).items() if value is not None}
    odd = next((f"{key!r} is no name of a variable" for key in wanted.environment if not key or "=" in key), "")
    if problem := odd or unkeepable(given, ""):
        raise UserError(f"cannot run {service.service}: {problem}", code="bad-command", hint="correct that, then again")
    container = service.container.model_copy(
        update={
            **({"command": ()} if wanted.entrypoint is not None else {}),  # it was the other entrypoint's, as in Docker
            **given,
            "environment": {**service.container.environment, **wanted.environment},
            "once": True,
            "ports": (),
            "hostname": None,
            "naming": service.container.naming.model_copy(update={"container": Naming().container}),
            "networks": tuple(on.model_copy(update={"aliases": ()}) for on in service.container.networks),
        }
    )
    policy = service.policy.model_copy(
        update={"restart": Restart(condition="no"), "healthcheck": Healthcheck(kind="none")}
    )
    return Desired(name, 1, container, policy, template(container))
