"""Cross-checks of the merged project, each told at the place that must change."""

from __future__ import annotations

from pathlib import Path

import pytest

from .support import document, refusals

NO_IMAGE = "it has no image (if its base is in another file, name that first: -f BASE -f THIS)"


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        pytest.param("depends_on: [zz]", "4:18: cannot start a after zz: there is no service zz", id="depends_on"),
        pytest.param("links: ['zz:y']", "4:13: cannot start a after zz: there is no service zz", id="links"),
        pytest.param("ipc: service:zz", "4:5: cannot start a after zz: there is no service zz", id="ipc"),
        pytest.param("networks: [nn]", "4:16: cannot use the network nn in a: no network of that name is declared (add networks: {nn: …})", id="network"),
        pytest.param("models: [m]", "4:14: cannot use the model m in a: no model of that name is declared (add models: {m: …})", id="model"),
        pytest.param("secrets: [s]", "4:15: cannot use the secret s in a: no secret of that name is declared (add secrets: {s: …})", id="secret"),
        pytest.param("secrets: [{target: t}]", "4:15: cannot use this secret in a: `source` is missing (source: NAME)", id="secret without source"),
        pytest.param("configs: [{source: c}]", "4:15: cannot use the config c in a: no config of that name is declared (add configs: {c: …})", id="config"),
        pytest.param("build: {secrets: [s]}", "4:23: cannot use the secret s in a: no secret of that name is declared (add secrets: {s: …})", id="secret of a build"),
        pytest.param("volumes: ['vv:/v']", "4:15: cannot mount the volume vv in a: no volume of that name is declared (add volumes: {vv: })", id="volume"),
        pytest.param("volumes: ['v/w:/v']", "4:15: cannot mount the volume v/w in a: no volume of that name is declared (write ./v/w if a folder is meant)", id="perhaps a folder"),
        pytest.param("volumes: [{type: bind, target: /t}]", "4:15: cannot mount at /t in a: `source` is missing (source: ./PATH)", id="bind without source"),
        pytest.param("volumes: ['/a:/t']\n    tmpfs: /t", "4:15: cannot mount at /t in a: a tmpfs is there already", id="mount on a tmpfs"),
        pytest.param("network_mode: host\n    networks: [default]", "4:5: cannot use both network_mode and networks in a (take one of them out)", id="network_mode and networks"),
        pytest.param("build: {dockerfile: D, dockerfile_inline: FROM x}", "4:13: cannot use both dockerfile and dockerfile_inline in a", id="dockerfile twice"),
        pytest.param("build: {additional_contexts: {c: 'service:zz'}}", "4:38: cannot use the context c in a: there is no service zz", id="context of no service"),
        pytest.param("build: {additional_contexts: {c: 'service:b'}}", "4:38: cannot use the context c in a: it has no build", id="context without build"),
        pytest.param("platform: linux/a\n    build: {platforms: [linux/b]}", "4:15: cannot build a for linux/a: build.platforms does not name it", id="platform"),
        pytest.param("cpus: 1\n    deploy: {resources: {limits: {cpus: '2'}}}", "4:11: cannot use both cpus and deploy.resources.limits.cpus in a: they differ (take one of them out)", id="cpus"),
        pytest.param("mem_reservation: 1m\n    deploy: {resources: {reservations: {memory: 2m}}}", "4:22: cannot use both mem_reservation and deploy.resources.reservations.memory in a: they differ (take one of them out)", id="mem_reservation"),
        pytest.param("pids_limit: 1\n    deploy: {resources: {limits: {pids: 2}}}", "4:17: cannot use both pids_limit and deploy.resources.limits.pids in a: they differ (take one of them out)", id="pids_limit"),
        pytest.param("scale: 2\n    container_name: one", "5:5: cannot run 2 containers of a: container_name names only one (take container_name out)", id="container_name and scale"),
        pytest.param("deploy: {replicas: 2}\n    container_name: one", "5:5: cannot run 2 containers of a: container_name names only one (take container_name out)", id="container_name and replicas"),
        pytest.param("container_name: x", "4:21: cannot use 'x' as services.a.container_name: it has two or more letters, digits, '_', '.' or '-'", id="container_name"),
        pytest.param("pull_policy: sometimes", "4:18: cannot use 'sometimes' as services.a.pull_policy: it is always, never, missing, build, daily, weekly, every_3d …", id="pull_policy"),
        pytest.param("oom_score_adj: 1001", "4:20: cannot use 1001 as services.a.oom_score_adj: it is -1000 to 1000", id="oom_score_adj"),
        pytest.param("cpu_percent: 101", "4:18: cannot use 101 as services.a.cpu_percent: it is 0 to 100", id="cpu_percent"),
        pytest.param("cpu_count: -1", "4:16: cannot use -1 as services.a.cpu_count: it is 0 or more", id="cpu_count"),
        pytest.param("healthcheck: {test: [curl]}", "4:26: cannot use services.a.healthcheck.test: a list must begin with CMD, CMD-SHELL or NONE (put CMD first)", id="test"),
        pytest.param("develop: {watch: [{path: p, action: sync}]}", "4:23: cannot watch files for a: `target` is missing", id="watch"),
    ],
)  # fmt: skip
def test_service(tmp_path: Path, keys: str, message: str) -> None:
    text = f"services:\n  a:\n    image: x\n    {keys}\n  b: {{image: x}}\n"
    assert refusals(tmp_path, text) == [f"compose.yaml:{message}"]


PROJECT = """\
services:
  web: {{image: x, {keys}}}
  worker: {{image: x, profiles: [nightly]}}
  database: {{image: x, build: .}}
networks: {{front: }}
volumes: {{uploads: }}
configs: {{nginx: {{content: x}}}}
secrets: {{password: {{file: ./s}}}}
models: {{llama: {{model: x}}}}
"""


@pytest.mark.parametrize(
    ("keys", "meant"),
    [
        pytest.param("depends_on: [databse]", "database", id="depends_on"),
        pytest.param("depends_on: [wroker]", "worker", id="a service of a profile that is not active"),
        pytest.param("depends_on: [wep]", "", id="never the service itself"),
        pytest.param("depends_on: [cache]", "", id="nothing is near"),
        pytest.param("links: [databse]", "database", id="links"),
        pytest.param("volumes_from: ['databse:ro']", "database", id="volumes_from"),
        pytest.param("network_mode: service:databse", "database", id="network_mode"),
        pytest.param("networks: [frnt]", "front", id="networks"),
        pytest.param("volumes: ['upload:/u']", "uploads", id="volumes"),
        pytest.param("configs: [ngnix]", "nginx", id="configs"),
        pytest.param("secrets: [passwd]", "password", id="secrets"),
        pytest.param("build: {secrets: [passwd]}", "password", id="secrets of a build"),
        pytest.param("models: [lama]", "llama", id="models"),
        pytest.param("build: {additional_contexts: {c: 'service:databse'}}", "database", id="additional_contexts"),
        pytest.param("extends: databse", "database", id="extends"),
        pytest.param("extends: {file: other.yaml, service: bas}", "base", id="extends from a file"),
    ],
)
def test_a_near_miss_of_a_name_is_guessed(tmp_path: Path, keys: str, meant: str) -> None:
    (tmp_path / "other.yaml").write_text("services: {base: {image: x}}\n")
    (told,) = refusals(tmp_path, PROJECT.format(keys=keys))
    assert told.partition("; did you mean ")[2].partition("?")[0] == meant


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("services: {a: {}}", f"1:12: cannot start the service a: {NO_IMAGE}", id="nothing"),
        pytest.param("services: {a: {image: ''}}", f"1:12: cannot start the service a: {NO_IMAGE}", id="an empty image"),
        pytest.param("configs: {c: {}}", "1:11: cannot use configs.c: it says not where it comes from (add file or environment or content)", id="config from nowhere"),
        pytest.param("secrets: {s: {labels: [l]}}", "1:11: cannot use secrets.s: it says not where it comes from (add file or environment)", id="secret from nowhere"),
        pytest.param("secrets: {s: {file: f, environment: E}}", "1:24: cannot use both file and environment in secrets.s", id="secret from two places"),
        pytest.param("volumes: {v: {external: true, labels: [l]}}", "1:31: cannot set volumes.v.labels: it is external, somebody else made it", id="external with more"),
        pytest.param("services: {a: {image: x, depends_on: [a]}}", "1:39: cannot order the services: each waits for the next in a → a (take one depends_on out)", id="itself"),
        pytest.param(
            "services: {c: {image: x, depends_on: [a]}, a: {image: x, links: [b]}, b: {image: x, network_mode: 'service:c'}}",
            "1:66: cannot order the services: each waits for the next in a → b → c → a (take one depends_on out)",
            id="a circle of other keys",
        ),
    ],
)  # fmt: skip
def test_file(tmp_path: Path, text: str, message: str) -> None:
    text = text if "services" in text else f"{text}\nservices: {{a: {{image: x}}}}"
    assert refusals(tmp_path, text) == [f"compose.yaml:{message}"]


@pytest.mark.parametrize(
    "keys",
    [
        "scale: 1\n    container_name: one",
        "scale: 2\n    deploy: {replicas: 2}",
        "scale: 0\n    deploy: {replicas: 0}",
        "mem_limit: 0\n    deploy: {resources: {limits: {memory: 1g}}}",
        "mem_limit: 1024m\n    deploy: {resources: {limits: {memory: 1g}}}",
        "cpus: 0.50\n    deploy: {resources: {limits: {cpus: '0.5'}}}",
        "networks: {default: }",
        "depends_on: {b: {condition: service_started, required: false}}",
        "oom_score_adj: -1000",
        "pull_policy: every_1w2d",
        "healthcheck: {test: []}",
        "develop: {watch: [{path: p, action: rebuild}]}",
        "network_mode: service:b",
    ],
)
def test_accepted(tmp_path: Path, keys: str) -> None:
    assert document(tmp_path, f"services:\n  a:\n    image: x\n    {keys}\n  b: {{image: x}}\n")


def test_a_value_that_was_reported_is_not_missed_again(tmp_path: Path) -> None:
    text = "services: {a: {image: [1], volumes: [{type: bind, source: [], target: /t}], secrets: [{source: {}}], scale: x}}\n"
    assert [problem.split(": ")[0] for problem in refusals(tmp_path, text)] == [
        "compose.yaml:1:23", "compose.yaml:1:59", "compose.yaml:1:96", "compose.yaml:1:109"
    ]  # fmt: skip
