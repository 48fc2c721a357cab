"""What skopeo says, as the errors people see. The texts are real ones."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.images.skopeo import Skopeo, explain, said_by
from agent.kit.errors import Permanent

PREFIX = 'time="2026-01-01T00:00:00Z" level=fatal msg="'

TABLE = [
    (
        "Error parsing image name: reading manifest no in 127.0.0.1:5000/a: manifest unknown: manifest unknown",
        "image-missing",
    ),
    (
        "reading manifest 1 in docker.io/library/nope: errors: denied: requested access to the resource is denied",
        "image-missing",
    ),
    ("unable to retrieve auth token: invalid username/password: unauthorized: incorrect username", "image-missing"),
    ("reading manifest latest in quay.io/a/b: StatusCode: 404, <html>", "pull-failed"),
    (
        "initializing source: pinging container registry h:5000: Get dial tcp 1.2.3.4:5000: connect: connection refused",
        "registry-away",
    ),
    ("pinging container registry nope.invalid: Get: dial tcp: lookup nope.invalid: no such host", "registry-away"),
    ("lookup r on 10.0.0.1:53: read udp 10.0.0.2:1->10.0.0.1:53: i/o timeout", "registry-away"),
    ("reading blob sha256:aa: Get https://cdn/blob: net/http: TLS handshake timeout", "registry-away"),
    ("reading manifest: toomanyrequests: You have reached your pull rate limit", "registry-away"),
    ("fetching blob: received unexpected HTTP status: 502 Bad Gateway", "registry-away"),
    ("Error fetching blob: invalid status code from registry 503 (Service Unavailable)", "registry-away"),
    ("writing blob: unexpected EOF", "registry-away"),
    (
        "choosing image instance: no image found in manifest list for architecture amd64, variant , OS linux",
        "wrong-platform",
    ),
    ("reading manifest 1 in docker.io/geoffrey/eof: manifest unknown: manifest unknown", "image-missing"),
    ("x509: certificate signed by unknown authority", "pull-failed"),
]


@pytest.mark.parametrize(("said", "code"), TABLE, ids=[f"{code}-{number}" for number, (_, code) in enumerate(TABLE)])
def test_explained(said: str, code: str) -> None:
    quoted = said.replace('"', '\\"')
    error = explain("app:1", said_by(f'time="…" level=warning msg="other"\n{PREFIX}{quoted}"\n'))
    assert error.code == code
    assert error.message.startswith("cannot pull app:1: ")
    assert error.hint


def test_words_without_the_logs_form_are_kept() -> None:
    assert said_by("FATA: something\nodd happened\n") == "odd happened"
    assert said_by("") == "no reason given"
    assert said_by(PREFIX + r'parsing \"x\": bad"') == 'parsing "x": bad'


async def test_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Permanent, match="skopeo is not installed") as caught:
        await Skopeo(tmp_path).unpack("oci-archive:a.tar", tmp_path)
    assert caught.value.hint == "apt install skopeo"
