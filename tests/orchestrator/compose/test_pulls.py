"""pull_policy and platform: what is understood, and how the rest is refused."""

from __future__ import annotations

from typing import Any

import pytest

from orchestrator.compose import pulls


@pytest.mark.parametrize(
    ("written", "fields"),
    [
        ("always", {"pull_policy": "always"}),
        ("never", {"pull_policy": "never"}),
        ("build", {"pull_policy": "build"}),
        ("missing", {"pull_policy": "missing"}),
        ("daily", {"pull_policy": "refresh", "pull_after": 86400.0}),
        ("weekly", {"pull_policy": "refresh", "pull_after": 604800.0}),
        ("every_12h", {"pull_policy": "refresh", "pull_after": 43200.0}),
        ("every_1w2d", {"pull_policy": "refresh", "pull_after": 777600.0}),
    ],
)
def test_policies(written: str, fields: dict[str, Any]) -> None:
    assert pulls.policy(written) == fields


@pytest.mark.parametrize(
    ("written", "says"),
    [
        ("refresh", "every_12h"),
        ("sometimes", "every_12h"),
        ("every_", "every"),
    ],
)
def test_refused_policies(written: str, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        pulls.policy(written)


@pytest.mark.parametrize(
    ("written", "platform"),
    [
        ("linux/amd64", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("linux/x86_64", "linux/amd64"),
        ("linux/arm64/v8", "linux/arm64/v8"),
        ("Linux/AArch64", "linux/arm64"),
    ],
)
def test_platforms(written: str, platform: str) -> None:
    assert pulls.platform(written) == platform


@pytest.mark.parametrize("written", ["linux", "windows/amd64", "darwin", "linux/", "a/b/c/d", "linux/amd64/v1/x"])
def test_refused_platforms(written: str) -> None:
    with pytest.raises(ValueError, match="linux/ARCH"):
        pulls.platform(written)
