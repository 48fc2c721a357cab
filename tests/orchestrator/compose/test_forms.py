"""The short forms of every key that has some, and the one long form each stands for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.compose.forms import SHAPES
from orchestrator.compose.keys import TABLE
from orchestrator.compose.longforms import FORMS

from .support import document, refusals

STARTED = {"condition": "service_started", "required": True}
DEVICE = "capabilities: [gpu]"
# key, what is written for it, and what that is in the end; one row for each way of writing
ROWS: list[tuple[str, str, Any]] = [
    ("build", "build: ctx", {"context": "@/ctx", "dockerfile": "Dockerfile"}),
    ("command", "command: a 'b c'", ["a", "b c"]),
    ("command", "command: [a, b c]", ["a", "b c"]),
    ("command", "command: ''", []),
    ("configs", "configs: [c]", [{"source": "c"}]),
    ("configs", "configs: [{source: c, target: /t, mode: 0440}]", [{"source": "c", "target": "/t", "mode": "0440"}]),
    ("depends_on", "depends_on: [b]", {"b": STARTED}),
    ("depends_on", "depends_on: {b: {condition: service_healthy, restart: true}}", {"b": {"condition": "service_healthy", "required": True, "restart": True}}),
    ("devices", "devices: [/dev/a]", [{"source": "/dev/a", "target": "/dev/a", "permissions": "rwm"}]),
    ("devices", "devices: ['/dev/a:/dev/b']", [{"source": "/dev/a", "target": "/dev/b", "permissions": "rwm"}]),
    ("devices", "devices: ['/dev/a:/dev/b:r']", [{"source": "/dev/a", "target": "/dev/b", "permissions": "r"}]),
    ("devices", "devices: ['vendor.com/class=x']", [{"source": "vendor.com/class=x", "target": "vendor.com/class=x", "permissions": "rwm"}]),
    ("dns", "dns: 1.1.1.1", ["1.1.1.1"]),
    ("dns", "dns: [1.1.1.1, 2.2.2.2]", ["1.1.1.1", "2.2.2.2"]),
    ("environment", "environment: [A=1, B=, C]", {"A": "1", "B": "", "C": None}),
    ("environment", "environment: {A: 1, B: '', C: }", {"A": "1", "B": "", "C": None}),
    ("expose", "expose: [80, '81/udp']", ["80", "81/udp"]),
    ("extra_hosts", "extra_hosts: ['h:1.1.1.1', 'i=::1', 'j:[::2]']", ["h=1.1.1.1", "i=::1", "j=::2"]),
    ("extra_hosts", "extra_hosts: {h: 1.1.1.1, i: ['::1', 2.2.2.2]}", ["h=1.1.1.1", "i=2.2.2.2", "i=::1"]),
    ("gpus", "gpus: all", [{"count": -1}]),
    ("gpus", "gpus: [{count: 2}]", [{"count": 2}]),
    ("gpus", "gpus: [{device_ids: ['0']}]", [{"device_ids": ["0"]}]),
    ("group_add", "group_add: [1, mail]", ["1", "mail"]),
    ("healthcheck", "healthcheck: {test: a b}", {"test": ["CMD-SHELL", "a b"]}),
    ("healthcheck", "healthcheck: {test: [CMD, a], interval: 90s}", {"test": ["CMD", "a"], "interval": "1m30s"}),
    ("labels", "labels: [a=1, b]", {"a": "1", "b": ""}),
    ("labels", "labels: {a: 1, b: }", {"a": "1", "b": ""}),
    ("logging", "logging: {options: {max-size: 5, tag: t}}", {"options": {"max-size": "5", "tag": "t"}}),
    ("mem_limit", "mem_limit: 64m", "67108864"),
    ("mem_limit", "mem_limit: 67108864", "67108864"),
    ("memswap_limit", "memswap_limit: -1", "-1"),
    ("models", "models: [m]", {"m": None}),
    ("networks", "networks: [n]", {"n": None}),
    ("networks", "networks: {n: {aliases: [x]}}", {"n": {"aliases": ["x"]}}),
    ("ports", "ports: ['127.0.0.1:80:81/udp']", [{"mode": "ingress", "host_ip": "127.0.0.1", "target": 81, "published": "80", "protocol": "udp"}]),
    ("ports", "ports: [{target: 81, published: 80}]", [{"mode": "ingress", "target": 81, "published": "80", "protocol": "tcp"}]),
    ("secrets", "secrets: [s]", [{"source": "s", "target": "/run/secrets/s"}]),
    ("secrets", "secrets: [{source: s, target: t, uid: '1'}]", [{"source": "s", "target": "t", "uid": "1"}]),
    ("shm_size", "shm_size: 1gb", "1073741824"),
    ("stop_grace_period", "stop_grace_period: 1m30s", "1m30s"),
    ("stop_grace_period", "stop_grace_period: 0.5h", "30m0s"),
    ("sysctls", "sysctls: [a.b=1]", {"a.b": "1"}),
    ("sysctls", "sysctls: {a.b: 1}", {"a.b": "1"}),
    ("tmpfs", "tmpfs: /t", ["/t"]),
    ("ulimits", "ulimits: {nproc: 5, nofile: {soft: 1, hard: 2}}", {"nofile": {"soft": 1, "hard": 2}, "nproc": 5}),
    ("volumes", "volumes: [/t]", [{"type": "volume", "target": "/t"}]),
    ("volumes", "volumes: ['vv:/t/:ro,nocopy']", [{"type": "volume", "source": "vv", "target": "/t", "read_only": True, "volume": {"nocopy": True}}]),
    ("volumes", "volumes: ['./b:/t:z,rshared']", [{"type": "bind", "source": "@/b", "target": "/t", "bind": {"selinux": "z", "propagation": "rshared"}}]),
    ("volumes", "volumes: [{type: tmpfs, target: /t/, tmpfs: {size: 1m, mode: 0700}}]", [{"type": "tmpfs", "target": "/t", "tmpfs": {"size": "1048576", "mode": 448}}]),
]  # fmt: skip
TOP = """\
  b: {image: y}
networks: {n: }
volumes: {vv: }
secrets: {s: {file: /s}}
configs: {c: {content: t}}
models: {m: {model: x}}
"""


def without_nothing(value: Any) -> Any:
    """Options of a mount that say nothing may be there or not."""
    if isinstance(value, list):
        return [without_nothing(item) for item in value]
    return {key: one for key, one in value.items() if one != {}} if isinstance(value, dict) else value


@pytest.mark.parametrize(("key", "keys", "found"), ROWS, ids=[keys for _, keys, _ in ROWS])
def test_form(tmp_path: Path, key: str, keys: str, found: Any) -> None:
    service = document(tmp_path, f"services:\n  a:\n    image: x\n    {keys}\n{TOP}")["services"]["a"]
    assert without_nothing(service.get(key)) == found


def test_every_key_of_a_service_with_a_form_has_a_row() -> None:
    shaped = {path for path, rule in TABLE.items() if rule.shape in SHAPES} | set(FORMS)
    keys = {path.split(".")[2] for path in shaped if path.startswith("services.*.") and path.count(".") == 2}
    alike = {"annotations", "dns_search", "entrypoint", "label_file", "provider", "storage_opt"}  # of another's shape
    read_away = {"env_file"}  # into environment: test_environment.py
    assert keys - alike - read_away <= {key for key, _, _ in ROWS}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("devices: ['a:b:c:d']", "4:15: cannot use services.a.devices[0]: a device is written as SOURCE[:TARGET[:PERMISSIONS]]"),
        ("devices: [':b']", "4:15: cannot use services.a.devices[0]: a device is written as SOURCE[:TARGET[:PERMISSIONS]]"),
        ("extra_hosts: [h]", "4:19: cannot use services.a.extra_hosts[0]: an entry is written as NAME=ADDRESS"),
        ("extra_hosts: {'': 1.1.1.1}", "4:19: cannot use an empty name in services.a.extra_hosts"),
        ("gpus: [{count: some}]", "4:12: cannot use services.a.gpus[0]: `count` is a number, or all"),
        ("gpus: [{count: 1, device_ids: [x]}]", "4:12: cannot use services.a.gpus[0]: `count` and `device_ids` exclude each other"),
        ("gpus: one", "4:11: cannot use 'one' as services.a.gpus: Compose knows all"),
        ("labels: {'': x}", "4:14: cannot use an empty name in services.a.labels"),
        ("ulimits: {nproc: {soft: 1}}", "4:15: cannot use services.a.ulimits.nproc: `hard` is missing (add hard)"),
        ("device_cgroup_rules: [a, a]", "4:30: cannot use services.a.device_cgroup_rules[1]: it says 'a' twice (take one out)"),
        ("group_add: [[]]", "4:17: cannot use a list as services.a.group_add[0]: it must be text or a whole number"),
        ("command: a 'b", "4:14: cannot use services.a.command: it ends inside '"),
        ("networks: {n: {ipv4_addres: x}}", "4:20: cannot use services.a.networks.n.ipv4_addres: Compose has no such key; did you mean ipv4_address?"),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, keys: str, message: str) -> None:
    assert refusals(tmp_path, f"services:\n  a:\n    image: x\n    {keys}\n{TOP}") == [f"compose.yaml:{message}"]
