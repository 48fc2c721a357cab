"""What root can still learn when the orchestrator is down: the agent's own account, in the shape of the API's."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any

from orchestrator.cli.client import Unreachable, ask_agent

_STATES = {"preparing": "starting", "pending": "waiting", "removed": "stopping"}
_ORDER = ("failed", "backoff", "stopping", "starting", "waiting", "running", "completed", "stopped")


def status(root: str | None, why: Unreachable) -> dict[str, Any]:
    """A status document, as docs/api.md has it. Raises `why` when the agent is away too."""
    try:
        stacks = next(value for kind, value in ask_agent(root, "status") if kind == "result")
    except Unreachable:
        raise why from None
    print("note  the orchestrator is down: this is what the agent says", file=sys.stderr)
    drained = [task["since"] for entry in stacks for task in entry["tasks"] if task["reason"] == "host-drained"]
    return {
        "version": 1,
        "at": time.time(),
        "agent": {"online": True, "since": None},
        "drained": min(drained, default=None),
        "stacks": [_stack(entry) for entry in sorted(stacks, key=lambda entry: str(entry["stack"]))],
    }


def logs(root: str | None, why: Unreachable, after: str, query: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Client.batches, of the agent itself. Raises `why` when that is away too."""
    wanted = {**query, "services": list(query["service"]) or None, "after": after or None}
    del wanted["service"]
    noted = False
    try:
        for answer in ask_agent(root, "logs", **{key: value for key, value in wanted.items() if value is not None}):
            if not noted:
                print("note  the orchestrator is down: these logs come from the agent", file=sys.stderr, flush=True)
                noted = True
            yield answer
    except Unreachable as error:
        raise (error if noted else why) from None


def _stack(entry: dict[str, Any]) -> dict[str, Any]:
    names = sorted({task["service"] for task in entry["tasks"]})
    services = [_service(name, [task for task in entry["tasks"] if task["service"] == name]) for name in names]
    return {
        "name": entry["stack"],
        "generation": entry["observed_generation"],
        "observed_generation": entry["observed_generation"],
        "revision": None,
        "converged": None,
        "state": _first(row["state"] for row in services),
        "services": services,
    }


def _service(name: str, tasks: list[dict[str, Any]]) -> dict[str, Any]:
    state = _first(_STATES.get(task["state"], task["state"]) for task in tasks)
    live = [task for task in tasks if task["state"] == "running"]
    ports = {(p["host_ip"], p["published"], p["target"], p["protocol"]) for task in tasks for p in task["ports"]}
    return {
        "name": name,
        "replicas": len(tasks),
        "ready": sum(task["health"] in ("none", "healthy") for task in live),
        "state": state,
        "health": next(
            (h for h in ("unhealthy", "starting", "healthy") if any(t["health"] == h for t in live)), "none"
        ),
        "since": max(task["since"] for task in tasks),
        "reason": next((task["reason"] for task in tasks if task["reason"]), ""),
        "message": next((task["message"] for task in tasks if task["message"]), ""),
        "ports": [
            f"{ip or '0.0.0.0'}:{published} → {target}" + ("/udp" if protocol == "udp" else "")
            for ip, published, target, protocol in sorted(ports)
        ],
        "image": "",
        "failed": any(task["state"] == "failed" for task in tasks),
        "tasks": sorted(tasks, key=lambda task: int(task["slot"])),
    }


def _first(states: Any) -> str:
    present = set(states)
    return next((state for state in _ORDER if state in present), "stopped")
