"""05-services.md, volumes and tmpfs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.compose import mounts

from .support import loaded, problems, service

BIND: dict[str, Any] = {"type": "bind", "create_host_path": True, "read_only": False}


@pytest.mark.parametrize(
    ("keys", "found"),
    [
        pytest.param("volumes: ['v:/n']", {"type": "volume", "source": "v", "target": "/n"}, id="named, one letter"),
        pytest.param("volumes: ['./r:/r']", {"type": "bind", "source": "@/r", "target": "/r"}, id="relative"),
        pytest.param("volumes: ['../up:/u']", {"type": "bind", "source": "@/../up", "target": "/u"}, id="above"),
        pytest.param("volumes: ['.:/dot']", {"type": "bind", "source": "@", "target": "/dot"}, id="the folder itself"),
        pytest.param("volumes: ['~/h:/h']", {"type": "bind", "source": "/home/u/h", "target": "/h"}, id="home"),
        pytest.param("volumes: ['~:/h']", {"type": "bind", "source": "/home/u", "target": "/h"}, id="home itself"),
        pytest.param("volumes: ['/a/../b/:/t/x/']", {"type": "bind", "source": "/b", "target": "/t/x"}, id="cleaned"),
        pytest.param(
            "volumes: ['/a:/a:ro,Z,cached']",
            {"type": "bind", "source": "/a", "target": "/a", "read_only": True},
            id="ro",
        ),
        pytest.param("volumes: ['/a:/a:rw,z,delegated']", {"type": "bind", "source": "/a", "target": "/a"}, id="rw"),
        pytest.param(
            "volumes: ['v:/n:nocopy']", {"type": "volume", "source": "v", "target": "/n", "nocopy": True}, id="nocopy"
        ),
        pytest.param(
            "volumes: [{type: bind, source: ./b, target: /b}]",
            {"type": "bind", "source": "@/b", "target": "/b"},
            id="long bind",
        ),
        pytest.param(
            "volumes: [{type: bind, source: /b, target: /b, read_only: true, bind: {create_host_path: false, selinux: z, propagation: rprivate}}]",
            {"type": "bind", "source": "/b", "target": "/b", "read_only": True, "create_host_path": False},
            id="long bind, all",
        ),
        pytest.param(
            "volumes: [{type: volume, source: v, target: /v, volume: {nocopy: true}, consistency: cached}]",
            {"type": "volume", "source": "v", "target": "/v", "nocopy": True},
            id="long volume",
        ),
        pytest.param(
            "volumes: [{type: tmpfs, target: /t, tmpfs: {size: 64m, mode: 0o1777}}]",
            {"type": "tmpfs", "target": "/t", "size": 64 * 2**20, "mode": 0o1777},
            id="long tmpfs",
        ),
        pytest.param(
            "volumes: ['/a:/a:rslave']",
            {"type": "bind", "source": "/a", "target": "/a", "propagation": "slave"},
            id="propagation",
        ),
        pytest.param(
            "volumes: [{type: bind, source: /a, target: /a, bind: {propagation: shared}}]",
            {"type": "bind", "source": "/a", "target": "/a", "propagation": "shared"},
            id="propagation, long",
        ),
        pytest.param(
            "volumes: [{type: volume, source: v, target: /v, volume: {subpath: ./a//b}}]",
            {"type": "volume", "source": "v", "target": "/v", "subpath": "a/b"},
            id="subpath",
        ),
        pytest.param("volumes: [/a/]", {"type": "volume", "target": "/a"}, id="anonymous"),
        pytest.param(
            "volumes: [{type: volume, target: /a, volume: {labels: [k=v, w]}}]",
            {"type": "volume", "target": "/a", "labels": {"k": "v", "w": ""}},
            id="anonymous, labels",
        ),
        pytest.param("tmpfs: /run", {"type": "tmpfs", "target": "/run"}, id="tmpfs, text"),
        pytest.param(
            "tmpfs: ['/d:mode=755,size=1m,noexec,nosuid']",
            {"type": "tmpfs", "target": "/d", "size": 2**20, "mode": 0o755},
            id="tmpfs, options",
        ),
    ],
)
def test_one_mount(tmp_path: Path, keys: str, found: dict[str, Any]) -> None:
    (mount,) = service(tmp_path, keys, {"HOME": "/home/u"}).mounts
    source = found.get("source", "")
    if source.startswith("@"):
        found["source"] = str((tmp_path / source[2:]).resolve()) if "/" in source else str(tmp_path)
    assert mount.model_dump(exclude_defaults=True) == found


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ("volumes: [v]", "cannot use 'v' as services.a.volumes[0]: it must be an absolute path in the container"),
        ("volumes: [{type: volume, source: v, target: /x, volume: {subpath: a/../..}}]", "a path within the volume"),
        (
            "volumes_from: [container:x]",
            "cannot use 'container:x' as services.a.volumes_from[0]: gorae has no containers",
        ),
        ("volumes: [':/x']", "an empty section between colons; a volume is written as SOURCE:TARGET[:OPTIONS]"),
        ("volumes: ['v:/a:ro:z']", "too many colons; a volume is written as SOURCE:TARGET[:OPTIONS]"),
        ("volumes: ['v:rel']", "cannot use 'rel' as services.a.volumes[0]: it must be an absolute path"),
        ("volumes: ['v:/']", "a mount cannot stand at / of the container"),
        ("volumes: ['v:/x/..']", "a mount cannot stand at / of the container"),
        ("volumes: ['/a:/x:nocopy']", "cannot mount at /x in services.a: `volume` says how a volume mount is made"),
        (
            "volumes: [{type: bind, source: /a, target: /x, bind: {propagation: rsl}}]",
            "cannot use 'rsl' as services.a.volumes[0].bind.propagation: it is one of private, rprivate, rshared, rslave",
        ),
        ("volumes: ['~/h:/h']", "HOME is not set, and ~ stands for it"),
        ("volumes: ['~bob/h:/h']", "~user is not supported; write the path out"),
        ("volumes: [{type: bind, target: /x}]", "`source` is missing"),
        ("volumes: [{source: v, target: /x}]", "`type` is missing"),
        ("volumes: [{type: volume, source: v}]", "`target` is missing"),
        ("volumes: [{type: tmpfs, source: v, target: /x}]", "a tmpfs mount has no source"),
        ("volumes: [{type: bind, source: /a, target: /x, volume: {nocopy: true}}]", "`volume` says how a volume mount"),
        ("volumes: [{type: tmpfs, target: /x, tmpfs: {mode: '999'}}]", "it must be a whole number, 0 or more"),
        ("volumes: [{type: tmpfs, target: /x, tmpfs: {mode: 99999}}]", "permission bits are written in octal"),
        ("volumes: [{type: npipe, source: v, target: /x}]", "'npipe': gorae does not support it yet"),
        ("volumes: ['data/x:/n']", "cannot mount the volume data/x in a: no volume of that name is declared"),
        ("volumes: ['v:/x']\ntmpfs: /x", "cannot mount at /x in a: a tmpfs is there already"),
        ("tmpfs: ['/x:uid=5']", "services.a.tmpfs[0]: gorae does not support the option 'uid=5' yet"),
        ("tmpfs: [/y, x]", "cannot use 'x' as services.a.tmpfs[1]: it must be an absolute path in the container"),
    ],
)
def test_refused(tmp_path: Path, keys: str, message: str) -> None:
    lines = "".join(f"    {line}\n" for line in keys.splitlines())
    (problem,) = problems(tmp_path, f"services:\n  a:\n    image: x\n{lines}volumes: {{v: }}\n")
    assert message in problem


def test_a_mount_that_another_hides_is_warned_of(tmp_path: Path) -> None:
    found = loaded(tmp_path, "services:\n  a:\n    image: x\n    volumes: ['/a:/x', '/b:/x']\n")
    assert [mount.source for mount in found.stack.services["a"].mounts] == ["/b"]
    assert found.warnings == ("compose.yaml:4:15: this mount is lost: a later one has the same target /x",)


def test_an_option_that_has_no_effect_is_warned_of(tmp_path: Path) -> None:
    found = loaded(tmp_path, "services:\n  a:\n    image: x\n    volumes: ['/a:/x:r0']\n")
    (warning,) = found.warnings
    assert warning.startswith(
        "compose.yaml:4:15: the mount option 'r0' has no effect: Compose knows ro, nocopy, z, Z, "
    )


@given(st.text(alphabet="/.:~a-, rwov", max_size=30))
def test_any_text_is_a_mount_or_a_value_error(text: str) -> None:
    try:
        found, unknown = mounts.volume(text)
    except ValueError:
        return
    assert found["type"] in ("bind", "volume") and found["target"]
    assert not found["target"].startswith("/") or ".." not in found["target"].split("/")
    assert set(unknown).isdisjoint(mounts.OPTIONS)


def test_volumes_from(tmp_path: Path) -> None:
    text = "services:\n  a: {image: x, volumes_from: [b, 'c:ro', 'd:rw']}\n" + "".join(
        f"  {name}: {{image: x}}\n" for name in "bcd"
    )
    one = loaded(tmp_path, text).stack.services["a"]
    assert [(v.service, v.read_only) for v in one.volumes_from] == [("b", False), ("c", True), ("d", False)]
    assert one.depends_on.keys() == {"b", "c", "d"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ("{type: nfs, o: addr=h, device: ':/d'}", "gorae mounts folders (type: none, o: bind, device: /PATH)"),
        ("{type: none, o: bind}", "`device` must be an absolute path of the host"),
        ("{size: 1g}", "there is no option 'size'"),
    ],
)
def test_driver_options_that_are_refused(tmp_path: Path, options: str, says: str) -> None:
    text = f"services: {{a: {{image: x, volumes: ['v:/v']}}}}\nvolumes: {{v: {{driver_opts: {options}}}}}\n"
    (problem,) = problems(tmp_path, text)
    assert problem.startswith("compose.yaml:2:") and f"cannot use volumes.v.driver_opts: {says}" in problem


def test_driver_options_and_labels_of_a_volume(tmp_path: Path) -> None:
    options = "{driver: local, driver_opts: {type: none, o: bind, device: ./d}, labels: [a=b], name: other}"
    text = f"services: {{a: {{image: x, volumes: ['v:/v']}}}}\nvolumes: {{v: {options}}}\n"
    volume = loaded(tmp_path, text).stack.volumes["v"]
    assert volume.driver_opts == {"type": "none", "o": "bind", "device": str(tmp_path / "d")}
    assert (volume.name, volume.labels) == ("other", {"a": "b"})
