"""gorae cp with real containers: both ways, against somebody inside who swaps symlinks, and cut off in the middle."""

from __future__ import annotations

import hashlib
import os
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.host.conftest import service
from tests.support.host import CLI, Host, processes, until

pytestmark = pytest.mark.host
PATIENCE = 60
MEBIBYTES = 50


@pytest.fixture(scope="module")
def host(shared: Host) -> Iterator[Host]:
    shared.up("cp", service("mkdir -p /data/sub; echo inside > /data/a; ln -s a /data/link; sleep 100000"))
    until(lambda: inside(shared, "readlink /data/link || true") == "a\n", "the files")
    yield shared
    shared.down("cp")


def inside(host: Host, script: str) -> str:
    return host.cli("exec", "-T", "--no-stdin", "cp/app", "sh", "-c", script).stdout


def descriptors(host: Host) -> list[int]:
    """How many descriptors the agent and the orchestrator have open."""
    pids = host.daemons()
    return [len(list(Path(f"/proc/{pids[name]}/fd").iterdir())) for name in ("agent", "orchestrator")]


def copying(path: str) -> list[int]:
    return [pid for pid, words in processes() if "agent.streams.copy_child" in words and f'"{path}"' in words[-1]]


def names(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


def test_out_by_the_rules(host: Host, tmp_path: Path) -> None:
    """A directory that exists gets the copy in it; else the copy becomes the destination."""
    host.cli("cp", "cp/app:/data/a", "new", cwd=tmp_path)
    host.cli("cp", "cp/app:/data/a", ".", cwd=tmp_path)
    host.cli("cp", "cp/app:data", "tree", cwd=tmp_path)
    host.cli("cp", "cp/app:/data/", ".", cwd=tmp_path)
    (tmp_path / "given").mkdir()
    host.cli("cp", "cp/app:/data/.", "given", cwd=tmp_path)
    host.cli("cp", "-L", "cp/app:/data/link", "followed", cwd=tmp_path)
    trees = [top + name for top in ("tree", "data", "given") for name in ("", "/a", "/link", "/sub")]
    assert names(tmp_path) == sorted(["new", "a", "followed", *trees])
    assert {(tmp_path / name).read_text() for name in ("new", "a", "followed", "tree/a", "given/a")} == {"inside\n"}
    assert (tmp_path / "tree" / "link").readlink() == Path("a")


def test_in_by_the_rules(host: Host, tmp_path: Path) -> None:
    (tmp_path / "d" / "e").mkdir(parents=True)
    (tmp_path / "d" / "f").write_text("outside\n")
    (tmp_path / "d" / "f").chmod(0o640)
    os.chown(tmp_path / "d" / "f", 1234, 1234)
    inside(host, "mkdir -p /in/there")
    rules = (("d/f", "/in/new"), ("d/f", "/in/there"), ("d", "/in/there"), ("d", "/in/tree"), ("d/.", "/in"))
    for source, target in rules:
        host.cli("cp", source, f"cp/app:{target}", cwd=tmp_path)
    host.cli("cp", "-a", "d/f", "cp/app:/in/owned", cwd=tmp_path)
    found = inside(host, "cd /in; find . | sort; cat new there/d/f; stat -c '%u %a %n' new owned").splitlines()
    paths = [
        ".",
        "e",
        "f",
        "new",
        "owned",
        "there",
        "there/d",
        "there/d/e",
        "there/d/f",
        "there/f",
        "tree",
        "tree/e",
        "tree/f",
    ]
    assert found[:-4] == [path if path == "." else f"./{path}" for path in paths]
    assert found[-4:] == ["outside", "outside", "0 640 new", "1234 640 owned"]


def test_a_tar_both_ways(host: Host) -> None:
    out = subprocess.run([*CLI, "cp", "cp/app:/data", "-"], env=host.env, capture_output=True, check=True)
    inside(host, "mkdir -p /tar")
    subprocess.run([*CLI, "cp", "-", "cp/app:/tar"], env=host.env, input=out.stdout, capture_output=True, check=True)
    found = inside(host, "cd /tar; find . | sort; cat data/link").split()
    assert found == [".", "./data", "./data/a", "./data/link", "./data/sub", "inside"]


def test_a_large_file_both_ways(host: Host, tmp_path: Path) -> None:
    data = os.urandom(1 << 20) * MEBIBYTES
    (tmp_path / "large").write_bytes(data)
    host.cli("cp", str(tmp_path / "large"), "cp/app:/large", timeout=PATIENCE)
    assert inside(host, "sha256sum < /large").split()[0] == hashlib.sha256(data).hexdigest()
    host.cli("cp", "cp/app:/large", str(tmp_path / "back"), timeout=PATIENCE)
    assert (tmp_path / "back").read_bytes() == data


@pytest.mark.parametrize(
    ("source", "target", "said"),
    [
        pytest.param("cp/app:/none", ".", "cannot copy /none: there is no such file in the container", id="none there"),
        pytest.param("none", "cp/app:/x", "none: no such file or directory", id="none here"),
        pytest.param("cp/ap:/data", ".", "cannot find service ap", id="no such service"),
        pytest.param("large", "cp/app:/data", "cannot replace the directory", id="a directory in its place"),
        pytest.param("large", "cp/app:/none/", "into the directory /none/: there is none", id="no directory"),
    ],
)
def test_what_cannot_be_copied(host: Host, tmp_path: Path, source: str, target: str, said: str) -> None:
    """Said at once, also when more was on its way than anybody takes."""
    inside(host, "mkdir -p /data/large")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(20 << 20)
    done = host.cli("cp", source, target, check=False, cwd=tmp_path, timeout=PATIENCE)
    assert (done.returncode, said in done.stderr) == (1, True), done.stderr
    assert names(tmp_path) == ["large"]


def test_a_swapper_leads_nowhere(host: Host, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Inside, /swap/d is by turns a directory and a link to one that only the host has."""
    rounds = request.config.getoption("--rounds") or 5
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("outside\n")
    (tmp_path / "mine").write_text("mine\n")
    up = "../" * 12 + str(outside).lstrip("/")
    swap = f"mkdir -p /swap; cd /swap; while :; do mkdir d; echo inside > d/secret; rm -r d; ln -s {up} d; rm d; done"
    host.cli("exec", "-d", "cp/app", "sh", "-c", swap)
    done = 0
    for _ in range(rounds):
        got = host.cli("cp", "cp/app:/swap/d/secret", str(tmp_path / "got"), check=False)
        put = host.cli("cp", str(tmp_path / "mine"), "cp/app:/swap/d", check=False)
        done += (got.returncode == 0) + (put.returncode == 0)
        if got.returncode == 0:
            assert (tmp_path / "got").read_text() in ("inside\n", "")
        assert names(outside) == ["secret"] and (outside / "secret").read_text() == "outside\n"
    print(f"{rounds} rounds of both ways: {done} copies succeeded, none led out of the container")
    assert done


def test_a_client_that_is_killed_leaves_nothing(host: Host) -> None:
    before = descriptors(host)
    inside(host, "mkdir -p /cut")
    client = subprocess.Popen([*CLI, "cp", "-", "cp/app:/cut"], env=host.env, stdin=subprocess.PIPE)
    assert client.stdin is not None
    half = tarfile.TarInfo("half")
    half.size = 8 << 20
    client.stdin.write(half.tobuf() + bytes(1 << 20))
    client.stdin.flush()
    until(lambda: inside(host, "ls -A /cut").startswith(".gorae-"), "it to be half there")
    client.kill()
    client.wait(PATIENCE)
    client.stdin.close()
    until(lambda: not copying("/cut"), "the process to end")
    assert inside(host, "ls -A /cut") == ""
    until(
        lambda: all(now <= then for now, then in zip(descriptors(host), before, strict=True)),
        "descriptors to be closed",
        tell=lambda: f"{before} {descriptors(host)}",
    )
