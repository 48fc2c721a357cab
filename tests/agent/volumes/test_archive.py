"""Backup and restore: everything comes back as it was, a broken or hostile file harms nothing."""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import stat
import struct
import subprocess
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.kit import treepack
from agent.kit.errors import GoraeError, UserError
from agent.ports import VolumeInfo
from agent.volumes.volumes import HostVolumes
from tests.agent.room import Room

pytestmark = pytest.mark.host
ME = (os.getuid(), os.getgid())
INFO = VolumeInfo("data", 1_700_000_000.0, {"a": "b"}, {}, "shop", "web.1")


@pytest.fixture
def volumes(host_room: Room) -> HostVolumes:
    return HostVolumes(host_room.layout)


@pytest.fixture
async def full(volumes: HostVolumes, host_room: Room) -> Path:
    """The content of a volume with everything in it."""
    await volumes.create(INFO)
    data = host_room.layout.volumes / "data/_data"
    data.chmod(0o2750)
    os.chown(data, 999, 1000)
    (data / "sub").mkdir(mode=0o700)
    (data / "sub/deep").mkdir(mode=0o1777)
    (data / "sub/deep").chmod(0o1777)
    (data / "file").write_bytes(os.urandom(3_000_000))
    os.chown(data / "file", 70_000, 5)
    os.setxattr(data / "file", "user.note", b"\xff\x00hello")
    acl = struct.pack("<I", 2) + b"".join(
        struct.pack("<HHI", tag, perm, who)
        for tag, perm, who in ((1, 6, 2**32 - 1), (2, 4, 33), (4, 4, 2**32 - 1), (16, 4, 2**32 - 1), (32, 0, 2**32 - 1))
    )
    os.setxattr(data / "file", "system.posix_acl_access", acl)
    os.setxattr(data / "sub", "system.posix_acl_default", acl)
    (data / "cap").touch(0o755)
    os.setxattr(data / "cap", "security.capability", struct.pack("<5I", 2 << 24 | 1, 1 << 10, 0, 0, 0))
    (data / "suid").touch()
    (data / "suid").chmod(0o4755)
    os.link(data / "file", data / "sub/hard")
    (data / "link").symlink_to("/etc/passwd")
    os.chown(data / "link", 7, 7, follow_symlinks=False)
    os.mkfifo(data / "fifo", 0o620)
    (data / ".wh.file").write_text("no whiteout")
    (data / ".wh..wh..opq").write_text("no mark")
    (data / os.fsdecode(b"n\xffn-text")).write_text("x")
    (data / ("long" * 60)).write_text("y")
    for path in (data / "file", data / "sub", data):
        os.utime(path, ns=(1_000_000_001, 1_234_567_890_123_456_789))
    return data


def sh(script: str) -> None:
    subprocess.run(["sh", "-ec", script], check=True)


def names(top: Path) -> list[str]:
    return sorted(path.name for path in top.iterdir()) if top.exists() else []


def tree(top: Path) -> dict[str, Any]:
    found = {}
    for path in [top, *sorted(top.rglob("*"))]:
        status = path.lstat()
        xattrs = {} if path.is_symlink() else {name: os.getxattr(path, name) for name in os.listxattr(path)}
        found[str(path.relative_to(top))] = (
            stat.filemode(status.st_mode),
            (status.st_uid, status.st_gid),
            status.st_mtime_ns if not path.is_symlink() else 0,
            status.st_nlink if path.is_file() else 0,
            xattrs,
            str(path.readlink()) if path.is_symlink() else path.read_bytes() if stat.S_ISREG(status.st_mode) else b"",
        )
    return found


async def test_everything_comes_back_as_it_was(
    volumes: HostVolumes, full: Path, host_room: Room, tmp_path: Path
) -> None:
    before, file = tree(full), tmp_path / "data.tar.zst"
    done = await volumes.backup("data", file, (12, 34))
    assert (done.entries, done.changed, done.skipped) == (len(before), 0, 0) and done.bytes > 3_000_000
    assert (file.stat().st_uid, file.stat().st_gid, stat.S_IMODE(file.stat().st_mode)) == (12, 34, 0o600)
    assert sorted(tmp_path.iterdir()) == [file]
    await volumes.remove(["data"])
    made, size = await volumes.restore(file, None, False)
    assert made == INFO and size == done.bytes
    assert tree(full) == before
    assert await volumes.list() == [INFO]
    again, _ = await volumes.restore(file, "other", False)
    assert (again.name, again.stack, again.owner, again.labels) == ("other", "", "", {"a": "b"})
    assert tree(host_room.layout.volumes / "other/_data") == before


async def test_plain_tar_reads_it(volumes: HostVolumes, full: Path, tmp_path: Path) -> None:
    await volumes.backup("data", tmp_path / "b", ME)
    sh(f"cd {tmp_path} && tar --zstd --xattrs -xpf b")
    assert (tmp_path / "data/file").read_bytes() == (full / "file").read_bytes()
    assert json.loads((tmp_path / "gorae-volume.json").read_text())["name"] == "data"


async def test_over_one_that_exists_only_when_asked_and_in_place(
    volumes: HostVolumes, full: Path, tmp_path: Path
) -> None:
    before, file, inode = tree(full), tmp_path / "b", full.stat().st_ino
    await volumes.backup("data", file, ME)
    (full / "later").touch()
    (full / "file").unlink()
    with pytest.raises(UserError, match="cannot restore volume data: there is one already") as caught:
        await volumes.restore(file, None, False)
    assert caught.value.code == "volume-exists" and (full / "later").exists()
    await volumes.restore(file, None, True)
    assert tree(full) == before
    assert full.stat().st_ino == inode, "stopped containers have this directory mounted"
    assert names(full.parent.parent) == ["data"] and names(full.parent) == [
        "_data",
        "volume.json",
    ]


async def test_a_replacement_that_died_is_finished(
    volumes: HostVolumes, full: Path, host_room: Room, tmp_path: Path
) -> None:
    await volumes.backup("data", tmp_path / "b", ME)
    await volumes.restore(tmp_path / "b", "other", False)
    (host_room.layout.volumes / "other/_data").rename(full.parent / "replacing")
    before = tree(full)
    (full / "sub/deep/old").touch()
    (full / "fifo").unlink()
    os.close(HostVolumes(host_room.layout)._named.open(INFO, None))
    assert tree(full) == before


async def test_what_a_dead_agent_was_restoring_is_swept(volumes: HostVolumes, host_room: Room) -> None:
    await volumes.create(INFO)
    (host_room.layout.volumes / ".restoring-x-1234/a").mkdir(parents=True)
    again = HostVolumes(host_room.layout)
    assert await again.list() == [INFO]
    await again.remove([])
    assert names(host_room.layout.volumes) == ["data"]


async def test_what_is_no_file_of_a_person_is_left_out_and_counted(
    volumes: HostVolumes, host_room: Room, tmp_path: Path
) -> None:
    await volumes.create(INFO)
    data = host_room.layout.volumes / "data/_data"
    os.mknod(data / "device", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(data)
        listener.bind("socket")
        os.chdir("/")
    done = await volumes.backup("data", tmp_path / "b", ME)
    assert (done.entries, done.skipped) == (1, 2)


async def test_files_that_change_meanwhile_are_counted(volumes: HostVolumes, host_room: Room, tmp_path: Path) -> None:
    await volumes.create(INFO)
    data = host_room.layout.volumes / "data/_data"
    (data / "a").write_bytes(os.urandom(64 << 20))
    (data / "grows").write_bytes(b"x")
    ended = asyncio.Event()

    async def writer() -> None:
        while not ended.is_set():
            with (data / "a").open("r+b") as file:
                file.truncate(1 << 20)
                file.seek(64 << 20)
                file.write(b"y")
            await asyncio.sleep(0)

    task = asyncio.ensure_future(writer())
    done = await volumes.backup("data", tmp_path / "b", ME)
    ended.set()
    await task
    assert done.changed <= 1
    assert (await volumes.restore(tmp_path / "b", "other", False))[0].name == "other"


async def test_what_a_file_loses_while_it_is_read_comes_as_zeros(
    volumes: HostVolumes, host_room: Room, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    await volumes.create(INFO)
    path = host_room.layout.volumes / "data/_data/a"
    path.write_bytes(b"x" * 100_000)

    class Shrinking(treepack._Exact):
        def read(self, size: int = -1) -> bytes:
            os.truncate(path, 40_001)  # within a piece, not between two
            return super().read(size)

    monkeypatch.setattr(treepack, "_Exact", Shrinking)
    assert (await volumes.backup("data", tmp_path / "b", ME)).changed == 1
    await volumes.restore(tmp_path / "b", "other", False)
    assert (host_room.layout.volumes / "other/_data/a").read_bytes() == b"x" * 40_001 + bytes(59_999)


async def test_a_backup_nobody_waits_for_leaves_no_file(volumes: HostVolumes, host_room: Room, tmp_path: Path) -> None:
    await volumes.create(INFO)
    for number in range(2000):
        (host_room.layout.volumes / f"data/_data/{number}").write_bytes(os.urandom(10_000))
    task = asyncio.ensure_future(volumes.backup("data", tmp_path / "b", ME))
    while not names(tmp_path):  # noqa: ASYNC110 (a file tells nobody that it is there)
        await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert list(tmp_path.iterdir()) == []


async def test_a_full_disk_is_told_and_leaves_no_file(volumes: HostVolumes, full: Path, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    sh(f"mount -t tmpfs -o size=1m small {small}")
    try:
        with pytest.raises(GoraeError, match="cannot back up volume data: No space left") as caught:
            await volumes.backup("data", small / "b", ME)
        assert caught.value.code == "disk-full" and list(small.iterdir()) == []
    finally:
        sh(f"umount {small}")


@pytest.mark.parametrize(
    ("path", "code", "says"),
    [
        ("there", "file-exists", "cannot back up volume data into .*/there: it exists already"),
        ("no/folder", "file-unwritable", "cannot write .*/no/folder: No such file or directory"),
    ],
)
async def test_files_that_cannot_be_written(
    volumes: HostVolumes, tmp_path: Path, path: str, code: str, says: str
) -> None:
    await volumes.create(INFO)
    (tmp_path / "there").write_text("mine")
    with pytest.raises(UserError, match=says) as caught:
        await volumes.backup("data", tmp_path / path, ME)
    assert caught.value.code == code and (tmp_path / "there").read_text() == "mine"


@pytest.mark.parametrize(
    ("options", "where"),
    [
        ({"type": "none", "o": "bind", "device": "/srv"}, "in the folder /srv of the host"),
        ({"type": "tmpfs"}, "in memory"),
    ],
    ids=["bind", "tmpfs"],
)
async def test_what_is_not_kept_here_is_not_backed_up(
    volumes: HostVolumes, tmp_path: Path, options: dict[str, str], where: str
) -> None:
    await volumes.create(VolumeInfo("data", options=options))
    with pytest.raises(UserError, match=f"cannot back up volume data: its data is {where}"):
        await volumes.backup("data", tmp_path / "b", ME)


# Files that are none ----------------------------------------------------------------------------------------------------


def packed(
    path: Path, make: Callable[[tarfile.TarFile], object], *, manifest: Any = None, end: int | None = None
) -> Path:
    raw = io.BytesIO()
    with tarfile.open(mode="w", fileobj=raw, format=tarfile.PAX_FORMAT) as tar:
        text(tar, "gorae-volume.json", json.dumps({"name": "data"} if manifest is None else manifest))
        make(tar)
        if end is not None:
            text(tar, "gorae-volume.end", json.dumps({"entries": end}))
    path.write_bytes(subprocess.run(["zstd", "-qc"], input=raw.getvalue(), stdout=subprocess.PIPE, check=True).stdout)
    return path


def text(tar: tarfile.TarFile, name: str, content: str = "evil", **fields: Any) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    for key, value in fields.items():
        setattr(entry, key, value)
    tar.addfile(entry, io.BytesIO(content.encode()))


def special(tar: tarfile.TarFile, name: str, kind: bytes, link: str = "", **fields: Any) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname = kind, link
    for key, value in fields.items():
        setattr(entry, key, value)
    tar.addfile(entry)


def through_a_link(tar: tarfile.TarFile, link: str) -> None:
    special(tar, "data/out", tarfile.SYMTYPE, link)
    text(tar, "data/out/evil")


@pytest.fixture
def outside(tmp_path: Path) -> Iterator[Path]:
    """What no archive may reach."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "kept").write_text("kept")
    yield folder
    assert names(folder) == ["kept"] and (folder / "kept").read_text() == "kept"
    assert (folder / "kept").stat().st_nlink == 1


@pytest.mark.parametrize(
    ("make", "count", "says"),
    [
        pytest.param(lambda tar, out: text(tar, "data/../../evil"), 1, '".." in its name', id="dots"),
        pytest.param(lambda tar, out: text(tar, f"{out}/evil"), 1, "not below data/", id="absolute"),
        pytest.param(lambda tar, out: text(tar, "other/evil"), 1, "not below data/", id="elsewhere"),
        pytest.param(lambda tar, out: through_a_link(tar, str(out)), 2, "No such file", id="through a link"),
        pytest.param(
            lambda tar, out: through_a_link(tar, "../../../../.." + str(out)), 2, "No such file", id="relative link"
        ),
        pytest.param(
            lambda tar, out: special(tar, "data/hard", tarfile.LNKTYPE, f"data/{out}/kept"),
            1,
            "No such file",
            id="hard link",
        ),
        pytest.param(
            lambda tar, out: special(tar, "data/hard", tarfile.LNKTYPE, f"{out}/kept"), 1, "not below", id="hard, out"
        ),
        pytest.param(lambda tar, out: text(tar, "data/x"), None, "it is cut off", id="no end"),
        pytest.param(
            lambda tar, out: text(tar, "data/x"), 2, "its end counts 2 entries, and it has 1", id="another end"
        ),
        pytest.param(
            lambda tar, out: special(tar, "data", tarfile.SYMTYPE, str(out)),
            1,
            "root is not a directory",
            id="the root",
        ),
    ],
)
async def test_hostile_archives(
    volumes: HostVolumes, host_room: Room, tmp_path: Path, outside: Path, make: Any, count: int | None, says: str
) -> None:
    await volumes.create(VolumeInfo("kept"))
    file = packed(tmp_path / "b", lambda tar: make(tar, outside), end=count)
    with pytest.raises(UserError, match=says) as caught:
        await volumes.restore(file, None, False)
    assert caught.value.code == "bad-backup" and caught.value.message.startswith(f"cannot restore {file}: ")
    assert names(host_room.layout.volumes) == ["kept"]


async def test_device_nodes_of_an_archive_are_inert(volumes: HostVolumes, host_room: Room, tmp_path: Path) -> None:
    file = packed(tmp_path / "b", lambda tar: special(tar, "data/null", tarfile.CHRTYPE, devmajor=1, devminor=3), end=1)
    await volumes.restore(file, None, False)
    assert stat.S_ISREG((host_room.layout.volumes / "data/_data/null").lstat().st_mode)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it is no backup"),
        (b"no archive at all", "it is no backup"),
        (
            subprocess.run(["zstd", "-qc"], input=b"x" * 2000, stdout=subprocess.PIPE, check=True).stdout,
            "it is no backup",
        ),
    ],
    ids=["empty", "text", "zstd of something else"],
)
async def test_files_that_are_no_backups(volumes: HostVolumes, tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "b").write_bytes(content)
    with pytest.raises(UserError, match=f"cannot restore .*/b: .*{says}"):
        await volumes.restore(tmp_path / "b", None, False)


@pytest.mark.parametrize(
    ("manifest", "says"),
    [
        ({"name": "../../evil"}, "cannot use volume '../../evil': a name begins with a letter"),
        ({"name": ".hidden"}, "cannot use volume '.hidden'"),
        (
            {"name": "a", "options": {"type": "none", "o": "bind", "device": "/etc"}},
            "its data is in the folder /etc of the host",
        ),
        ({"labels": {}}, "name"),
        ([], "cannot restore"),
    ],
    ids=["a path", "hidden", "a folder of the host", "no name", "no object"],
)
async def test_hostile_manifests(
    volumes: HostVolumes, host_room: Room, tmp_path: Path, manifest: Any, says: str
) -> None:
    file = packed(tmp_path / "b", lambda tar: None, manifest=manifest, end=0)
    with pytest.raises(UserError, match=says):
        await volumes.restore(file, None, False)
    assert names(host_room.layout.volumes) == []


@pytest.mark.parametrize("part", [0.3, 0.9, 0.999])
async def test_a_file_that_is_cut_off(volumes: HostVolumes, full: Path, tmp_path: Path, part: float) -> None:
    await volumes.backup("data", tmp_path / "b", ME)
    whole = (tmp_path / "b").read_bytes()
    (tmp_path / "cut").write_bytes(whole[: int(len(whole) * part)])
    before = tree(full)
    with pytest.raises(UserError) as caught:
        await volumes.restore(tmp_path / "cut", None, True)
    assert caught.value.code == "bad-backup" and tree(full) == before


async def test_a_hole_without_end_does_not_keep_a_backup_nobody_waits_for(
    volumes: HostVolumes, host_room: Room, tmp_path: Path
) -> None:
    await volumes.create(INFO)
    hole = host_room.layout.volumes / "data/_data/hole"
    hole.touch()
    os.truncate(hole, 8 << 40)
    task = asyncio.ensure_future(volumes.backup("data", tmp_path / "b", ME))
    while not any(path.stat().st_size for path in tmp_path.iterdir()):  # noqa: ASYNC110 (a file tells nobody)
        await asyncio.sleep(0.01)
    task.cancel()
    await asyncio.wait([task], timeout=20)
    if not task.done():  # the thread would read for hours
        os.truncate(hole, 0)
        hole.parent.joinpath("gone").touch()
    assert task.cancelled() and list(tmp_path.iterdir()) == []


async def test_a_replacement_over_one_that_died(
    volumes: HostVolumes, full: Path, host_room: Room, tmp_path: Path
) -> None:
    """Killed while it moved in what replaces; then another backup is restored over it."""
    await volumes.backup("data", tmp_path / "b", ME)
    before = tree(full)
    (full.parent / "filled/sub").mkdir(parents=True)
    (full.parent / "filled/half").touch()
    await volumes.restore(tmp_path / "b", None, True)
    assert tree(full) == before
    assert names(full.parent) == ["_data", "volume.json"]


def test_only_what_has_several_names_is_remembered(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"single{number}").touch()
    (tmp_path / "one").touch()
    os.link(tmp_path / "one", tmp_path / "two")
    with tarfile.open(mode="w|", fileobj=io.BytesIO()) as tar:
        packer = treepack.TreePacker(tar, lambda: None, lambda fd, found: True, xattrs=True)
        top = os.open(tmp_path, os.O_RDONLY)
        packer.top(top, "data")
        os.close(top)
    assert list(packer._links.values()) == ["data/one"]


@pytest.mark.parametrize("created", ["NaN", "Infinity", "1e300", "-5", "253402300800"])
async def test_a_backup_of_no_time_cannot_spoil_the_list(
    volumes: HostVolumes, host_room: Room, tmp_path: Path, created: str
) -> None:
    file = packed(tmp_path / "b", lambda tar: None, manifest={"name": "a", "created": float(created)}, end=0)
    with pytest.raises(UserError, match="it is no backup of a volume"):
        await volumes.restore(file, None, False)
    assert await volumes.list() == []
