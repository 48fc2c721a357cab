"""What is asked of the kernel for a process of a configuration."""

from __future__ import annotations

from typing import Any

import pytest

from agent.decide.entry import entry
from agent.decide.oci_config import EVERY_CAPABILITY
from agent.kit.errors import Permanent

PROCESS: dict[str, Any] = {
    "terminal": False,
    "user": {"uid": 1, "gid": 2, "additionalGids": [3], "umask": 0o22},
    "args": ["true"],
    "env": ["A=b"],
    "cwd": "/",
    "capabilities": {"bounding": ["CAP_CHOWN", "CAP_KILL"], "effective": ["CAP_CHOWN"], "permitted": []},
    "noNewPrivileges": True,
    "oomScoreAdj": 0,
}


def test_sets_of_capabilities_are_bits() -> None:
    made = entry(PROCESS, groups=["/a"], seccomp="/f")
    assert (made["bounding"], made["effective"], made["permitted"], made["inheritable"]) == (0b100001, 1, 0, 0)
    assert (made["cgroups"], made["filter"], made["additional_gids"]) == (["/a"], "/f", [3])


def test_every_capability_has_its_number() -> None:
    """include/uapi/linux/capability.h: 41 of them, the last is CAP_CHECKPOINT_RESTORE, 40."""
    sets = {"bounding": list(EVERY_CAPABILITY)}
    assert entry({**PROCESS, "capabilities": sets}, groups=[], seccomp="")["bounding"] == 2**41 - 1
    assert (
        entry({**PROCESS, "capabilities": {"bounding": ["CAP_CHECKPOINT_RESTORE"]}}, groups=[], seccomp="")["bounding"]
        == 1 << 40
    )


@pytest.mark.parametrize(
    "more",
    [
        {"terminal": True},
        {"noNewPrivileges": False},
        {"rlimits": []},
        {"apparmorProfile": "x"},
        {"capabilities": {"ambient": ["CAP_KILL"]}},
    ],
    ids=str,
)
def test_what_would_be_left_out_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(Permanent, match="cannot enter"):
        entry({**PROCESS, **more}, groups=[], seccomp="")
