"""Users of images: any bytes may be in passwd and group."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.kit.errors import Permanent
from agent.ports import UserIds
from agent.rootfs.passwd import resolve

PASSWD = """root:x:0:0:root:/root:/bin/sh
# comment:x:1:1::/:
broken
:x:3:3::/nameless:
minus:x:-1:-1::/:
wide:x:１:1::/:
short:x:50:51
huge:x:99999999999:1::/:
beyond:x:70000:70000::/:
relative:x:60:60::home:
twice:x:61:61::/first:
twice:x:62:62::/second:
1000:x:63:63::/named-like-a-number:
app:x:1000:1000:App,,,:/srv/app:/bin/sh
"""
GROUP = """root:x:0:
app:x:1000:
video:x:44:app,other
audio:x:29:other,app
far:x:70000:app
bad:x:x:app
nofields
"""


@pytest.mark.parametrize(
    ("user", "ids"),
    [
        pytest.param("", UserIds(0, 0, (), "/root"), id="default-is-root"),
        pytest.param("app", UserIds(1000, 1000, (29, 44), "/srv/app"), id="supplementary-groups"),
        pytest.param("app:", UserIds(1000, 1000, (29, 44), "/srv/app"), id="empty-group"),
        pytest.param(":video", UserIds(0, 44, (), "/root"), id="group-only"),
        pytest.param("app:video", UserIds(1000, 44, (), "/srv/app"), id="group-excludes-others"),
        pytest.param("app:44", UserIds(1000, 44, (), "/srv/app"), id="group-number"),
        pytest.param("app:555", UserIds(1000, 555, (), "/srv/app"), id="group-number-unknown"),
        pytest.param("short", UserIds(50, 51, (), "/"), id="no-home"),
        pytest.param("relative", UserIds(60, 60, (), "/"), id="relative-home"),
        pytest.param("twice", UserIds(61, 61, (), "/first"), id="first-wins"),
        pytest.param("1000", UserIds(63, 63, (), "/named-like-a-number"), id="first-match-by-name-or-id"),
        pytest.param("65535", UserIds(65535, 0, (), "/"), id="last-id"),
    ],
)
def test_known(user: str, ids: UserIds) -> None:
    assert resolve(user, PASSWD, GROUP) == ids


@pytest.mark.parametrize(
    "user",
    [
        "nobody",
        "minus",
        "wide",
        "huge",
        "beyond",
        "65536",
        "-1",
        "１",
        "1_0",
        " 0",
        "0:65536",
        "app:none",
        "bad:bad",
        "a:b:c",
    ],
)
def test_unknown(user: str) -> None:
    with pytest.raises(Permanent) as caught:
        resolve(user, PASSWD, GROUP)
    assert caught.value.code == "bad-user"
    assert repr(user) in caught.value.message


def test_without_files() -> None:
    assert resolve("", "", "") == UserIds(0, 0, (), "/")
    assert resolve("5:6", "", "") == UserIds(5, 6, (), "/")


lines = st.text(alphabet=st.sampled_from(list("ax0159:,#-\n\r\t\x00é１")), max_size=200)


@given(user=st.text(alphabet=st.sampled_from(list("ax0159:-é")), max_size=12), passwd=lines, group=lines)
def test_whatever_the_image_says_ids_are_in_range(user: str, passwd: str, group: str) -> None:
    with contextlib.suppress(Permanent):
        ids = resolve(user, passwd, group)
        assert all(0 <= n < 65536 for n in (ids.uid, ids.gid, *ids.groups))
        assert ids.home.startswith("/")
