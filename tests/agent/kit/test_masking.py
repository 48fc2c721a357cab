"""What looks like a secret is hidden wherever it stands; the rest stays as it is."""

from __future__ import annotations

from typing import Any

import pytest

from agent.kit.masking import HIDDEN, masked, secret


@pytest.mark.parametrize(
    "name",
    [
        *("POSTGRES_PASSWORD", "MYSQL_ROOT_PASSWORD", "REDIS_PASS", "DB_PASSWD", "passphrase", "SECRET_KEY_BASE"),
        *("GITHUB_TOKEN", "API_KEY", "apikey", "AWS_SECRET_ACCESS_KEY", "PRIVATE_KEY", "SMTP_PW", "JWT_SECRET"),
    ],
)
def test_names_that_hide_their_value(name: str) -> None:
    assert secret(name)


@pytest.mark.parametrize(
    "name",
    ["PATH", "HOME", "POSTGRES_PASSWORD_FILE", "COMPASS", "PASSENGER_APP_ENV", "KEYBOARD", "POSTGRES_USER", "TZ"],
)
def test_names_that_do_not(name: str) -> None:
    assert not secret(name)


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        pytest.param(
            {"environment": {"DB_PASSWORD": "x", "A": "1"}},
            {"environment": {"DB_PASSWORD": HIDDEN, "A": "1"}},
            id="mapping",
        ),
        pytest.param({"env": ["DB_PASSWORD=x=y", "A=1"]}, {"env": [f"DB_PASSWORD={HIDDEN}", "A=1"]}, id="list"),
        pytest.param({"env": ["DB_PASSWORD="]}, {"env": ["DB_PASSWORD="]}, id="empty"),
        pytest.param(
            {"command": ["serve", "--api-token=x"]}, {"command": ["serve", f"--api-token={HIDDEN}"]}, id="argument"
        ),
        pytest.param({"command": ["select token where a=1"]}, {"command": ["select token where a=1"]}, id="no name"),
        pytest.param([{"a": ({"env": ["TOKEN=x"]},)}], [{"a": [{"env": [f"TOKEN={HIDDEN}"]}]}], id="deep"),
        pytest.param({"url": "amqp://me:pw@host/v"}, {"url": f"amqp://me:{HIDDEN}@host/v"}, id="url"),
        pytest.param(
            {"env": {"URL": "redis://:pw@h"}}, {"env": {"URL": f"redis://:{HIDDEN}@h"}}, id="url in a variable"
        ),
        pytest.param({"image": "host:5000/a:b@sha256:1"}, {"image": "host:5000/a:b@sha256:1"}, id="image name"),
        pytest.param(
            {"n": 1, "b": None, "password": "a key of the document"},
            {"n": 1, "b": None, "password": "a key of the document"},
            id="no variables",
        ),
    ],
)
def test_documents(given: Any, shown: Any) -> None:
    assert masked(given) == shown
