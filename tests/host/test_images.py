"""Images at work: what a stack is locked to, passwords, odd images that must run, and who uses what."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host import Host, power_cut, until
from tests.support.images import MadeImage, Registry, docker_archive, file, image, layer, registry, sha

pytestmark = pytest.mark.host

CONFIG = {"Cmd": ["sleep", "3600"], "Healthcheck": {"Test": ["NONE"]}}


@pytest.fixture(scope="module")
def hub() -> Iterator[Registry]:
    with registry() as running:
        yield running


@pytest.fixture(scope="module")
def base(tars: dict[str, Path]) -> bytes:
    """The root file system of the busybox image, as a layer."""
    return tars["busybox"].read_bytes()


def numbered(base: bytes, *numbers: int) -> MadeImage:
    return image(base, *map(numbered_layer, numbers), config=CONFIG)


def numbered_layer(number: int) -> bytes:
    return layer(file(f"number-{number}", str(number)))


def stack(name: str, *more: str) -> str:
    return "\n".join([f'services: {{app: {{image: "{name}", stop_grace_period: 100ms', *more, "}}"])


def test_a_tag_that_moves_moves_no_stack_until_told(own: Host, hub: Registry, base: bytes) -> None:
    first, second = numbered(base, 1), numbered(base, 2)
    name = hub.push("locked/app", "1", first)
    text = stack(name)
    own.up("shop", text)
    pids = own.pids("shop")
    hub.push("locked/app", "1", second)
    own.cli("image", "pull", name)  # the host's name moves, too
    own.up("shop", text)
    own.stop()
    own.start()
    own.wait("shop", lambda document: document["converged"], "the stack to be known again")
    own.up("shop", text)
    assert own.pids("shop") == pids
    found = json.loads(own.cli("outdated", "--json").stdout)["images"]
    assert [(row["state"], row["digest"], row["latest"]) for row in found] == [
        ("outdated", first.digest, second.digest)
    ]
    assert "outdated" in own.cli("outdated").stdout
    own.cli("restart", "shop")
    (task,) = own.tasks("shop")
    assert Path(f"/proc/{task['pid']}/root/number-1").exists()
    own.stop()
    power_cut(own)
    own.start()
    own.wait("shop", lambda document: document["converged"], "the stack after a reboot")
    (task,) = own.tasks("shop")
    assert Path(f"/proc/{task['pid']}/root/number-1").exists()
    own.up("shop", text, "--pull", "always")
    (task,) = own.tasks("shop")
    assert Path(f"/proc/{task['pid']}/root/number-2").exists()
    assert "current" in own.cli("outdated", "shop").stdout


def test_a_locked_image_that_is_gone_is_pulled_by_its_digest(own: Host, hub: Registry, base: bytes) -> None:
    first, second = numbered(base, 1), numbered(base, 2)
    name = hub.push("gone/app", "1", first)
    own.up("shop", stack(name))
    own.cli("scale", "shop/app=0")
    own.wait("shop", lambda document: not document["services"][0]["tasks"], "nothing to run")
    own.cli("image", "rm", first.id)
    hub.push("gone/app", "1", second)
    own.up("shop", stack(name))
    (task,) = own.tasks("shop")
    assert Path(f"/proc/{task['pid']}/root/number-1").exists()


@pytest.mark.parametrize("how", ["login", "own file"])
def test_a_private_image(own: Host, base: bytes, how: str) -> None:
    with registry("kim", "s3cret-of-kim") as closed:
        name = closed.push("team/app", "1", numbered(base, 1))
        refused = own.up("shop", stack(name), check=False)
        assert refused.returncode == 1
        assert f"cannot pull {name}" in refused.stderr and "gorae login" in refused.stderr
        if how == "login":
            done = own.cli("login", "-u", "kim", "--password-stdin", closed.host, given="s3cret-of-kim\n")
            assert done.stdout == f"logged in to {closed.host} as kim\n"
        else:
            own.env["REGISTRY_AUTH_FILE"] = str(own.root / "user-auth.json")
            key = "a2ltOnMzY3JldC1vZi1raW0="
            (own.root / "user-auth.json").write_text(json.dumps({"auths": {closed.host: {"auth": key}}}))
        own.up("shop", stack(name))
        assert "current" in own.cli("outdated").stdout
        for path in (own.root / "state").rglob("*"):
            if path.is_file() and not path.is_symlink() and "layers" not in path.parts:
                content = path.read_bytes()
                assert b"s3cret-of-kim" not in content and b"a2ltOnMzY3JldC1vZi1raW0=" not in content, path
        assert "s3cret" not in own.log() and "a2ltOnM" not in own.log()
        if how == "login":
            assert (own.root / "etc/auth.json").stat().st_mode & 0o777 == 0o600
            own.cli("logout", closed.host)
            assert json.loads(own.cli("login", "--list", "--json").stdout) == {"logins": {}}


def test_pull_policies_of_services(shared: Host, hub: Registry, base: bytes) -> None:
    name = hub.push("policies/app", "1", numbered(base, 1))
    never = shared.up("policies", stack(name, ", pull_policy: never"), check=False)
    assert never.returncode == 1 and f"cannot find image {name} on this host" in never.stderr
    shared.up("policies", stack(name, ", pull_policy: daily"))
    hub.push("policies/app", "1", numbered(base, 2))
    shared.up("policies", stack(name, ", pull_policy: daily"))
    assert (Path(f"/proc/{shared.tasks('policies')[0]['pid']}/root/number-1")).exists()
    shared.up("policies", stack(name, ", pull_policy: always"))
    assert (Path(f"/proc/{shared.tasks('policies')[0]['pid']}/root/number-2")).exists()
    shared.down("policies")


def test_an_image_of_128_layers_runs(shared: Host, base: bytes, tmp_path: Path) -> None:
    made = image(
        base,
        *(layer(file(f"layers/{number}", str(number)), file("last", str(number))) for number in range(127)),
        config=CONFIG,
        docker=True,
        compression="plain",
    )
    archive = docker_archive(tmp_path / "many.tar", [(made, ["many/layers:128"])])
    shared.cli("image", "load", str(archive))
    assert len(json.loads(shared.cli("image", "inspect", "many/layers:128", "--json").stdout)["layers"]) == 128
    shared.up("many", stack("many/layers:128"))
    (task,) = shared.tasks("many")
    inside = Path(f"/proc/{task['pid']}/root")
    assert len(list((inside / "layers").iterdir())) == 127 and (inside / "last").read_text() == "126"
    shared.down("many")


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_an_image_saved_here_runs_elsewhere(shared: Host, own: Host, tmp_path: Path, form: str) -> None:
    shared.cli("image", "save", "gorae/busybox:1", "-o", str(tmp_path / "image.tar"), "--format", form)
    here = json.loads(shared.cli("image", "inspect", "gorae/busybox:1", "--json").stdout)
    own.cli("image", "rm", here["id"])
    own.cli("image", "load", str(tmp_path / "image.tar"))
    there = json.loads(own.cli("image", "inspect", "gorae/busybox:1", "--json").stdout)
    assert there["id"] == here["id"] and (form == "docker-archive" or there["manifest"] == here["manifest"])
    own.up("shop", stack("gorae/busybox:1", ', command: [sleep, "3600"]'))
    assert own.pids("shop")


def test_an_image_in_use_says_by_whom_also_while_its_last_task_takes_its_time(
    own: Host, hub: Registry, base: bytes
) -> None:
    first, second = numbered(base, 1), numbered(base, 2)
    name = hub.push("grace/app", "1", first)
    stubborn = ', command: [sh, -c, "trap : TERM; while :; do sleep 1; done"]'
    text = stack(name, stubborn).replace("100ms", "20s")
    own.up("shop", text)
    refused = own.cli("image", "rm", first.id, check=False)
    assert refused.returncode == 1 and "shop/app uses it" in refused.stderr
    hub.push("grace/app", "1", second)
    (leaving,) = own.pids("shop").values()
    own.up("shop", text.replace("20s", "100ms"), "--pull", "always", "--no-wait")
    own.wait("shop", lambda document: len(document["services"][0]["tasks"]) == 2, "the old task to be on its way out")
    refused = own.cli("image", "rm", first.id, check=False)
    assert refused.returncode == 1 and "shop/app uses it" in refused.stderr
    pruned = own.cli("image", "prune", "--all").stdout
    assert name not in pruned and first.id[7:19] not in pruned
    os.kill(leaving, signal.SIGKILL)


def test_prune_keeps_what_a_revision_can_go_back_to(own: Host, hub: Registry, base: bytes) -> None:
    first, second, third = (numbered(base, number) for number in (1, 2, 3))
    name = hub.push("prune/app", "1", first)
    own.up("shop", stack(name))
    hub.push("prune/app", "1", second)
    own.up("shop", stack(name), "--pull", "always")
    own.cli("image", "pull", hub.push("prune/other", "1", third))
    kept = {row["id"] for row in json.loads(own.cli("image", "ls", "--json").stdout)["images"]}
    assert {first.id, second.id, third.id} <= kept
    assert json.loads(own.cli("image", "df", "--json").stdout)["reclaimable"] > 0
    own.cli("image", "prune", "--all")
    kept = {row["id"] for row in json.loads(own.cli("image", "ls", "--json").stdout)["images"]}
    assert {first.id, second.id} <= kept and third.id not in kept
    own.down("shop")
    own.wait("shop", lambda document: not document["services"], "the stack to be gone")

    def empty() -> bool:
        """What an `up` has just asked for is spared for some seconds: it may be about to use it."""
        own.cli("image", "prune", "--all")
        return json.loads(own.cli("image", "ls", "--json").stdout)["images"] == []

    until(empty, "the images to go")
    assert json.loads(own.cli("image", "df", "--json").stdout)["blobs"] == 0


def test_fsck_repairs_what_nothing_uses(own: Host, hub: Registry, base: bytes) -> None:
    used, unused = numbered(base, 1), numbered(base, 2)
    name = hub.push("fsck/used", "1", used)
    own.up("shop", stack(name))
    other = hub.push("fsck/unused", "1", unused)
    own.cli("image", "pull", other)
    assert own.cli("image", "fsck").stdout.endswith("all as they should be\n")
    for number in (1, 2):
        (own.root / "state/images/layers" / sha(numbered_layer(number))[7:] / f"number-{number}").write_text("broken")
    found = own.cli("image", "fsck", "--repair", check=False)
    assert found.returncode == 1 and "shop/app uses it" in found.stdout and "unpacked again" in found.stdout
    own.down("shop")
    own.wait("shop", lambda document: not document["services"], "the stack to be gone")
    assert "unpacked again" in own.cli("image", "fsck", "--repair").stdout
    assert json.loads(own.cli("image", "fsck", "--json").stdout)["problems"] == []
