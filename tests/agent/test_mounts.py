"""On which mount a path lies, by the text of mountinfo (proc(5))."""

from __future__ import annotations

import pytest

from agent.mounts import parse
from agent.ports import MountTable

TEXT = r"""
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 8:17 / /mnt/disk rw shared:2 - ext4 /dev/sdb1 rw
31 30 8:18 / /mnt/disk/a\040b rw shared:3 master:1 - xfs /dev/sdc1 rw
40 22 0:40 / /misc rw - autofs systemd-1 rw
41 40 8:33 / /misc/cd rw - iso9660 /dev/sr0 ro
50 22 0:50 / /nas rw - autofs systemd-1 rw
51 50 0:51 / /nas rw - nfs4 host:/nas rw
"""


@pytest.mark.parametrize(
    ("path", "point"),
    [
        ("/srv/data", None),
        ("/mnt", None),
        ("/mnt/disk", "/mnt/disk"),
        ("/mnt/disk/data/x", "/mnt/disk"),
        ("/mnt/disk2/data", None),
        ("/mnt/disk/a b/c", "/mnt/disk/a b"),
        ("/misc/cd/file", "/misc"),
        ("/nas/film", "/nas"),
    ],
    ids=["root", "above", "itself", "below", "a longer name", "a blank", "automounted below", "automounted"],
)
def test_holding(path: str, point: str | None) -> None:
    assert parse(TEXT.strip()).holding(path) == point


def test_a_table_without_anything() -> None:
    assert parse("") == MountTable(frozenset())
    assert parse("").holding("/a") is None
