"""The one table of Compose keys: which are supported, ignored, warned of or refused, and why.

A key that is not here does not exist in Compose and is an error; `x-…` keys are free and silent (11-extension.md), but
for those that begin `x-gorae`, which are ours. In a path `*` stands for any name and `[]` for an entry of a list.
Supporting a key means: its row here, its meaning in forms.py or normalize.py, its field in model.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Verdict = Literal["supported", "ignored", "warned", "refused"]


@dataclass(frozen=True, slots=True)
class Rule:
    """`kinds`: the YAML types a value may have (validate.py says what they are). `only`: the values gorae honours.
    `why`: the reason of an ignored, warned or refused key, and of a value that is not in `only`."""

    verdict: Verdict
    kinds: tuple[str, ...] = ()
    why: str = ""
    only: tuple[object, ...] = ()


LATER = "gorae does not support it yet"
SWARM = "it is for clusters of machines; gorae runs on one"


def _supported(kinds: str, *only: object, why: str = LATER) -> Rule:
    return Rule("supported", tuple(kinds.split("|")), why if only else "", only)


def _ignored(why: str) -> Rule:
    return Rule("ignored", why=why)


def _warned(why: str) -> Rule:
    return Rule("warned", why=why)


def _refused(prefix: str, keys: str, why: str = LATER) -> dict[str, Rule]:
    return {f"{prefix}{key}": Rule("refused", why=why) for key in keys.split()}


_MAP = _supported("map|null")
_LIST = _supported("list|null")
_TEXT = _supported("str")
_WHOLE = _supported("int")
_BOOL = _supported("bool")
_TIME = _supported("duration")
_SIZE = _supported("str|int|number")
_CPUS = _supported("str|int|number")
_ENTRY = _supported("str|int|number|bool|null")  # a value of environment or labels
_S = "services.*."

TABLE: dict[str, Rule] = {
    # top level: 03-compose-file.md, 04-version-and-name.md
    "name": _TEXT,
    "version": _warned("it is obsolete and has no effect"),
    "services": _supported("map|null"),
    "services.*": _supported("map"),
    "networks": _MAP,
    "networks.default": _MAP,
    **_refused(
        "networks.default.", "attachable driver_opts enable_ipv4 enable_ipv6 external internal ipam labels name"
    ),
    "networks.default.driver": _supported("str", "bridge", "default"),
    **_refused("networks.", "*", "networks other than `default` are not supported yet"),
    "volumes": _MAP,
    "volumes.*": _MAP,
    "volumes.*.name": _TEXT,
    "volumes.*.external": _BOOL,
    "volumes.*.labels": _supported("map|list|null"),
    "volumes.*.labels.*": _ENTRY,
    "volumes.*.labels.[]": _TEXT,
    "volumes.*.driver": _supported("str", "local"),
    **_refused("volumes.*.", "driver_opts"),
    **_refused("", "configs include models secrets"),
    # 05-services.md
    _S + "image": _TEXT,
    _S + "command": _supported("str|list|null"),
    _S + "command.[]": _TEXT,
    _S + "entrypoint": _supported("str|list|null"),
    _S + "entrypoint.[]": _TEXT,
    _S + "environment": _supported("map|list|null"),
    _S + "environment.*": _ENTRY,
    _S + "environment.[]": _TEXT,
    _S + "env_file": _supported("str|list|null"),
    _S + "env_file.[]": _supported("str|map"),
    _S + "env_file.[].path": _TEXT,
    _S + "env_file.[].required": _BOOL,
    _S + "env_file.[].format": _supported("str", "raw"),
    _S + "ports": _LIST,
    _S + "ports.[]": _supported("str|int|map"),
    _S + "ports.[].target": _WHOLE,
    _S + "ports.[].published": _supported("str|int|null"),
    _S + "ports.[].protocol": _TEXT,
    _S + "ports.[].host_ip": _TEXT,
    _S + "ports.[].mode": _supported("str", "ingress", "host"),
    _S + "ports.[].name": _ignored("a name for people"),
    _S + "ports.[].app_protocol": _ignored("a word for people"),
    _S + "expose": _LIST,
    _S + "expose.[]": _supported("str|int"),
    _S + "volumes": _LIST,
    _S + "volumes.[]": _supported("str|map"),
    _S + "volumes.[].type": _supported("str", "bind", "volume", "tmpfs"),
    _S + "volumes.[].source": _TEXT,
    _S + "volumes.[].target": _TEXT,
    _S + "volumes.[].read_only": _BOOL,
    _S + "volumes.[].consistency": _ignored("every mount is consistent on Linux"),
    _S + "volumes.[].bind": _MAP,
    _S + "volumes.[].bind.create_host_path": _BOOL,
    _S + "volumes.[].bind.selinux": _ignored("gorae sets no SELinux labels"),
    _S + "volumes.[].bind.propagation": _supported("str", "rprivate"),
    **_refused(_S + "volumes.[].bind.", "recursive"),
    _S + "volumes.[].volume": _MAP,
    _S + "volumes.[].volume.nocopy": _BOOL,
    **_refused(_S + "volumes.[].volume.", "labels subpath"),
    _S + "volumes.[].tmpfs": _MAP,
    _S + "volumes.[].tmpfs.size": _supported("str|int"),
    _S + "volumes.[].tmpfs.mode": _supported("str|int"),
    **_refused(_S + "volumes.[].", "image"),
    _S + "tmpfs": _supported("str|list|null"),
    _S + "tmpfs.[]": _TEXT,
    _S + "depends_on": _supported("map|list|null"),
    _S + "depends_on.[]": _TEXT,
    _S + "depends_on.*": _supported("map"),
    _S + "depends_on.*.condition": _supported(
        "str",
        "service_started",
        "service_healthy",
        "service_completed_successfully",
        why="Compose has no such condition",
    ),
    _S + "depends_on.*.required": _BOOL,
    _S + "depends_on.*.restart": _supported("bool", False),
    _S + "networks": _supported("map|list|null"),
    _S + "networks.[]": _supported("str", "default", why="networks other than `default` are not supported yet"),
    _S + "networks.default": _MAP,
    **_refused(
        _S + "networks.default.",
        "aliases driver_opts gw_priority interface_name ipv4_address ipv6_address link_local_ips mac_address priority",
    ),
    **_refused(_S + "networks.", "*", "networks other than `default` are not supported yet"),
    _S + "healthcheck": _MAP,
    _S + "healthcheck.test": _supported("str|list|null"),
    _S + "healthcheck.test.[]": _TEXT,
    _S + "healthcheck.interval": _TIME,
    _S + "healthcheck.timeout": _TIME,
    _S + "healthcheck.retries": _WHOLE,
    _S + "healthcheck.start_period": _TIME,
    _S + "healthcheck.start_interval": _TIME,
    _S + "healthcheck.disable": _BOOL,
    _S + "x-gorae-healthcheck": _MAP,
    _S + "x-gorae-healthcheck.http": _supported("map"),
    _S + "x-gorae-healthcheck.http.port": _WHOLE,
    _S + "x-gorae-healthcheck.http.path": _TEXT,
    _S + "x-gorae-healthcheck.tcp": _supported("map"),
    _S + "x-gorae-healthcheck.tcp.port": _WHOLE,
    _S + "x-gorae-healthcheck.interval": _TIME,
    _S + "x-gorae-healthcheck.timeout": _TIME,
    _S + "x-gorae-healthcheck.retries": _WHOLE,
    _S + "x-gorae-healthcheck.start_period": _TIME,
    _S + "x-gorae-healthcheck.start_interval": _TIME,
    _S + "restart": _TEXT,
    _S + "scale": _WHOLE,
    _S + "mem_limit": _SIZE,
    _S + "mem_reservation": _SIZE,
    _S + "cpus": _CPUS,
    _S + "pids_limit": _WHOLE,
    _S + "user": _TEXT,
    _S + "working_dir": _TEXT,
    _S + "hostname": _TEXT,
    _S + "labels": _supported("map|list|null"),
    _S + "labels.*": _ENTRY,
    _S + "labels.[]": _TEXT,
    _S + "read_only": _BOOL,
    _S + "stop_signal": _TEXT,
    _S + "stop_grace_period": _TIME,
    _S + "pull_policy": _supported("str", "missing", "if_not_present"),
    _S + "attach": _warned("gorae logs shows every service"),
    _S + "develop": _warned("gorae does not watch source files"),
    # deploy.md
    _S + "deploy": _MAP,
    _S + "deploy.mode": _supported("str", "replicated"),
    _S + "deploy.replicas": _WHOLE,
    _S + "deploy.endpoint_mode": _warned(SWARM),
    _S + "deploy.placement": _warned(SWARM),
    _S + "deploy.labels": _warned("labels of the service itself are shown nowhere; use `labels`"),
    _S + "deploy.resources": _MAP,
    _S + "deploy.resources.limits": _MAP,
    _S + "deploy.resources.limits.cpus": _CPUS,
    _S + "deploy.resources.limits.memory": _SIZE,
    _S + "deploy.resources.limits.pids": _WHOLE,
    _S + "deploy.resources.reservations": _MAP,
    _S + "deploy.resources.reservations.cpus": _CPUS,
    _S + "deploy.resources.reservations.memory": _SIZE,
    **_refused(_S + "deploy.resources.reservations.", "devices generic_resources"),
    _S + "deploy.restart_policy": _MAP,
    _S + "deploy.restart_policy.condition": _supported(
        "str", "none", "on-failure", "any", why="Compose has no such condition"
    ),
    _S + "deploy.restart_policy.delay": _TIME,
    _S + "deploy.restart_policy.max_attempts": _WHOLE,
    _S + "deploy.restart_policy.window": _TIME,
    **_refused(_S + "deploy.", "rollback_config update_config"),
    **_refused(
        _S,
        "annotations blkio_config build cap_add cap_drop cgroup cgroup_parent configs container_name cpu_count "
        "cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares cpuset credential_spec "
        "device_cgroup_rules devices dns dns_opt dns_search domainname extends external_links extra_hosts gpus "
        "group_add init ipc isolation label_file links logging mac_address mem_swappiness memswap_limit models "
        "network_mode oom_kill_disable oom_score_adj pid platform post_start pre_start pre_stop privileged profiles "
        "provider pull_refresh_after runtime secrets security_opt shm_size stdin_open storage_opt sysctls tty ulimits "
        "use_api_socket userns_mode uts volumes_from",
    ),
}


@dataclass(slots=True)
class Branch:
    """The table as a tree, for walking a file beside it."""

    rule: Rule | None = None
    children: dict[str, Branch] = field(default_factory=dict)

    def names(self) -> Iterator[str]:
        """The keys that may stand here; none when any name may."""
        return (name for name in self.children if name not in ("*", "[]"))


def _grow() -> Branch:
    root = Branch(Rule("supported", ("map",)))
    for path, rule in TABLE.items():
        branch = root
        for part in path.split("."):
            branch = branch.children.setdefault(part, Branch())
        branch.rule = rule
    return root


ROOT = _grow()
