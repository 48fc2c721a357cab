"""How many, how much, and what after an exit: keys that a service and its `deploy` (deploy.md) say in two places.

A limit said in both must be the same in both; of `restart` and deploy.restart_policy the latter counts. 0 and -1
stand for no limit.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from orchestrator.compose import units
from orchestrator.compose.context import Context
from orchestrator.compose.model import ResourcesModel, RestartModel, UpdateModel
from orchestrator.compose.nodes import Node, below, fields, text

MAX_REPLICAS = 1000
_RESTART = re.compile(r"(no||always|unless-stopped|on-failure)(?::(\d{1,9}))?", re.ASCII)
_JOBS = ("replicated-job", "global-job")
_CONDITIONS: dict[str, Any] = {"none": "no", "on-failure": "on-failure", "any": "always"}


def restart(service: dict[str, Node], path: str, context: Context) -> RestartModel:
    """A job is done when it has exited with 0: what would start it again is on-failure at most."""
    said = _restarts(service, path, context)
    if job(service) and said.condition not in ("no", "on-failure"):
        return said.model_copy(update={"condition": "on-failure"})
    return said


def job(service: dict[str, Node]) -> bool:
    return _mode(service) in _JOBS


def _mode(service: dict[str, Node]) -> str:
    return text(fields(service.get("deploy")).get("mode")) or "replicated"


def _restarts(service: dict[str, Node], path: str, context: Context) -> RestartModel:
    plain = context.value(service.get("restart"), f"{path}.restart", _restart) or RestartModel()
    node = fields(service.get("deploy")).get("restart_policy")
    if node is None or not isinstance(node.value, dict):
        return plain
    policy, where = node.value, f"{path}.deploy.restart_policy"
    return RestartModel(
        condition=_CONDITIONS.get(text(policy.get("condition")) or "any", "default"),  # others: honesty.py
        max_attempts=context.value(policy.get("max_attempts"), f"{where}.max_attempts", _attempts),
        delay=context.value(policy.get("delay"), f"{where}.delay", units.span),
        window=context.value(policy.get("window"), f"{where}.window", units.span),
    )


def _restart(written: str) -> RestartModel:
    found = _RESTART.fullmatch(written)
    if not found or (found[2] and found[1] != "on-failure"):
        raise ValueError("it is one of no, always, unless-stopped, on-failure and on-failure:TIMES")
    condition: Any = found[1] or "default"  # empty, as left by a variable that is not set
    return RestartModel(condition=condition, max_attempts=int(found[2]) if found[2] else None)


def _attempts(count: int) -> int:
    if count >= 10**9:
        raise ValueError("nobody counts so far; leave it out for no limit")
    return count


def replicas(service: dict[str, Node], path: str, context: Context) -> int:
    """A global service has one on every machine, and here is one."""
    count = _either(service, path, "scale", "deploy.replicas", _replicas, context)
    if _mode(service) in ("global", "global-job") and count is not None:
        where = service.get("scale") or below(service, "deploy.replicas")
        context.report.problem(
            where, f"cannot give {path} a number of replicas: a global service has one", "leave it out"
        )
    return 1 if count is None else count


def _replicas(count: int) -> int:
    if not 0 <= count <= MAX_REPLICAS:
        raise ValueError(f"a number of replicas is 0 to {MAX_REPLICAS}")
    return count


_UNSAID = UpdateModel()


def update(service: dict[str, Node], key: str, path: str, context: Context) -> UpdateModel:
    """`key`: update_config or rollback_config."""
    node = below(service, f"deploy.{key}")
    if node is None:
        return _UNSAID
    said, where = fields(node), f"{path}.deploy.{key}"
    order: Any = text(said.get("order")) or None
    action: Any = text(said.get("failure_action")) or None
    return UpdateModel(
        parallelism=context.value(said.get("parallelism"), f"{where}.parallelism", _parallelism),
        delay=context.value(said.get("delay"), f"{where}.delay", units.span) or 0.0,
        failure_action=action if action in ("continue", "pause", "rollback") else None,  # others: honesty.py
        monitor=context.value(said.get("monitor"), f"{where}.monitor", units.span),
        max_failure_ratio=context.value(said.get("max_failure_ratio"), f"{where}.max_failure_ratio", _ratio) or 0.0,
        order=order if order in ("start-first", "stop-first") else None,
    )


def _parallelism(count: int) -> int:
    if not 0 <= count <= MAX_REPLICAS:
        raise ValueError(f"it is 0, for all at once, to {MAX_REPLICAS}")
    return count


def _ratio(number: float) -> float:
    if not 0 <= number <= 1:
        raise ValueError("it is a share, from 0 to 1")
    return float(number)


def resources(service: dict[str, Node], path: str, context: Context) -> ResourcesModel:
    limits, reservations = "deploy.resources.limits", "deploy.resources.reservations"
    memory = _either(service, path, "mem_limit", f"{limits}.memory", _limit, context)
    reserved = _either(service, path, "mem_reservation", f"{reservations}.memory", _limit, context)
    cpus = _either(service, path, "cpus", f"{limits}.cpus", units.cores, context)
    cpus_reserved = context.value(below(service, f"{reservations}.cpus"), f"{path}.{reservations}.cpus", units.cores)
    pids = _either(service, path, "pids_limit", f"{limits}.pids", _pids, context)
    if memory and reserved and reserved > memory:
        node = service.get("mem_reservation") or below(service, f"{reservations}.memory")
        context.report.problem(node, f"cannot reserve more memory for {path} than its limit")
    if cpus and cpus_reserved and cpus_reserved > cpus:
        context.report.problem(
            below(service, f"{reservations}.cpus"), f"cannot reserve more cpus for {path} than its limit"
        )
    return ResourcesModel(
        memory=memory or None,
        memory_reservation=reserved or None,
        cpus=cpus or None,
        cpus_reservation=cpus_reserved or None,
        pids=pids,
    )


def _limit(written: str) -> int:
    return 0 if written == "-1" else units.size(written)


def _pids(count: int) -> int:
    if not -1 <= count < 2**31:
        raise ValueError("a limit of processes is 1 or more, or -1 for none")
    return max(count, 0)


def _either(
    service: dict[str, Node], path: str, short: str, long: str, understand: Callable[[Any], Any], context: Context
) -> Any:
    """Of two keys that say the same thing; check.py has seen that they do."""
    written, deployed = service.get(short), below(service, long)
    first = written and context.value(written, f"{path}.{short}", understand)
    second = deployed and context.value(deployed, f"{path}.{long}", understand)
    return first or second if second is not None else first
