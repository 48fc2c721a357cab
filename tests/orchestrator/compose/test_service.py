"""The other keys of a service, one by one (05-services.md, deploy.md): what they mean, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .support import loaded, problems, service


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        pytest.param("command:", {}, id="command: null is the image's"),
        pytest.param("command: []\nentrypoint: ''", {"command": (), "entrypoint": ()}, id="empty resets"),
        pytest.param("command: [a, 'b c']", {"command": ("a", "b c")}, id="command, list"),
        pytest.param("command: a 'b c'", {"command": ("a", "b c")}, id="command, text"),
        pytest.param("command: >\n  a b\n  --c", {"command": ("a", "b", "--c")}, id="command, folded"),
        pytest.param('entrypoint: /bin/x "y z"', {"entrypoint": ("/bin/x", "y z")}, id="entrypoint"),
        pytest.param(
            "environment: [SET, UNSET, EMPTY=, X=1, X=2]",
            {"environment": {"SET": "v", "EMPTY": "", "X": "2"}},
            id="environment, list",
        ),
        pytest.param(
            "environment: {SET: , UNSET: , EMPTY: ''}",
            {"environment": {"SET": "v", "EMPTY": ""}},
            id="environment, map",
        ),
        pytest.param(
            "environment: {I: 1, F: 1.50, B: true, Y: yes, N: off, O: 0755, H: 0x1F, E: 1e3, T: 12:30, D: 2020-01-01}",
            {
                "environment": {
                    "I": "1",
                    "F": "1.5",
                    "B": "true",
                    "Y": "yes",
                    "N": "off",
                    "O": "493",
                    "H": "31",
                    "E": "1000",
                    "T": "12:30",
                    "D": "2020-01-01",
                }
            },
            id="environment, scalars",
        ),
        pytest.param("environment: ['A=\"q\"']", {"environment": {"A": '"q"'}}, id="quotes inside a list entry stay"),
        pytest.param("labels: [a=1, b, c=]", {"labels": {"a": "1", "b": "", "c": ""}}, id="labels, list"),
        pytest.param("labels: {a: 1, b: }", {"labels": {"a": "1", "b": ""}}, id="labels, map"),
        pytest.param("user: 1000:1000", {"user": "1000:1000"}, id="user"),
        pytest.param("user: ''\nrestart: $UNSET", {}, id="empty text is absent"),
        pytest.param("working_dir: /srv", {"working_dir": "/srv"}, id="working_dir"),
        pytest.param("hostname: web-1.example", {"hostname": "web-1.example"}, id="hostname"),
        pytest.param("container_name: the_web.1", {"naming": {"container": "the_web.1"}}, id="container_name"),
        pytest.param("domainname: example.org", {"naming": {"domain": "example.org"}}, id="domainname"),
        pytest.param("dns: 192.0.2.53", {"naming": {"servers": ("192.0.2.53",)}}, id="dns, one"),
        pytest.param(
            "dns: ['192.0.2.53', '2001:DB8::1']", {"naming": {"servers": ("192.0.2.53", "2001:db8::1")}}, id="dns"
        ),
        pytest.param("dns_search: [a.example, b]", {"naming": {"search": ("a.example", "b")}}, id="dns_search"),
        pytest.param("dns_search: .", {"naming": {"search": (".",)}}, id="dns_search, none"),
        pytest.param("dns_search: []", {}, id="dns_search, empty"),
        pytest.param("dns_opt: ['ndots:2', use-vc]", {"naming": {"options": ("ndots:2", "use-vc")}}, id="dns_opt"),
        pytest.param(
            "extra_hosts: ['one=192.0.2.1', 'two:192.0.2.2', 'one=[::1]', 'docker.internal:host-gateway']",
            {
                "naming": {
                    "hosts": {"one": ("192.0.2.1", "::1"), "two": ("192.0.2.2",), "docker.internal": ("host-gateway",)}
                }
            },
            id="extra_hosts",
        ),
        pytest.param(
            "extra_hosts: {one: 192.0.2.1}", {"naming": {"hosts": {"one": ("192.0.2.1",)}}}, id="extra_hosts, map"
        ),
        pytest.param("read_only: true", {"read_only": True}, id="read_only"),
        pytest.param("init: true", {"init": True}, id="init"),
        pytest.param("x-gorae-on-unhealthy: recreate", {"on_unhealthy": "recreate"}, id="x-gorae-on-unhealthy"),
        pytest.param("x-gorae-drain: 1m30s", {"drain": 90.0}, id="x-gorae-drain"),
        pytest.param("x-gorae-drain: 0s", {"drain": 0.0}, id="x-gorae-drain, none"),
        pytest.param(
            "pre_start: [{command: a b, per_replica: true}, {command: [c]}]",
            {"pre_start": ({"command": ("a", "b")}, {"command": ("c",), "per_replica": False})},
            id="pre_start",
        ),
        pytest.param(
            "post_start: [{command: a, user: root, environment: [K=v], working_dir: /w, privileged: true}]",
            {
                "post_start": (
                    {
                        "command": ("a",),
                        "user": "root",
                        "environment": {"K": "v"},
                        "working_dir": "/w",
                        "privileged": True,
                    },
                )
            },
            id="post_start",
        ),
        pytest.param("pre_stop: [{command: a}]", {"pre_stop": ({"command": ("a",)},)}, id="pre_stop"),
        pytest.param("stop_signal: int", {"stop_signal": "SIGINT"}, id="stop_signal"),
        pytest.param("stop_signal: '15'", {"stop_signal": "15"}, id="stop_signal, number"),
        pytest.param("stop_signal: SIGRTMIN+3", {"stop_signal": "SIGRTMIN+3"}, id="stop_signal, real time"),
        pytest.param("stop_grace_period: 1m30s", {"stop_grace_period": 90.0}, id="stop_grace_period"),
        pytest.param("expose: [80, '81/udp', 80]", {"expose": ("80", "81/udp")}, id="expose"),
        pytest.param("scale: 2", {"replicas": 2}, id="scale"),
        pytest.param("deploy: {mode: replicated, replicas: 0}", {"replicas": 0}, id="replicas"),
        pytest.param("scale: 2\ndeploy: {replicas: 2}", {"replicas": 2}, id="scale and replicas agree"),
        pytest.param("restart: no", {"restart": {"condition": "no"}}, id="restart: no"),
        pytest.param("restart: always", {"restart": {"condition": "always"}}, id="restart: always"),
        pytest.param(
            "restart: unless-stopped", {"restart": {"condition": "unless-stopped"}}, id="restart: unless-stopped"
        ),
        pytest.param(
            "restart: on-failure:3",
            {"restart": {"condition": "on-failure", "max_attempts": 3}},
            id="restart: on-failure:3",
        ),
        pytest.param(
            "restart: no\ndeploy: {restart_policy: {condition: on-failure, delay: 5s, max_attempts: 2, window: 10s}}",
            {"restart": {"condition": "on-failure", "delay": 5.0, "max_attempts": 2, "window": 10.0}},
            id="restart_policy wins",
        ),
        pytest.param(
            "deploy: {restart_policy: {}}",
            {"restart": {"condition": "always"}},
            id="restart_policy: any is the default",
        ),
        pytest.param(
            "deploy: {restart_policy: {condition: none}}", {"restart": {"condition": "no"}}, id="restart_policy: none"
        ),
        pytest.param("deploy: {mode: global}", {}, id="mode: global is one here"),
        pytest.param(
            "deploy: {mode: replicated-job, replicas: 3}",
            {"job": True, "replicas": 3, "restart": {"condition": "on-failure"}},
            id="mode: replicated-job",
        ),
        pytest.param(
            "restart: always\ndeploy: {mode: global-job}",
            {"job": True, "restart": {"condition": "on-failure"}},
            id="mode: global-job; what has ended well is not begun again",
        ),
        pytest.param(
            "deploy: {mode: replicated-job, restart_policy: {condition: none}}",
            {"job": True, "restart": {"condition": "no"}},
            id="a job that is tried once",
        ),
        pytest.param(
            "deploy: {mode: replicated-job, restart_policy: {condition: on-failure, max_attempts: 2, delay: 1s}}",
            {"job": True, "restart": {"condition": "on-failure", "max_attempts": 2, "delay": 1.0}},
            id="a job that is tried three times",
        ),
        pytest.param(
            "mem_limit: 1gb\nmem_reservation: 300M\ncpus: 1.5\npids_limit: 5",
            {"resources": {"memory": 2**30, "memory_reservation": 300 * 2**20, "cpus": 1.5, "pids": 5}},
            id="limits, short",
        ),
        pytest.param(
            "mem_limit: 1g\ndeploy: {resources: {limits: {cpus: '0.50', memory: 1024m, pids: 5}, reservations: {cpus: 0.25, memory: 20M}}}",
            {
                "resources": {
                    "memory": 2**30,
                    "memory_reservation": 20 * 2**20,
                    "cpus": 0.5,
                    "cpus_reservation": 0.25,
                    "pids": 5,
                }
            },
            id="limits, deploy",
        ),
        pytest.param("mem_limit: 0\ncpus: 0\npids_limit: -1", {"resources": {"pids": 0}}, id="no limits"),
        pytest.param("depends_on: [b]", {"depends_on": {"b": {}}}, id="depends_on, list"),
        pytest.param(
            "depends_on: {b: {condition: service_healthy, required: false, restart: false}, c: {condition: service_completed_successfully}}",
            {
                "depends_on": {
                    "b": {"condition": "service_healthy", "required": False},
                    "c": {"condition": "service_completed_successfully"},
                }
            },
            id="depends_on, map",
        ),
        pytest.param("networks: [default]", {}, id="networks, list"),
        pytest.param("networks: {default: }", {}, id="networks, map"),
        pytest.param("networks: {}", {}, id="networks, empty"),
        pytest.param("pull_policy: if_not_present", {}, id="pull_policy"),
        pytest.param("pull_policy: always", {"pull_policy": "always"}, id="pull_policy, always"),
        pytest.param("pull_policy: daily", {"pull_policy": "refresh", "pull_after": 86400.0}, id="pull_policy, daily"),
        pytest.param("platform: arm64/v8", {"platform": "linux/arm64/v8"}, id="platform"),
        pytest.param("x-any: {z: [1]}", {}, id="x-"),
    ],
)
def test_key(tmp_path: Path, keys: str, found: dict[str, Any]) -> None:
    result = service(tmp_path, keys, {"SET": "v"}).model_dump(exclude_defaults=True)
    assert result == {"image": "x", **found}


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("command: true", "4:14: cannot use true as services.a.command: it must be text or a list; put it in quotes"),
        ("command: [a, 1]", "4:18: cannot use 1 as services.a.command[1]: it must be text; put it in quotes"),
        (
            "command: a && b",
            "4:14: cannot use services.a.command: '&' needs a shell, and none runs; quote it, or write: sh -c '…'",
        ),
        (
            "environment: {A: [x]}",
            "4:22: cannot use a list as services.a.environment.A: it must be text, a number or true or false",
        ),
        (
            "environment: ['=x']",
            "4:19: cannot use '' as the name of a variable in services.a: it is empty or holds '='",
        ),
        (
            "environment: ['A =x']",
            "4:19: cannot use 'A ' as the name of a variable in services.a.environment: it ends in a space",
        ),
        ("environment: {'': x}", "4:19: cannot use an empty name in services.a.environment"),
        (
            "environment: {A=B: x}",
            "4:19: cannot use 'A=B' as the name of a variable in services.a: it is empty or holds '='",
        ),
        ("user: 1000", "4:11: cannot use 1000 as services.a.user: it must be text; put it in quotes"),
        ("user: a b", "4:11: cannot use 'a b' as services.a.user: a user is written as NAME, UID or UID:GID"),
        (
            "working_dir: rel",
            "4:18: cannot use 'rel' as services.a.working_dir: it must be an absolute path in the container",
        ),
        (
            'hostname: "a\\nb"',
            "4:15: cannot use 'a\\nb' as services.a.hostname: a host name has letters, digits, '-' and '.'",
        ),
        (
            "dns: 127.0.0.1",
            "4:10: cannot use '127.0.0.1' as services.a.dns[0]: a loopback address; leave it out for the host's own servers, or name a service's address",
        ),
        (
            "dns: [example.org]",
            "4:11: cannot use 'example.org' as services.a.dns[0]: 'example.org' does not appear to be an IPv4 or IPv6 address",
        ),
        (
            'dns_search: ["a b"]',
            "4:18: cannot use 'a b' as services.a.dns_search[0]: it has letters, digits, '-' and '.'",
        ),
        (
            'dns_opt: ["ndots: 1"]',
            "4:15: cannot use 'ndots: 1' as services.a.dns_opt[0]: it is a word of resolv.conf, or WORD:NUMBER",
        ),
        (
            "extra_hosts: ['a=host']",
            "4:19: cannot use 'a=host' as services.a.extra_hosts[0]: 'host' does not appear to be an IPv4 or IPv6 address",
        ),
        (
            "stop_signal: SIGFOO",
            "4:18: cannot use 'SIGFOO' as services.a.stop_signal: there is no such signal; write SIGTERM, SIGINT, SIGQUIT …",
        ),
        (
            "stop_signal: '65'",
            "4:18: cannot use '65' as services.a.stop_signal: there is no such signal; write SIGTERM, SIGINT, SIGQUIT …",
        ),
        (
            "stop_grace_period: 30",
            "4:24: cannot use 30 as services.a.stop_grace_period: it must be a duration; write the unit too, as in 30s",
        ),
        (
            "stop_grace_period: '30'",
            "4:24: cannot use '30' as services.a.stop_grace_period: a duration is written as 10s, 1m30s or 1.5h (units: us ms s m h d w)",
        ),
        (
            "mem_limit: 10 potatoes",
            "4:16: cannot use '10 potatoes' as services.a.mem_limit: a size is written as 512k, 64m or 1.5g (powers of 1024), or in bytes",
        ),
        (
            "mem_limit: 1g\ndeploy: {resources: {limits: {memory: 2g}}}",
            "4:16: cannot use both mem_limit and deploy.resources.limits.memory in a: they differ",
        ),
        (
            "mem_limit: 1g\ndeploy: {resources: {limits: {cpus: '1'}}}",
            "4:16: cannot use mem_limit in a: deploy.resources.limits is there, and does not say the same",
        ),
        ("mem_limit: 1g\nmem_reservation: 2g", "5:22: cannot reserve more memory for services.a than its limit"),
        (
            "scale: 2\ndeploy: {replicas: 3}",
            "4:12: cannot use both scale and deploy.replicas in a: they differ",
        ),
        ("scale: 0\ndeploy: {replicas: 3}", "4:12: cannot use both scale and deploy.replicas in a: they differ"),
        ("scale: -1", "4:12: cannot use -1 as services.a.scale: it is 0 or more"),
        ("deploy: {replicas: -1}", "4:24: cannot use -1 as services.a.deploy.replicas: it is 0 or more"),
        ("stop_grace_period: -5s", "4:24: cannot use '-5s' as services.a.stop_grace_period: it is less than nothing"),
        (
            "deploy: {restart_policy: {delay: -5s}}",
            "4:38: cannot use '-5s' as services.a.deploy.restart_policy.delay: it is less than nothing",
        ),
        (
            "pids_limit: -2",
            "4:17: cannot use -2 as services.a.pids_limit: a limit of processes is 1 or more, or -1 for none",
        ),
        ("restart: false", "4:14: cannot use false as services.a.restart: it must be text; put it in quotes"),
        (
            "restart: sometimes",
            "4:14: cannot use 'sometimes' as services.a.restart: it is one of no, always, unless-stopped, on-failure and on-failure:TIMES",
        ),
        (
            "restart: always:3",
            "4:14: cannot use 'always:3' as services.a.restart: it is one of no, always, unless-stopped, on-failure and on-failure:TIMES",
        ),
        (
            "deploy: {restart_policy: {condition: always}}",
            "4:42: cannot use services.a.deploy.restart_policy.condition: 'always': Compose has no such condition",
        ),
        ("deploy: {mode: some}", "4:20: cannot use services.a.deploy.mode: 'some': Compose has no such mode"),
        ("depends_on: {b: {required: true}}", "4:18: cannot use services.a.depends_on.b: `condition` is missing"),
        ("depends_on: {b: }", "4:18: cannot use an empty value as services.a.depends_on.b: it must be a mapping"),
        (
            "x-gorae-on-unhealthy: reboot",
            "4:27: cannot use 'reboot' as services.a.x-gorae-on-unhealthy: Compose knows none, recreate, restart, stop",
        ),
        ("x-gorae-drain: 2d", "4:20: cannot use '48h0m0s' as services.a.x-gorae-drain: it is a day at most"),
        (
            "pre_start: [{command: a, image: y}]",
            "4:37: cannot run services.a.pre_start[0] in another image: gorae runs it in the service's own container",
        ),
        ("pre_start: [{user: root}]", "4:17: cannot use services.a.pre_start[0]: it has no command"),
        (
            "post_start: [{command: a, working_dir: b}]",
            "4:44: cannot use 'b' as services.a.post_start[0].working_dir: it must be an absolute path in the container",
        ),
        ("depends_on: [zz]", "4:18: cannot start a after zz: there is no service zz"),
        ("depends_on: [a]", "4:18: cannot order the services: each waits for the next in a → a"),
        ("networks: [front]", "4:16: cannot use the network front in a: no network of that name is declared"),
        ("networks: {front: }", "4:16: cannot use the network front in a: no network of that name is declared"),
        (
            "platform: windows/amd64",
            "4:15: cannot use 'windows/amd64' as services.a.platform: a platform is written linux/ARCH, like linux/amd64 or linux/arm64/v8",
        ),
        ("privileged: true", "4:5: cannot use services.a.privileged: gorae does not support it yet"),
        ("imagee: y", "4:5: cannot use services.a.imagee: Compose has no such key; did you mean image?"),
        (
            "x-gorae-healtcheck: {}",
            "4:5: cannot use services.a.x-gorae-healtcheck: Compose has no such key; did you mean x-gorae-healthcheck?",
        ),
        ("zzz: y", "4:5: cannot use services.a.zzz: Compose has no such key"),
    ],
)
def test_refused(tmp_path: Path, keys: str, message: str) -> None:
    lines = "".join(f"    {line}\n" for line in keys.splitlines())
    text = f"services:\n  a:\n    image: x\n{lines}  b: {{image: x}}\n"
    assert problems(tmp_path, text) == [f"compose.yaml:{message}"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("services:\n  a:\n", "compose.yaml:2:3: cannot use an empty value as services.a: it must be a mapping"),
        ("services: []\n", "compose.yaml:1:11: cannot use a list as services: it must be a mapping"),
        ("- a\n", "compose.yaml:1:1: cannot use a list as a Compose file: it must be a mapping"),
        ("", "cannot read compose.yaml: it is empty"),
        ("---", "compose.yaml:2:1: cannot use an empty document as a Compose file: it must be a mapping"),
        ("services: {}", "compose.yaml:1:1: cannot make a stack of this: it declares no service"),
        ("services: {a: {image: ''}}", "compose.yaml:1:12: cannot start the service a: it has no image"),
        ("services: {a: {command: x}}", "compose.yaml:1:12: cannot start the service a: it has no image"),
        (
            "services: {a: {image: a b}}",
            "compose.yaml:1:23: cannot use 'a b' as services.a.image: an image is written as NAME[:TAG][@DIGEST], without spaces",
        ),
        (
            "services: {a: {build: {privileged: true}}}",
            "compose.yaml:1:36: cannot use services.a.build.privileged: 'true': builds get your rights, no others",
        ),
        (
            "services: {a: {build: {network: x}}}",
            "compose.yaml:1:33: cannot use services.a.build.network: 'x': buildah knows no other here",
        ),
        (
            "services: {'a b': {image: x}}",
            "compose.yaml:1:12: cannot use 'a b' as a name in services: a name is made of letters, digits, '.', '_' and '-', and is not long",
        ),
        ("foo: 1\nservices: {a: {image: x}}", "compose.yaml:1:1: cannot use foo: Compose has no such key"),
        (
            "service: {a: {image: x}}\nservices: {a: {image: x}}",
            "compose.yaml:1:1: cannot use service: Compose has no such key; did you mean services?",
        ),
        (
            "services: {a: {image: x, secrets: [s]}}\nsecrets: {s: {file: /s}}",
            "compose.yaml:1:26: cannot use services.a.secrets: gorae does not support it yet",
        ),
        (
            "services: {a: {image: x, networks: [n]}}\nnetworks: {n: {driver: macvlan}}",
            "compose.yaml:2:24: cannot use networks.n.driver: 'macvlan': gorae routes between containers itself, whatever the driver; leave it out",
        ),
        (
            "services: {a: {image: x, volumes: [vol:/v]}}\nvolumes: {vol: {driver: nfs}}",
            "compose.yaml:2:25: cannot use volumes.vol.driver: 'nfs': gorae does not support it yet",
        ),
        (
            "services: {a: {image: x}}\nvolumes: {v: {external: true, driver: local}}",
            "compose.yaml:2:31: cannot set volumes.v.driver: it is external, somebody else made it",
        ),
        (
            "services: {a: {image: x, volumes: [vol:/v]}}\nvolumes: {vol: {name: ../x}}",
            "compose.yaml:2:23: cannot use '../x' as volumes.vol.name: a volume's name has letters, digits, '_', '.' and '-', and begins with a letter or digit",
        ),
    ],
)
def test_refused_file(tmp_path: Path, text: str, message: str) -> None:
    assert problems(tmp_path, text) == message.split("\n")


@pytest.mark.parametrize(
    "top",
    ["secrets: {}", "secrets: {s: {file: x}}", "networks: {n: }", "volumes: {v: {driver: nfs}}", "models: {m: {model: x}}"],
)  # fmt: skip
def test_what_no_service_uses_hinders_nothing(tmp_path: Path, top: str) -> None:
    assert problems(tmp_path, f"services: {{a: {{image: x}}}}\n{top}") == []


def test_every_problem_is_told_in_one_go(tmp_path: Path) -> None:
    text = """\
services:
  web:
    image: x
    imge: y
    privileged: true
    volumes: ["data:/d"]
    depends_on: [cache]
    stop_grace_period: soon
volumes:
  dta:
"""
    assert [problem.split(": ")[0] for problem in problems(tmp_path, text)] == [
        "compose.yaml:4:5",
        "compose.yaml:5:5",
        "compose.yaml:6:15",
        "compose.yaml:7:18",
        "compose.yaml:8:24",
    ]


def test_the_cycle_is_printed(tmp_path: Path) -> None:
    text = "services:\n  c: {image: x, depends_on: [a]}\n  a: {image: x, depends_on: [b]}\n  b: {image: x, depends_on: [c]}\n"
    assert problems(tmp_path, text) == [
        "compose.yaml:3:30: cannot order the services: each waits for the next in a → b → c → a"
    ]


def test_volumes_of_the_stack(tmp_path: Path) -> None:
    text = "services: {s: {image: x, volumes: ['a:/a', 'b:/b', 'c:/c', 'd:/d']}}\nvolumes: {a: , unused: , b: {name: real-b, driver: local, labels: [x=1]}, c: {external: true}, d: {external: true, name: e}}\n"
    volumes = loaded(tmp_path, text).stack.volumes
    assert {key: (volume.name, volume.external) for key, volume in volumes.items()} == {
        "a": ("p_a", False),
        "b": ("real-b", False),
        "c": ("c", True),
        "d": ("e", True),
    }
    assert volumes["b"].labels == {"x": "1"}


def test_what_is_ignored_is_said_once(tmp_path: Path) -> None:
    text = 'version: "3.8"\nservices: {a: {image: x, attach: false, deploy: {placement: {constraints: [a]}}}}\nnetworks: {default: {driver: bridge}}\n'
    assert loaded(tmp_path, text).warnings == (
        "compose.yaml:1:1: version is ignored: it is obsolete and has no effect",
        "compose.yaml:2:26: services.a.attach is ignored: gorae logs shows every service",
        "compose.yaml:2:50: services.a.deploy.placement is ignored: it is for clusters of machines; gorae runs on one",
    )


@pytest.mark.parametrize(
    ("files", "keys", "environ", "found"),
    [
        pytest.param(
            {"a.env": "A=a\nB=a\nC=a\nD=a\n", "b.env": "B=b\nD=b\n"},
            "env_file: [a.env, b.env]\nenvironment: {C: own, D: }",
            {},
            {"A": "a", "B": "b", "C": "own"},
            id="the last file wins, environment over all, even without a value",
        ),
        pytest.param(
            {"a.env": "A=${S}\nB='${S}'\nC=${LOCAL}\nD=${A}\nE=pa$$x\n"},
            "env_file: a.env\nenvironment: {LOCAL: loc}",
            {"S": "shell"},
            {"A": "shell", "B": "${S}", "C": "loc", "D": "shell", "E": "pa$x", "LOCAL": "loc"},
            id="values are interpolated",
        ),
        pytest.param({"a.env": "SET\nUNSET\n"}, "env_file: a.env", {"SET": "v"}, {"SET": "v"}, id="without a value"),
        pytest.param({"a.env": 'A="q" $S # c\n'}, "env_file: [{path: ./a.env, format: raw}]", {}, {"A": '"q" $S # c'}, id="raw"),
        pytest.param({}, "env_file: [{path: no.env, required: false}]", {}, {}, id="not there, not required"),
    ],
)  # fmt: skip
def test_env_file(
    tmp_path: Path, files: dict[str, str], keys: str, environ: dict[str, str], found: dict[str, str]
) -> None:
    assert service(tmp_path, keys, environ, **files).environment == found


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("no.env", "compose.yaml:1:36: cannot find the env_file no.env"),
        (".", "compose.yaml:1:36: cannot read .: it is no regular file"),
        (
            "[{path: ok.env, format: yaml}]",
            "compose.yaml:1:60: cannot read services.a.env_file as 'yaml': raw is the only other format",
        ),
        ("[{required: true}]", "compose.yaml:1:37: cannot use services.a.env_file[0]: `path` is missing"),
        ("bad.env", "bad.env:1:1: cannot read this line: NAME=value is expected"),
    ],
)
def test_env_file_refused(tmp_path: Path, entry: str, message: str) -> None:
    files = {
        "compose.yaml": f"services: {{a: {{image: x, env_file: {entry}}}}}\n",
        "bad.env": "not a variable\n",
        "ok.env": "",
    }
    assert problems(tmp_path, files) == [message]
