"""What a stack wants of its images: policies of services, the command line's word, locks, platforms."""

from __future__ import annotations

from typing import Any

import pytest

from agent.kit.errors import UserError
from orchestrator.compose.model import LockedImage
from orchestrator.decide.pulling import Pull, wants
from tests.support.orchestrating import stack

DAY, WEEK = 86400.0, 604800.0


def service(policy: str = "missing", after: float = 0.0, **more: Any) -> dict[str, Any]:
    return {"image": "app:1", "pull_policy": policy, "pull_after": after, **more}


@pytest.mark.parametrize(
    ("services", "pull", "policy", "after"),
    [
        pytest.param([service()], "policy", "missing", 0.0, id="nothing said"),
        pytest.param([service("never")], "policy", "never", 0.0, id="the service's own"),
        pytest.param([service("never")], "always", "always", 0.0, id="the command line counts"),
        pytest.param([service("always")], "never", "never", 0.0, id="never, for all"),
        pytest.param([service("never"), service()], "policy", "missing", 0.0, id="the stronger of two"),
        pytest.param([service("always"), service("never")], "policy", "always", 0.0, id="in any order"),
        pytest.param(
            [service("refresh", WEEK), service("refresh", DAY)], "policy", "refresh", DAY, id="the shorter span"
        ),
        pytest.param([service("refresh", DAY), service()], "policy", "refresh", DAY, id="refresh beats missing"),
        pytest.param([service("build")], "policy", "never", 0.0, id="built here"),
        pytest.param([service("build")], "always", "never", 0.0, id="built here, whatever the command line says"),
        pytest.param([service(), service("build")], "always", "never", 0.0, id="built here by another service"),
    ],
)
def test_policies(services: list[dict[str, Any]], pull: Pull, policy: str, after: float) -> None:
    model = stack(**{f"s{number}": one for number, one in enumerate(services)})
    found = wants(model, {}, pull)["app:1"]
    assert (found["policy"], found["after"]) == (policy, after)
    assert (found["id"], found["digest"]) == ("", "")


def test_locks_go_by_the_name_as_written() -> None:
    locks = {"app:1": LockedImage(id="sha256:1", digest="sha256:d"), "gone:1": LockedImage(id="sha256:2")}
    found = wants(stack(a=service(), b={"image": "new:1"}, c=service("always")), locks)
    assert (found["app:1"]["id"], found["app:1"]["digest"]) == ("sha256:1", "sha256:d")
    assert found["new:1"]["id"] == "" and "gone:1" not in found


def test_one_image_for_two_platforms_is_refused() -> None:
    with pytest.raises(UserError, match="cannot start shop/b: another service runs app:1 for another platform"):
        wants(stack(a=service(platform="linux/amd64"), b=service(platform="linux/arm64")), {})
