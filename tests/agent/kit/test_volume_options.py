"""Options of the driver `local`: what is understood, and what is refused."""

from __future__ import annotations

import pytest

from agent.kit.volume_options import Local, understand


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, Local()),
        ({"type": "none", "o": "bind", "device": "/srv"}, Local("bind", "/srv")),
        ({"type": "none", "o": "ro,rbind,nosuid", "device": "/srv"}, Local("bind", "/srv", read_only=True)),
        ({"o": "bind", "device": "/srv"}, Local("bind", "/srv")),
        ({"type": "tmpfs"}, Local("tmpfs")),
        (
            {"type": "tmpfs", "device": "tmpfs", "o": "size=100m,uid=1000,mode=0700,noexec,rw"},
            Local("tmpfs", no_exec=True, data="size=100m,uid=1000,mode=0700"),
        ),
    ],
    ids=["none", "bind", "bind, read-only", "bind without a type", "tmpfs", "tmpfs, all"],
)
def test_understood(options: dict[str, str], found: Local) -> None:
    assert understand(options) == found


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"size": "1g"}, "there is no option 'size'"),
        ({"type": "none", "o": "bind", "device": "srv"}, "must be an absolute path"),
        ({"type": "none", "o": "bind"}, "must be an absolute path"),
        ({"type": "none", "o": "bind,context=x", "device": "/srv"}, "does not support 'context=x'"),
        ({"type": "nfs", "o": "addr=h", "device": ":/d"}, "gorae mounts folders"),
        ({"type": "none", "device": "/srv"}, "gorae mounts folders"),
        ({"type": "tmpfs", "o": "size=1g;rm"}, "does not support 'size=1g;rm'"),
        ({"type": "tmpfs", "o": "mpol=x"}, "does not support 'mpol=x'"),
    ],
    ids=[
        "a quota",
        "a relative device",
        "no device",
        "another word",
        "nfs",
        "no bind",
        "a bad size",
        "another setting",
    ],
)
def test_refused(options: dict[str, str], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        understand(options)
