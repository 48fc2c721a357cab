"""What there is to say of one task's container, for people who look closely. Pure: of its record, and of the config
that its attempt was started with (OCI runtime-spec, config.md)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.decide.record import TaskRecord
from agent.kit.masking import masked


def document(record: TaskRecord, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """`config`: None when the attempt's bundle is gone, or was never made. Values that look like secrets are hidden."""
    joined = record.joined
    return masked(  # type: ignore[no-any-return]
        {
            "task": record.id,
            "stack": record.stack,
            "service": record.service,
            "slot": record.slot,
            "template": record.template,
            "image_id": record.image_id,
            "state": record.state,
            "attempts": {
                "attempt": record.attempt,
                "restarts": record.restarts,
                "failures": record.failures,
                "retries": record.retries,
                "started_at": record.started_at,
                "next_at": record.until,
                "last_exit": None if record.exit is None else _exit(record),
            },
            "network": {
                "address": (joined.address if joined else record.allocation.address) or None,
                "address_6": (joined.address_6 if joined else record.allocation.address_6) or None,
                "virtual": record.virtual or None,
                "of_task": joined.task if joined else None,
                "ports": [port.model_dump(mode="json") for port in record.allocation.ports],
            },
            "uid_base": joined.uid_base if joined else record.allocation.uid_base,
            "resources": record.resources.model_dump(mode="json"),
            "process": None if record.process is None else {"pid": record.process.pid, "conmon": record.process.conmon},
            "container": None if config is None else essentials(config),
        }
    )


def _exit(record: TaskRecord) -> dict[str, Any]:
    assert record.exit is not None
    last = record.exit
    return {"code": last.code, "signal": last.signal, "oom": last.oom, "at": last.at}


def essentials(config: Mapping[str, Any]) -> dict[str, Any]:
    process, linux = config.get("process", {}), config.get("linux", {})
    return {
        "command": process.get("args", []),
        "environment": process.get("env", []),
        "working_dir": process.get("cwd", "/"),
        "user": process.get("user", {}),
        "terminal": process.get("terminal", False),
        "capabilities": sorted(process.get("capabilities", {}).get("bounding", [])),
        "no_new_privileges": process.get("noNewPrivileges", False),
        "rlimits": process.get("rlimits", []),
        "hostname": config.get("hostname", ""),
        "read_only": config.get("root", {}).get("readonly", False),
        "mounts": [
            {key: mount.get(key) for key in ("destination", "type", "source", "options")}
            for mount in config.get("mounts", [])
        ],
        "namespaces": [one.get("type") for one in linux.get("namespaces", [])],
        "seccomp": "seccomp" in linux,
        "masked_paths": linux.get("maskedPaths", []),
        "read_only_paths": linux.get("readonlyPaths", []),
    }
