"""Names: Docker's grammar by table, and properties of every name it allows."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.images import names
from agent.kit.errors import UserError

D = "sha256:" + "ab" * 32

TABLE = [
    ("redis", "docker.io/library/redis:latest", "redis:latest"),
    ("redis:7", "docker.io/library/redis:7", "redis:7"),
    ("library/redis:7", "docker.io/library/redis:7", "redis:7"),
    ("docker.io/redis", "docker.io/library/redis:latest", "redis:latest"),
    ("index.docker.io/library/redis", "docker.io/library/redis:latest", "redis:latest"),
    ("bitnami/redis:7.2", "docker.io/bitnami/redis:7.2", "bitnami/redis:7.2"),
    ("ghcr.io/owner/app", "ghcr.io/owner/app:latest", "ghcr.io/owner/app:latest"),
    ("localhost/app:1", "localhost/app:1", "localhost/app:1"),
    ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
    ("127.0.0.1:5000/a/b/c:x", "127.0.0.1:5000/a/b/c:x", "127.0.0.1:5000/a/b/c:x"),
    ("[::1]:5000/app:1", "[::1]:5000/app:1", "[::1]:5000/app:1"),
    ("UPPER/app", "UPPER/app:latest", "UPPER/app:latest"),
    ("quay.io/a_b/c__d/e-f--g:V1.0_x-y", "quay.io/a_b/c__d/e-f--g:V1.0_x-y", "quay.io/a_b/c__d/e-f--g:V1.0_x-y"),
    (f"redis@{D}", f"docker.io/library/redis@{D}", f"redis@{D}"),
    (f"redis:7@{D}", f"docker.io/library/redis@{D}", f"redis@{D}"),
    ("docker.io/library/local.host/app", "docker.io/library/local.host/app:latest", "library/local.host/app:latest"),
    ("app:5000", "docker.io/library/app:5000", "app:5000"),
]


@pytest.mark.parametrize(("name", "full", "familiar"), TABLE, ids=[row[0][:30] for row in TABLE])
def test_name(name: str, full: str, familiar: str) -> None:
    found = names.parse(name)
    assert (found.full, found.familiar) == (full, familiar)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("", "well formed"),
        ("Redis", "lower case"),
        ("redis:", "tag"),
        ("redis:a/b", "host name"),
        ("redis:" + "x" * 129, "tag"),
        ("redis@sha256:12", "digest"),
        ("redis@md5:" + "0" * 32, "digest"),
        ("a//b", "well formed"),
        ("-a", "well formed"),
        ("a/-b", "well formed"),
        ("host.example:port/app", "host name"),
        ("-host.example/app", "host name"),
        ("a b", "well formed"),
        ("a\n", "well formed"),
        ("../../etc", "well formed"),
        ("ab" * 32, "id"),
        ("a/" * 130 + "b", "255"),
    ],
    ids=lambda value: repr(value)[:30],
)
def test_refused(name: str, why: str) -> None:
    with pytest.raises(UserError, match="cannot use") as caught:
        names.parse(name)
    assert caught.value.code == "bad-image-name"
    assert why in caught.value.message


part = st.from_regex(r"[a-z0-9]{1,8}((\.|_|__|-{1,3})[a-z0-9]{1,5})?", fullmatch=True)
domains = st.one_of(
    st.none(),
    st.just("localhost"),
    st.from_regex(r"[a-z0-9]{1,8}\.[a-z]{2,4}(:[0-9]{1,5})?", fullmatch=True),
    st.from_regex(r"[a-z]{1,8}:[0-9]{1,5}", fullmatch=True),
)
tags = st.one_of(st.just(""), st.from_regex(r":[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}", fullmatch=True))
digests = st.one_of(st.just(""), st.from_regex(r"@sha256:[a-f0-9]{64}", fullmatch=True))
allowed = st.builds(
    lambda domain, path, tag, digest: (f"{domain}/" if domain else "") + "/".join(path) + tag + digest,
    domains,
    st.lists(part, min_size=1, max_size=4),
    tags,
    digests,
)


@given(allowed)
def test_what_is_shown_means_the_same(name: str) -> None:
    found = names.parse(name)
    assert names.parse(found.full).full == found.full
    assert names.parse(found.familiar).full == found.full
    assert len(found.familiar) <= len(found.full)


@given(st.text(max_size=40))
def test_any_text_is_a_name_or_a_refusal(text: str) -> None:
    try:
        found = names.parse(text)
    except UserError:
        return
    assert ".." not in found.full.split("/")
    assert found.full.isascii()


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ("localhost", True),
        ("localhost:5000", True),
        ("127.0.0.1:5000", True),
        ("127.8.9.1", True),
        ("[::1]:5000", True),
        ("127.0.0.1.example.com", False),
        ("localhost.example.com", False),
        ("docker.io", False),
    ],
)
def test_plain_http_is_for_loopback_only(domain: str, expected: bool) -> None:
    assert names.insecure(domain) is expected
