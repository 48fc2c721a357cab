"""gorae cp with real containers: both ways, against somebody inside who swaps symlinks, and cut off in the middle."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from collections import Counter
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


def entry(name: str, **fields: object) -> bytes:
    made = tarfile.TarInfo(name)
    for field, value in fields.items():
        setattr(made, field, value)
    return made.tobuf(tarfile.PAX_FORMAT if made.pax_headers else tarfile.GNU_FORMAT)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        pytest.param(entry("a", uid=70000), "cannot give 'a' to user 70000, group 0", id="a uid of no container"),
        pytest.param(entry("a", gid=2**40), f"cannot give 'a' to user 0, group {2**40}", id="a gid of no system"),
        pytest.param(entry("a", pax_headers={"path": "a\0b"}), r"cannot unpack 'a\x00b': embedded null", id="NUL"),
        pytest.param(
            entry("a", pax_headers={"comment": "b"})[:1024] * 2000, "it is no whole tar (maximum recursion", id="depth"
        ),
        pytest.param(b"x" * 2000, "it is no whole tar (invalid header", id="no tar"),
    ],
)
def test_a_tar_that_cannot_be_is_refused_by_name(host: Host, data: bytes, said: str) -> None:
    words = [*CLI, "cp", "-a", "-", "cp/app:/data"]
    done = subprocess.run(words, env=host.env, input=data + bytes(10240), capture_output=True, timeout=PATIENCE)
    assert (done.returncode, said in done.stderr.decode()) == (1, True), done.stderr.decode()
    assert inside(host, "ls -A /data/a /data/.gorae* 2>/dev/null || true") == "/data/a\n"  # which was there


SWAPPER = """
import os, random, time
def lay():
    os.system("busybox rm -rf /swap/*")
    for name in ("swap/d/sub", "{outside}/sub"):
        os.makedirs("/" + name, exist_ok=True)
    os.chdir("/swap")
    for name, text in (("d/secret", "inside"), ("d/sub/deep", "inside"), ("{outside}/secret", "decoy")):
        with open(name, "w") as file:
            file.write(text)
    os.symlink("{outside}", "absolute")
    os.symlink("../" * 12 + "{outside}"[1:], "relative")
lay()
print("swapping", flush=True)
while True:
    try:
        for link in ("absolute", "relative"):
            for there, gone in ((link, "away"), ("away", link)):
                os.rename("d", gone)
                os.rename(there, "d")
                time.sleep(random.random() / 4000)
    except OSError:  # a copy has put something in the way
        lay()
"""


def test_a_swapper_leads_nowhere(shared: Host, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    """Inside, /swap/d is by turns a directory, a link and nothing. The link leads to a directory that the host has as
    well, where it belongs to the container's root: whoever took it for the host's would succeed, and be seen here."""
    rounds = request.config.getoption("--rounds") or 8
    outside = shared.root / "outside"
    command = json.dumps(SWAPPER.format(outside=outside))
    shared.up(
        "swap",
        f"""
services:
  app:
    image: gorae/visits-web:1
    user: "0:0"
    command: ["python3", "-S", "-c", {command}]
    stop_grace_period: 0s
""",
    )
    try:
        until(lambda: "swapping" in shared.cli("logs", "swap").stdout, "the swapper")
        ((task, pid),) = shared.pids("swap").items()
        base = int(Path(f"/proc/{pid}/uid_map").read_text().split()[1])
        before = _laid_out(outside, base)
        mine, tree, got = (tmp_path / name for name in ("mine", "tree", "got"))
        (mine / "d" / "sub").mkdir(parents=True)
        for name in ("mine", "d/mine", "d/sub/mine"):
            (mine / name).write_text("mine")
        ways = {  # of each round one out and one in
            "file out": ("swap/app:/swap/d/secret", str(got)),
            "tree out": ("swap/app:/swap", str(tree)),
            "file in": (str(mine / "mine"), "swap/app:/swap/d"),
            "tree in": ("-a", f"{mine}/.", "swap/app:/swap"),
        }
        seen: Counter[str] = Counter()
        wanted = {f"{way}: done" for way in ways}
        number = 0
        while number < rounds or not wanted <= set(seen):
            assert number < rounds + 50, seen
            number += 1
            shutil.rmtree(tree, ignore_errors=True)
            (tree / "swap").mkdir(parents=True)
            if number % 4 == 1:
                (tree / "swap" / "d").symlink_to(outside)  # as an earlier copy may have left it
            for way, words in list(ways.items())[number % 2 :: 2]:
                done = shared.cli("cp", *words, check=False)
                assert done.returncode == (1 if done.stderr.startswith("cannot") else 0), done.stderr
                seen[f"{way}: {'done' if done.returncode == 0 else 'refused'}"] += 1
                assert _state(outside) == before, way
            texts = {path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
            assert "outside" not in texts
            seen.update(f"read: {text}" for text in texts & {"inside", "decoy"})
            got.unlink(missing_ok=True)
        assert shared.pids("swap") == {task: pid}  # it has swapped to the end
        print(f"{number} rounds; nothing outside was read or written")
        print("\n".join(f"{count:6}  {what}" for what, count in sorted(seen.items())))
    finally:
        shared.down("swap")
        shutil.rmtree(outside, ignore_errors=True)


def _laid_out(outside: Path, owner: int) -> object:
    (outside / "sub").mkdir(parents=True)
    (outside / "secret").write_text("outside")
    for path in (outside, outside / "sub", outside / "secret"):
        os.chown(path, owner, owner)
    subprocess.run(["touch", "probe"], cwd=outside, user=owner, group=owner, extra_groups=[], check=True)
    (outside / "probe").unlink()
    return _state(outside)


def _state(outside: Path) -> object:
    paths = [outside, *sorted(outside.rglob("*"))]
    found = [(path, path.lstat()) for path in paths]
    text = (outside / "secret").read_text()
    return text, [(str(path), each.st_mode, each.st_uid, each.st_mtime_ns, each.st_ctime_ns) for path, each in found]


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
