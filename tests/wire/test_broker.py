"""The broker's files: who may read them, and that only the two accounts get in."""

from __future__ import annotations

import hashlib
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from agent.kit.errors import UserError
from agent.kit.layout import Layout
from agent.wire import broker, topics
from agent.wire.bus import BusDown
from agent.wire.mqtt import MqttBus
from agent.wire.topics import MESSAGE_LIMIT
from tests.wire.harness import MosquittoHarness


@pytest.fixture
async def real() -> AsyncIterator[MosquittoHarness]:
    harness = MosquittoHarness()
    await harness.start()
    yield harness
    await harness.close()


@pytest.mark.parametrize(
    ("pattern", "topic", "expected"),
    [
        pytest.param("gorae/store", "gorae/store", True, id="exact"),
        pytest.param("gorae/store", "gorae/store2", False, id="exact only"),
        pytest.param("gorae/status/+", "gorae/status/shop", True, id="one level"),
        pytest.param("gorae/status/+", "gorae/status/a/b", False, id="not two levels"),
        pytest.param("gorae/status/+", "gorae/statusx", False, id="not a longer name"),
    ],
)
def test_matches(pattern: str, topic: str, expected: bool) -> None:
    assert broker.matches(pattern, topic) is expected


@pytest.mark.host
def test_files_are_closed_to_others_and_kept(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    argv = broker.prepare(layout)
    assert argv[1:] == ["-c", str(layout.bus_dir / "mosquitto.conf")]
    modes = {p.name: p.stat().st_mode & 0o7777 for p in layout.bus_dir.iterdir()}
    assert modes == {"agent.pw": 0o600, "orchestrator.pw": 0o600, "passwords": 0o640, "acl": 0o640} | {
        "mosquitto.conf": 0o640
    }
    assert layout.bus_dir.stat().st_mode & 0o7777 == 0o1771
    first = broker.password_file(layout, "agent").read_text()
    broker.prepare(layout)
    assert broker.password_file(layout, "agent").read_text() == first


@pytest.mark.host
def test_it_listens_on_its_socket_alone_and_keeps_nothing(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    broker.prepare(layout)
    config = (layout.bus_dir / "mosquitto.conf").read_text().splitlines()
    assert [line for line in config if line.startswith(("listener", "port", "bind", "include", "bridge"))] == [
        f"listener 0 {layout.bus_socket}"
    ]
    assert {"persistence false", "allow_anonymous false", f"max_packet_size {MESSAGE_LIMIT}"} <= set(config)


@pytest.mark.host
def test_the_password_file_holds_hashes(tmp_path: Path) -> None:
    layout = Layout.at(tmp_path)
    broker.prepare(layout)
    lines = dict(line.split(":") for line in (layout.bus_dir / "passwords").read_text().splitlines())
    assert set(lines) == {"agent", "orchestrator"}
    for role, hashed in lines.items():
        password = broker.password_file(layout, role).read_text().strip()
        _, kind, rounds, salt, digest = hashed.split("$")
        assert kind == "7"
        made = hashlib.pbkdf2_hmac("sha512", password.encode(), b64decode(salt), int(rounds))
        assert made == b64decode(digest)
        assert password not in hashed


def test_missing_mosquitto_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.wire.broker.shutil.which", lambda *_, **__: None)
    with pytest.raises(UserError, match="mosquitto is not installed"):
        broker.prepare(Layout.at(tmp_path))


@pytest.mark.host
async def test_a_wrong_password_and_a_strange_name_are_refused(real: MosquittoHarness, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.pw"
    wrong.write_text("nonsense\n")
    right = broker.password_file(real.layout, "agent")
    for role, file in (("agent", wrong), ("root", right), ("agent", tmp_path / "none.pw")):
        with pytest.raises(BusDown, match="cannot reach the bus"):
            async with MqttBus(real.layout.bus_socket, role, file).session((topics.STORE,)):
                raise AssertionError("let in")
