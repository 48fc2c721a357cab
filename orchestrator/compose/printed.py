"""A project as `gorae config` prints it: the canonical form as JSON or YAML, in the order docker compose prints it.

What is printed loads again to the same project: `$` is written `$$`, and no text looks like another kind of value to a
reader of YAML 1.1 or 1.2. Values only: a key is never interpolated (12-interpolation.md), so its `$` stays.
"""

from __future__ import annotations

import json
from typing import Any

import yaml
from pydantic import ValidationError

from orchestrator.compose.canonical import Project
from orchestrator.compose.canonical_base import Model
from orchestrator.compose.canonical_container import Container
from orchestrator.compose.errors import ComposeError, Problem
from orchestrator.compose.scalars import resolve

# The keys of a service; those of all other models are in the order of their fields.
_SERVICE = """
profiles provider deploy develop restart scale attach container_name external_links links pre_start post_start pre_stop
annotations blkio_config cap_add cap_drop cgroup_parent cgroup cpu_count cpu_percent cpu_period cpu_quota cpu_rt_period
cpu_rt_runtime cpus cpuset cpu_shares command configs credential_spec device_cgroup_rules devices dns dns_opt dns_search
domainname entrypoint environment env_file extra_hosts group_add gpus hostname image init ipc isolation labels
label_file logging mem_limit mem_reservation memswap_limit mem_swappiness mac_address models network_mode networks
oom_kill_disable oom_score_adj pid pids_limit platform privileged pull_policy pull_refresh_after read_only runtime
secrets security_opt shm_size stop_grace_period stop_signal storage_opt sysctls tmpfs ulimits use_api_socket user
userns_mode uts volumes volumes_from working_dir build depends_on expose healthcheck ports stdin_open tty
per_replica x-gorae-healthcheck
"""
SERVICE_ORDER = {key: place for place, key in enumerate(_SERVICE.split())}
_WIDTH = 2**31 - 1  # a text is on one line: folded ones are hard to read


def typed(document: dict[str, Any]) -> dict[str, Any]:
    """The document, each value of the type its model says, each key in its place, names in alphabetical order."""
    try:
        project = Project.model_validate({"services": {}, **document})
    except ValidationError as error:
        # A value that every stage let pass and the model refuses: our mistake, but the user gets a sentence.
        first = error.errors(include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise ComposeError([Problem(None, f"cannot print {where or 'the stack'}: {first['msg']}")]) from error
    ordered: dict[str, Any] = _plain(project)
    return ordered


def _plain(value: Any) -> Any:
    if isinstance(value, Model):
        kind = type(value)
        found = {kind.model_fields[name].alias or name: _plain(getattr(value, name)) for name in _set(value)}
        return dict(sorted(found.items(), key=_place)) if isinstance(value, Container) else found
    if isinstance(value, dict):
        return {key: _plain(value[key]) for key in sorted(value)}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def _set(value: Model) -> list[str]:
    return [name for name in type(value).model_fields if name in value.model_fields_set]


def _place(item: tuple[str, Any]) -> int:
    return SERVICE_ORDER[item[0]]


def alphabetical(value: Any) -> Any:
    """The same, every mapping in alphabetical order: for what is not interpolated, and so has no types yet."""
    if isinstance(value, dict):
        return {key: alphabetical(value[key]) for key in sorted(value)}
    return [alphabetical(item) for item in value] if isinstance(value, list) else value


def escaped(value: Any) -> Any:
    """The same with every `$` of a value doubled."""
    if isinstance(value, dict):
        return {key: escaped(child) for key, child in value.items()}
    if isinstance(value, list):
        return [escaped(child) for child in value]
    return value.replace("$", "$$") if isinstance(value, str) else value


def as_json(document: dict[str, Any]) -> str:
    return json.dumps(dict(sorted(document.items())), indent=2, ensure_ascii=False) + "\n"


def as_yaml(document: dict[str, Any]) -> str:
    """Block style."""
    services = {name: _as_written(service) for name, service in document.get("services", {}).items()}
    shown = {**document, "services": services} if "services" in document else document
    return str(yaml.dump(shown, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=_WIDTH))


def _as_written(service: dict[str, Any]) -> dict[str, Any]:
    """Without what stands in JSON alone: a command that is null, and capital letters in blkio_config."""
    found = {key: value for key, value in service.items() if value is not None}
    if isinstance(blkio := found.get("blkio_config"), dict):
        found["blkio_config"] = {key: _lowered(value) for key, value in blkio.items()}
    return found


def _lowered(value: Any) -> Any:
    return [{key.lower(): item[key] for key in item} for item in value] if isinstance(value, list) else value


class _Dumper(yaml.CSafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> yaml.Node:
    if "\n" in value and not value.startswith(("\n", " ", "\t")):
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, "|")
    # PyYAML quotes what YAML 1.1 would take for something else, but for these; 1.2 has numbers that 1.1 has not.
    quoted = value in ("y", "Y", "n", "N") or not isinstance(resolve(value), str)
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, '"' if quoted else None)


_Dumper.add_representer(str, _text)
