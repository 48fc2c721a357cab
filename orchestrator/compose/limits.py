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
from orchestrator.compose.model import ResourcesModel, RestartModel
from orchestrator.compose.nodes import Node, below, fields, text

MAX_REPLICAS = 1000
_RESTART = re.compile(r"(no||always|unless-stopped|on-failure)(?::(\d{1,9}))?", re.ASCII)
_CONDITIONS: dict[str, Any] = {"none": "no", "on-failure": "on-failure", "any": "always"}


def restart(service: dict[str, Node], path: str, context: Context) -> RestartModel:
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
    count = _either(service, path, "scale", "deploy.replicas", _replicas, context)
    return 1 if count is None else count


def _replicas(count: int) -> int:
    if not 0 <= count <= MAX_REPLICAS:
        raise ValueError(f"a number of replicas is 0 to {MAX_REPLICAS}")
    return count


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
    first = context.value(service.get(short), f"{path}.{short}", understand)
    second = context.value(below(service, long), f"{path}.{long}", understand)
    return first or second if second is not None else first
