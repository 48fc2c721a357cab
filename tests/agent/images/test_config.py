"""Image configs and manifests: what Docker and OCI write, and what nobody should."""

from __future__ import annotations

import json
from typing import Any

import pytest

from agent.images import config, manifest
from agent.kit.errors import Permanent, UserError
from agent.ports import ImageConfig
from agent.wire.messages import Healthcheck
from tests.support.images import image, layer, sha

A, B, EMPTY = ("sha256:" + c * 64 for c in "abe")


def parse(inner: Any, layers: Any = (A,), **top: Any) -> ImageConfig:
    document = {"config": inner, "rootfs": {"type": "layers", "diff_ids": list(layers)}, **top}
    return config.parse("sha256:id", json.dumps(document).encode())


def test_everything_docker_writes() -> None:
    found = parse(
        {
            "Entrypoint": ["/entry"],
            "Cmd": ["serve", "-v"],
            "Env": ["A=1", "B="],
            "User": "999:999",
            "WorkingDir": "/srv",
            "StopSignal": "SIGQUIT",
            "Volumes": {"/data": {}, "/a": {}},
            "Labels": {"k": "v"},
            "ExposedPorts": {"80/tcp": {}},
            "Healthcheck": {
                "Test": ["CMD-SHELL", "curl -f localhost"],
                "Interval": 1_500_000_000,
                "Timeout": 2_000_000_000,
                "StartPeriod": 0,
                "Retries": 4,
            },
        }
    )
    assert found == ImageConfig(
        id="sha256:id",
        layers=(A,),
        entrypoint=("/entry",),
        command=("serve", "-v"),
        environment=("A=1", "B="),
        user="999:999",
        working_dir="/srv",
        stop_signal="SIGQUIT",
        volumes=("/a", "/data"),
        labels={"k": "v"},
        healthcheck=Healthcheck(test=("CMD-SHELL", "curl -f localhost"), interval=1.5, timeout=2.0, retries=4),
    )


@pytest.mark.parametrize("inner", [None, {}, {"Cmd": None, "Env": None, "Volumes": None, "Healthcheck": None}])
def test_silence_is_empty(inner: Any) -> None:
    assert parse(inner) == ImageConfig(id="sha256:id", layers=(A,))


@pytest.mark.parametrize(
    ("check", "expected"),
    [
        ({"Test": ["NONE"]}, Healthcheck(kind="none")),
        ({"Test": []}, None),
        ({"Interval": 5}, None),
        ({"Test": ["CMD", "true"]}, Healthcheck(test=("CMD", "true"))),
        ({"Test": ["CMD", "x"], "StartInterval": 10**9}, Healthcheck(test=("CMD", "x"), start_interval=1.0)),
    ],
    ids=["none", "empty", "no-test", "cmd", "start-interval"],
)
def test_healthcheck(check: Any, expected: Healthcheck | None) -> None:
    assert parse({"Healthcheck": check}).healthcheck == expected


@pytest.mark.parametrize(
    ("layers", "expected"),
    [((A, B), (A, B)), ((A, EMPTY, B, EMPTY), (A, B, EMPTY)), ((A, B, A), (B, A)), ((), ())],
    ids=["different", "empty-twice", "same-twice", "none"],
)
def test_of_equal_layers_the_topmost_counts(layers: tuple[str, ...], expected: tuple[str, ...]) -> None:
    assert parse({}, layers).layers == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"{}",
        b"null",
        b'{"rootfs": 3}',
        b"[" * 100_000,
        b"\xff\xfe",
        json.dumps({"rootfs": {"diff_ids": ["sha256:../../etc"]}}).encode(),
        json.dumps({"rootfs": {"diff_ids": [7]}}).encode(),
        json.dumps({"rootfs": {"diff_ids": [A]}, "config": [1]}).encode(),
        json.dumps({"rootfs": {"diff_ids": [A]}, "config": {"Cmd": "ls"}}).encode(),
        json.dumps({"rootfs": {"diff_ids": [A]}, "config": {"Cmd": [1]}}).encode(),
        json.dumps({"rootfs": {"diff_ids": [A]}, "config": {"Env": ["A=\0"]}}).encode(),
        json.dumps({"rootfs": {"diff_ids": [A]}, "config": {"Cmd": ["\ud800"]}}).encode(),
        json.dumps({"rootfs": {"diff_ids": [A]}, "config": {"User": 0}}).encode(),
        json.dumps({"rootfs": {"diff_ids": [A]}, "config": {"Healthcheck": {"Test": ["RM", "x"]}}}).encode(),
        json.dumps({"rootfs": {"diff_ids": [A]}, "config": {"Healthcheck": {"Test": ["CMD"]}}}).encode(),
        json.dumps(
            {"rootfs": {"diff_ids": [A]}, "config": {"Healthcheck": {"Test": ["CMD", "x"], "Retries": -1}}}
        ).encode(),
        json.dumps(
            {"rootfs": {"diff_ids": [A]}, "config": {"Healthcheck": {"Test": ["CMD", "x"], "Interval": 10**400}}}
        ).encode(),
        json.dumps({"rootfs": {"diff_ids": [f"sha256:{number:064x}" for number in range(200)]}}).encode(),
    ],
    ids=lambda raw: raw[:60].decode("latin-1"),
)
def test_malformed_configs_are_refused(raw: bytes) -> None:
    with pytest.raises(Permanent, match="malformed") as caught:
        config.parse("sha256:id", raw)
    assert caught.value.code == "bad-image"


def test_import_config_is_checked_and_made_canonical() -> None:
    assert config.check({"User": "", "Cmd": ["a"], "Env": None}) == {"Cmd": ["a"]}
    wrongs: list[dict[str, Any]] = [{"Command": ["a"]}, {"Cmd": "a"}, {"Healthcheck": {"Test": "curl"}}, {"Labels": []}]
    for wrong in wrongs:
        with pytest.raises(UserError) as caught:
            config.check(wrong)
        assert caught.value.code == "bad-image-config"


@pytest.mark.parametrize("docker", [False, True], ids=["oci", "docker"])
@pytest.mark.parametrize("compression", ["plain", "gzip", "zstd"])
def test_manifest(docker: bool, compression: str) -> None:
    made = image(layer(), layer(), docker=docker, compression=compression)
    found = manifest.parse(made.manifest)
    assert found.config == manifest.Blob(made.id, len(made.config))
    assert [one.compression for one in found.layers] == [compression] * 2
    assert found.layers[0].blob == manifest.Blob(sha(made.layers[0]), len(made.layers[0]))


GOOD = json.loads(image(layer()).manifest)


@pytest.mark.parametrize(
    "change",
    [
        {"config": None},
        {"layers": None},
        {"layers": [{}]},
        {"layers": ["x"]},
        {"config": {**GOOD["config"], "digest": "sha512:" + "0" * 128}},
        {"config": {**GOOD["config"], "digest": "sha256:../../../etc/passwd"}},
        {"config": {**GOOD["config"], "size": -1}},
        {"config": {**GOOD["config"], "size": "9"}},
        {"config": {**GOOD["config"], "size": 1 << 30}},
        {"layers": [{**GOOD["layers"][0], "size": 10**400}]},
        {"layers": [{**GOOD["layers"][0], "size": True}]},
        {"config": {**GOOD["config"], "mediaType": "application/vnd.cncf.helm.config.v1+json"}},
        {"layers": [{**GOOD["layers"][0], "mediaType": "application/vnd.oci.image.layer.v1.tar+lz4"}]},
    ],
    ids=lambda change: json.dumps(change)[:50],
)
def test_malformed_manifests_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(manifest.BadManifest):
        manifest.parse(json.dumps({**GOOD, **change}).encode())


def test_index_gives_this_machine_its_own() -> None:
    entries = [
        {"digest": B, "size": 1, "platform": {"os": "linux", "architecture": "s390x"}},
        {"digest": EMPTY, "size": 1, "platform": {"os": "windows", "architecture": "amd64"}},
        {"digest": A, "size": 1, "platform": {"os": "linux", "architecture": "amd64"}},
        {"digest": B, "size": 1, "platform": {"os": "unknown", "architecture": "unknown"}},
    ]
    raw = json.dumps({"manifests": entries}).encode()
    assert manifest.is_index(raw)
    assert manifest.choose(raw, "linux/amd64") == A
    assert manifest.choose(raw, "linux/riscv64") is None


def test_written_manifest_reads_back_and_is_always_the_same() -> None:
    one = manifest.Layer(manifest.Blob(A, 3), "gzip")
    raw = manifest.write(manifest.Blob(B, 2), one)
    assert manifest.parse(raw) == manifest.Manifest(manifest.Blob(B, 2), (one,))
    assert raw == manifest.write(manifest.Blob(B, 2), one)
