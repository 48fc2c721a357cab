"""Images at work: what a stack is locked to, passwords, odd images that must run, and who uses what."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.host import Host
from tests.support.images import MadeImage, Registry, file, image, layer, registry

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
    return image(base, *(layer(file(f"number-{number}", str(number))) for number in numbers), config=CONFIG)


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
            assert os.stat(own.root / "etc/auth.json").st_mode & 0o777 == 0o600
            own.cli("logout", closed.host)
            assert json.loads(own.cli("login", "--list", "--json").stdout) == {"logins": {}}


def test_pull_policies_of_services(shared: Host, hub: Registry, base: bytes) -> None:
    name = hub.push("policies/app", "1", numbered(base, 1))
    never = shared.up("policies", stack(name, ", pull_policy: never"), check=False)
    assert never.returncode == 1 and f"cannot find image {name} on this host" in never.stderr
    build = shared.up("policies", stack(name, ", pull_policy: build"), check=False)
    assert build.returncode == 2 and "gorae builds no images yet" in build.stderr
    shared.up("policies", stack(name, ", pull_policy: daily"))
    hub.push("policies/app", "1", numbered(base, 2))
    shared.up("policies", stack(name, ", pull_policy: daily"))
    assert (Path(f"/proc/{shared.tasks('policies')[0]['pid']}/root/number-1")).exists()
    shared.up("policies", stack(name, ", pull_policy: always"))
    assert (Path(f"/proc/{shared.tasks('policies')[0]['pid']}/root/number-2")).exists()
    shared.down("policies")
