"""What a container is given, as tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.decide import oci_config as oci
from agent.kit.errors import Permanent
from agent.ports import BindSource, ImageConfig, NameFiles, Sandbox, UserIds
from agent.wire.messages import ContainerSpec, Mount, Policy, Resources, Task


def task(*, policy: Policy | None = None, **spec: Any) -> Task:
    container = ContainerSpec(image="web:1", image_id="sha256:0", **spec)
    return Task(id="t1", service="web", slot=1, template="x", container=container, policy=policy or Policy())


def image(**config: Any) -> ImageConfig:
    return ImageConfig("sha256:0", (), **config)


def config(
    wanted: Task, *, binds: tuple[BindSource, ...] = (), ids: UserIds | None = None, **more: Any
) -> dict[str, Any]:
    return oci.oci_config(
        instance="0a1b2c3d",
        stack="shop",
        task=wanted,
        attempt=2,
        image=image(command=("run",)),
        ids=ids or UserIds(0, 0),
        sandbox=Sandbox("t1", Path("/n/user"), Path("/n/net"), 65536),
        rootfs=Path("/r"),
        binds=binds,
        names=NameFiles(Path("/h/hosts"), Path("/h/resolv"), Path("/h/name")),
        hostname="web-1",
        seccomp={"defaultAction": "SCMP_ACT_ERRNO"},
        **more,
    )


def bind(target: str, kind: str = "bind", source: str = "/src") -> BindSource:
    return BindSource(Mount.model_validate({"kind": kind, "target": target}), source, ("bind", "rw"))


@pytest.mark.parametrize(
    ("entrypoint", "command", "expected"),
    [
        (None, None, ("entry", "cmd")),
        (None, ("mine",), ("entry", "mine")),
        (None, (), ("entry",)),
        (("other",), None, ("other",)),
        (("other",), ("mine",), ("other", "mine")),
        ((), ("mine",), ("mine",)),
    ],
    ids=["image's", "command replaced", "command reset", "entrypoint drops CMD", "both", "entrypoint reset"],
)
def test_arguments(
    entrypoint: tuple[str, ...] | None, command: tuple[str, ...] | None, expected: tuple[str, ...]
) -> None:
    wanted = task(entrypoint=entrypoint, command=command)
    assert oci.arguments(wanted, image(entrypoint=("entry",), command=("cmd",))) == expected


@pytest.mark.parametrize("spec", [{}, {"entrypoint": ()}, {"command": ("",)}], ids=["nothing", "reset", "empty word"])
def test_no_command(spec: dict[str, Any]) -> None:
    with pytest.raises(Permanent) as caught:
        oci.arguments(task(**spec), image(command=("x",) if "entrypoint" in spec else ()))
    assert caught.value.code == "no-command"
    assert "web:1" in caught.value.message


@pytest.mark.parametrize(
    ("from_image", "from_spec", "expected"),
    [
        ((), {}, {"PATH": oci.PATH, "HOSTNAME": "web-1", "HOME": "/root"}),
        (("PATH=/bin", "A=1"), {}, {"PATH": "/bin", "HOSTNAME": "web-1", "HOME": "/root", "A": "1"}),
        (("A=1", "B=x=y"), {"A": "2"}, {"PATH": oci.PATH, "HOSTNAME": "web-1", "HOME": "/root", "A": "2", "B": "x=y"}),
        ((), {"HOME": "/h", "HOSTNAME": "n"}, {"PATH": oci.PATH, "HOSTNAME": "n", "HOME": "/h"}),
    ],
    ids=["defaults", "image over defaults", "spec over image", "spec over defaults"],
)
def test_environment(from_image: tuple[str, ...], from_spec: dict[str, str], expected: dict[str, str]) -> None:
    made = oci.environment(
        task(environment=from_spec), image(environment=from_image), UserIds(0, 0, home="/root"), "web-1"
    )
    assert dict(entry.split("=", 1) for entry in made) == expected
    assert len(made) == len(expected)


@pytest.mark.parametrize(
    ("given_", "from_image", "expected"),
    [
        (None, "", "/"),
        (None, "/app", "/app"),
        (None, "app", "/app"),
        ("/srv/x/", "/app", "/srv/x"),
        ("//srv", "", "/srv"),
        ("/procs", "", "/procs"),
    ],
)
def test_working_dir(given_: str | None, from_image: str, expected: str) -> None:
    assert oci.working_dir(task(working_dir=given_), image(working_dir=from_image)) == expected


@pytest.mark.parametrize(
    "path", ["/proc/self/fd/7", "/proc", "/a/../b", "relative", "//proc/1/cwd", "/./proc/self", "/a\0b"]
)
def test_bad_working_dir(path: str) -> None:
    for wanted, img in ((task(working_dir=path), image()), (task(), image(working_dir=path))):
        if path == "relative" and img.working_dir:
            continue
        with pytest.raises(Permanent) as caught:
            oci.working_dir(wanted, img)
        assert caught.value.code == "bad-workdir"


@pytest.mark.parametrize(
    "target", ["/proc", "/proc/x", "/sys", "/sys/fs/cgroup", "/dev", "/", "/a/../proc", "rel", "//proc", "/./sys/x"]
)
def test_bad_mount_target(target: str) -> None:
    with pytest.raises(Permanent) as caught:
        config(task(), binds=(bind(target),))
    assert caught.value.code == "bad-mount"


def test_mounts_are_ordered_parents_first_and_names_last() -> None:
    made = config(task(), binds=(bind("/data/deep"), bind("/data"), bind("/tmp", "tmpfs", "tmpfs"), bind("/dev/shm")))
    targets = [mount["destination"] for mount in made["mounts"]]
    assert targets.index("/data") < targets.index("/data/deep")
    assert targets.index("/dev") < targets.index("/dev/shm")
    assert targets[-3:] == ["/etc/hosts", "/etc/resolv.conf", "/etc/hostname"]
    assert {m["type"] for m in made["mounts"] if m["destination"] == "/tmp"} == {"tmpfs"}


def test_the_whole() -> None:
    made = config(task(read_only=True), ids=UserIds(1000, 1001, (5,)))
    process = made["process"]
    assert process["user"] == {"uid": 1000, "gid": 1001, "additionalGids": [5], "umask": 18}
    assert process["noNewPrivileges"] is True
    assert process["terminal"] is False
    assert process["capabilities"]["effective"] == []
    assert len(process["capabilities"]["bounding"]) == 11
    assert made["root"] == {"path": "/r", "readonly": True}
    assert made["linux"]["cgroupsPath"] == "/gorae-0a1b2c3d/t1.2"
    assert made["linux"]["namespaces"][:2] == [
        {"type": "user", "path": "/n/user"},
        {"type": "network", "path": "/n/net"},
    ]
    dev = next(mount for mount in made["mounts"] if mount["destination"] == "/dev")
    assert dev["type"] == "tmpfs"
    sys = next(mount for mount in made["mounts"] if mount["destination"] == "/sys")
    assert "ro" in sys["options"]


def test_the_domain_is_the_kernels_too() -> None:
    assert config(task(naming={"domain": "example.org"}))["domainname"] == "example.org"
    assert "domainname" not in config(task()), "crun would set an empty one"


def test_cgroup_namespace_and_mount_on_v2_only() -> None:
    for version, expected in (("v1", False), ("v2", True)):
        made = config(task(), cgroup=version)
        assert ({"type": "cgroup"} in made["linux"]["namespaces"]) is expected
        assert any(mount["destination"] == "/sys/fs/cgroup" for mount in made["mounts"]) is expected


@pytest.mark.parametrize(
    ("wanted", "expected"),
    [
        (Resources(), {"pids": {"limit": 4096}}),
        (Resources(pids=0), {}),
        (Resources(pids=-1), {}),
        (Resources(pids=9), {"pids": {"limit": 9}}),
        (Resources(memory=1 << 20), {"pids": {"limit": 4096}, "memory": {"limit": 1 << 20, "swap": 1 << 20}}),
        (Resources(cpus=1.5), {"pids": {"limit": 4096}, "cpu": {"quota": 150_000, "period": 100_000}}),
        (Resources(cpus=0.001), {"pids": {"limit": 4096}, "cpu": {"quota": 1000, "period": 100_000}}),
        (Resources(memory_reservation=5, cpus_reservation=1), {"pids": {"limit": 4096}}),
    ],
)
def test_resources(wanted: Resources, expected: dict[str, Any]) -> None:
    assert oci.resources(wanted) == {"devices": [{"allow": False, "access": "rwm"}], **expected}


@pytest.mark.parametrize(
    ("spec", "from_image", "number"),
    [
        (None, "", 15),
        (None, "SIGQUIT", 3),
        ("SIGINT", "SIGQUIT", 2),
        ("int", "", 2),
        ("9", "", 9),
        ("SIGRTMIN+3", "", 37),
        ("RTMAX-1", "", 63),
    ],
)
def test_stop_signal(spec: str | None, from_image: str, number: int) -> None:
    assert oci.stop_signal(task(policy=Policy(stop_signal=spec)), image(stop_signal=from_image)) == number


@pytest.mark.parametrize("text", ["SIGNOPE", "0", "65", "TERM+1", "RTMIN+99", "RTMIN+", "-9", "SIG"])
def test_bad_stop_signal(text: str) -> None:
    with pytest.raises(Permanent) as caught:
        oci.stop_signal(task(policy=Policy(stop_signal=text)), image())
    assert caught.value.code == "bad-signal"


@given(st.text(alphabet="./apro cs\0", max_size=12))
def test_no_working_dir_leads_into_proc_or_upwards(path: str) -> None:
    try:
        made = oci.working_dir(task(working_dir=path), image())
    except Permanent:
        return
    assert made.startswith("/")
    assert ".." not in made.split("/")
    assert not made.startswith("//")
    assert made != "/proc"
    assert not made.startswith("/proc/")
