"""Registries that ask for a password, speak TLS, or are mirrors of others; and what is kept of a password, where."""

from __future__ import annotations

import base64
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.images.auth import checked
from agent.kit.errors import GoraeError, UserError
from agent.ports import Wanted
from tests.agent.images.conftest import Shop
from tests.support.images import Registry, file, image, layer, registry

pytestmark = pytest.mark.host

MADE = image(layer(file("one", "1")))
GOOD = base64.b64encode(b"kim:s3cret").decode()
BAD = base64.b64encode(b"kim:wrong").decode()


@pytest.fixture(scope="module")
def closed() -> Iterator[Registry]:
    with registry("kim", "s3cret") as running:
        running.push("team/app", "1", MADE)
        yield running


@pytest.fixture(scope="module")
def hub() -> Iterator[Registry]:
    with registry() as running:
        running.push("team/app", "1", MADE)
        yield running


@pytest.fixture(scope="module")
def sealed() -> Iterator[Registry]:
    with registry(tls=True) as running:
        running.push("team/app", "1", MADE)
        yield running


def kept(shop: Shop) -> Path:
    return shop.root / "etc" / "auth.json"


async def refused(shop: Shop, name: str, keys: dict[str, str] | None = None) -> GoraeError:
    with pytest.raises(UserError, match="keeps it private") as caught:
        await shop.store.pull(name, shop.said.append, "", keys or {})
    assert "gorae login" in caught.value.hint
    assert "s3cret" not in str(caught.value.document()) and GOOD not in str(caught.value.document())
    return caught.value


async def test_login_then_pull_then_logout(shop: Shop, closed: Registry) -> None:
    name = f"{closed.host}/team/app:1"
    await refused(shop, name)
    await shop.store.logins.login(closed.host, "kim", "s3cret")
    assert stat.S_IMODE(kept(shop).stat().st_mode) == 0o600
    assert shop.store.logins.known() == {closed.host: "kim"}
    assert (await shop.store.pull(name, shop.said.append)).id == MADE.id
    assert await shop.store.latest(name) == MADE.digest
    shop.store.logins.logout(closed.host)
    assert shop.store.logins.known() == {} and "s3cret" not in kept(shop).read_text()
    with pytest.raises(UserError, match="cannot log out of"):
        shop.store.logins.logout(closed.host)
    await refused(shop, name)


async def test_a_wrong_password_is_said_and_not_kept(shop: Shop, closed: Registry) -> None:
    with pytest.raises(UserError, match=f"cannot log in to {closed.host}") as caught:
        await shop.store.logins.login(closed.host, "kim", "wr0ng-one")
    assert caught.value.code == "bad-login" and "wr0ng-one" not in str(caught.value.document())
    assert shop.store.logins.known() == {}


async def test_a_registry_that_is_not_there(shop: Shop) -> None:
    with pytest.raises(GoraeError, match=r"cannot log in to 127\.0\.0\.1:9") as caught:
        await shop.store.logins.login("127.0.0.1:9", "kim", "s3cret")
    assert caught.value.code == "registry-away"


async def test_the_askers_own_key_for_one_request(shop: Shop, closed: Registry) -> None:
    name = f"{closed.host}/team/app:1"
    await refused(shop, name, {closed.host: BAD})
    found = await shop.store.ensure(Wanted(name), shop.said.append, {f"{closed.host}/team": GOOD})
    assert (found.id, found.digest) == (MADE.id, MADE.digest)
    assert not kept(shop).exists()
    await refused(shop, name)
    everywhere = [path for path in shop.root.rglob("*") if path.is_file()]
    assert not [path for path in everywhere if GOOD.encode() in path.read_bytes()]


async def test_the_askers_key_comes_before_the_instances(shop: Shop, closed: Registry) -> None:
    await shop.store.logins.login(closed.host, "kim", "s3cret")
    await refused(shop, f"{closed.host}/team/app:1", {closed.host: BAD})


async def test_a_broken_auth_file_is_named(shop: Shop, closed: Registry) -> None:
    kept(shop).parent.mkdir(parents=True)
    kept(shop).write_text("{")
    with pytest.raises(UserError, match=r"cannot read .*auth\.json") as caught:
        await shop.store.pull(f"{closed.host}/team/app:1", shop.said.append)
    assert caught.value.code == "bad-auth-file"


async def test_tls_with_an_authority_the_host_trusts(
    shop: Shop, sealed: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By a name of its own: on loopback no certificate is asked for, as with Docker."""
    alias(monkeypatch, tmp_path, "registry.test", sealed.host)
    with pytest.raises(GoraeError, match="certificate"):
        await shop.store.pull("registry.test/team/app:1", shop.said.append)
    monkeypatch.setenv("SSL_CERT_FILE", str(sealed.certificate))
    assert (await shop.store.pull("registry.test/team/app:1", shop.said.append)).id == MADE.id


async def test_tls_on_loopback_needs_no_authority(shop: Shop, sealed: Registry) -> None:
    assert (await shop.store.pull(f"{sealed.host}/team/app:1", shop.said.append)).id == MADE.id


async def test_an_insecure_registry_of_registries_conf(
    shop: Shop, hub: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    alias(monkeypatch, tmp_path, "plain.test", hub.host)
    with pytest.raises(GoraeError):
        await shop.store.pull("plain.test/team/app:1", shop.said.append)
    alias(monkeypatch, tmp_path, "plain.test", hub.host, insecure=True)
    assert (await shop.store.pull("plain.test/team/app:1", shop.said.append)).names == ("plain.test/team/app:1",)


async def test_a_mirror_is_asked_first_and_the_registry_when_it_has_nothing(
    shop: Shop, hub: Registry, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with registry() as mirror:
        other = image(layer(file("two", "2")))
        mirror.push("team/app", "1", other)
        hub.push("team/only-here", "1", MADE)
        text = f'[[registry]]\nlocation = "{hub.host}"\ninsecure = true\n'
        text += f'[[registry.mirror]]\nlocation = "{mirror.host}"\ninsecure = true\n'
        write(monkeypatch, tmp_path, text)
        assert (await shop.store.pull(f"{hub.host}/team/app:1", shop.said.append)).id == other.id
        assert (await shop.store.pull(f"{hub.host}/team/only-here:1", shop.said.append)).id == MADE.id


def alias(monkeypatch: pytest.MonkeyPatch, place: Path, name: str, host: str, *, insecure: bool = False) -> None:
    flag = f"insecure = {str(insecure).lower()}"
    write(monkeypatch, place, f'[[registry]]\nprefix = "{name}"\nlocation = "{host}"\n{flag}\n')


def write(monkeypatch: pytest.MonkeyPatch, place: Path, text: str) -> None:
    """As root's own, which comes before the host's: containers-registries.conf(5)."""
    file = place / ".config/containers/registries.conf"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    monkeypatch.setenv("HOME", str(place))


@pytest.mark.parametrize(
    ("written", "host"),
    [
        ("ghcr.io", "ghcr.io"),
        ("https://ghcr.io/v2/", "ghcr.io"),
        ("localhost:5000", "localhost:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("[::1]:5000", "[::1]:5000"),
    ],
)
def test_registries(written: str, host: str) -> None:
    assert checked(written) == host


@pytest.mark.parametrize("written", ["", "team", "a b.example.com", "--help", "x" * 300 + ".com", "ghcr.io:port"])
def test_no_registries(written: str) -> None:
    with pytest.raises(UserError, match="cannot use"):
        checked(written)


async def test_a_user_name_that_no_registry_can_have(shop: Shop) -> None:
    for user, password in (("", "x"), ("a:b", "x"), ("a", ""), ("a", "x\ny")):
        with pytest.raises(UserError, match="a user name without colons"):
            await shop.store.logins.login("ghcr.io", user, password)
