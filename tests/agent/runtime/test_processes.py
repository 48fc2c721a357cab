"""What a container's own files say of its users is not to be trusted."""

from __future__ import annotations

import pytest

from agent.runtime.processes import _in, named


def test_names_of_users_as_far_as_they_are_any() -> None:
    lines = ("root:x:0:0::/:/bin/sh", "again:x:0:0", "web:x:33:33", f"huge:x:{'9' * 5000}:0", "minus:x:-1:0", "half")
    assert named("\n".join(lines)) == {0: "root", 33: "web"}


@pytest.mark.parametrize(
    ("cgroups", "found"),
    [
        pytest.param("0::/gorae-0badcafe/t.1\n", True, id="v2"),
        pytest.param("4:memory:/gorae-0badcafe/t.1/execs\n0::/\n", True, id="v1, a part of it"),
        pytest.param("0::/gorae-0badcafe/t.10\n", False, id="another attempt"),
        pytest.param("0::/\n", False, id="none"),
    ],
)
def test_a_process_is_of_the_attempt_whose_cgroup_it_is_in(cgroups: str, found: bool) -> None:
    assert _in("t.1", cgroups) == found
