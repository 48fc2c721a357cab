"""What a container's own files say of its users is not to be trusted."""

from __future__ import annotations

from agent.runtime.processes import named


def test_names_of_users_as_far_as_they_are_any() -> None:
    lines = ("root:x:0:0::/:/bin/sh", "again:x:0:0", "web:x:33:33", f"huge:x:{'9' * 5000}:0", "minus:x:-1:0", "half")
    assert named("\n".join(lines)) == {0: "root", 33: "web"}
