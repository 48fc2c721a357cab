"""Commands that belong to a task's life besides its own: which are to run now, and as what process. Pure.

pre_start before the first attempt's program, in its container; post_start after each start, and until it is done the
task is not ready; pre_stop before the stop signal. Compose Specification, 05-services.md; pre_start: docker compose 5.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.decide.oci_config import EVERY_CAPABILITY, plain_directory
from agent.decide.record import TaskRecord
from agent.kit.errors import Permanent
from agent.ports import UserIds
from agent.wire.messages import Hook, Task


def before(task: Task, record: TaskRecord) -> tuple[Hook, ...]:
    """pre_start commands of the attempt that is about to begin. What is not `per_replica` is the first slot's."""
    if record.primed:
        return ()
    return tuple(hook for hook in task.container.pre_start if hook.per_replica or task.slot == 1)


def holds(task: Task, record: TaskRecord) -> bool:
    """Whether the program of the attempt that is about to begin waits for something, once its container is made."""
    return bool(before(task, record)) or task.container.attended


def due(task: Task | None, record: TaskRecord) -> Hook | None:
    """The post_start or pre_stop command that should be running."""
    todo: tuple[Hook, ...] = ()
    stop = record.stop
    if record.state == "running" and record.greeting and task is not None:
        todo = task.policy.post_start
    elif record.state == "stopping" and stop is not None and stop.hooked is not None and stop.deadline is None:
        todo = record.ending.hooks
    return next(iter(todo[progress(record) :]), None)


def progress(record: TaskRecord) -> int:
    """How many of the post_start or pre_stop commands are done, as far as others follow: journalled, so that the next
    agent does not run them again."""
    return record.stop.ran if record.stop is not None else record.greeted


def process_spec(config: Mapping[str, Any], hook: Hook, ids: UserIds | None) -> dict[str, Any]:
    """The process of config.json with the hook's own command, user, environment and place. `ids`: of hook.user.
    Permanent bad-workdir."""
    base: dict[str, Any] = {**config["process"], "args": list(hook.command), "terminal": False}
    if hook.working_dir is not None:
        if not plain_directory(hook.working_dir):
            raise Permanent(
                f"cannot run a command in {hook.working_dir!r}: it is not a plain absolute path",
                code="bad-workdir",
                hint='give an absolute path without ".." outside /proc',
            )
        base["cwd"] = hook.working_dir
    merged = dict(entry.partition("=")[::2] for entry in base["env"]) | hook.environment
    base["env"] = [f"{key}={value}" for key, value in merged.items()]
    if ids is not None:
        user = {"uid": ids.uid, "gid": ids.gid, "additionalGids": list(ids.groups), "umask": 0o022}
        held = list(base["capabilities"]["bounding"]) if ids.uid == 0 else []
        base |= {"user": user, "capabilities": {**base["capabilities"], "effective": held, "permitted": held}}
    if hook.privileged:
        every = list(EVERY_CAPABILITY)
        base["capabilities"] = dict.fromkeys(("bounding", "effective", "permitted"), every)
    return base
