"""The file system of an image is the one `umoci unpack` makes of it: names, types, owners, modes, sizes, content, times,
extended attributes, links. gorae's is seen as a container sees it, through overlayfs.

Left out, as decided otherwise: device nodes (inert here), attributes but user.* and security.capability.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
import struct
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agent.kit import syscalls
from tests.agent.images.conftest import Shop
from tests.support.images import Item, directory, file, hardlink, image, layer, oci_archive, oci_layout, symlink

pytestmark = pytest.mark.host

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0).decode("latin-1")
NOT_UTF8 = "caf\udce9"  # a Latin-1 name, as bytes that are no UTF-8


def sparse(name: str, version: str) -> bytes:
    """A layer with one sparse file, by GNU tar."""
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        with (folder / name).open("wb") as out:
            out.write(b"start")
            out.seek(3 << 20)
            out.write(b"middle")
            out.truncate(9 << 20)
        os.utime(folder / name, (1_500_000_000, 1_500_000_000))
        form = ["--format=gnu"] if version == "old" else ["--format=posix", f"--sparse-version={version}"]
        command = ["tar", "-C", str(folder), "-S", *form, "--owner=7", "--group=8", "-c", name]
        return subprocess.run(command, check=True, capture_output=True).stdout


ROOT = directory("./", mtime=1_400_000_000)
BASE = layer(
    ROOT,
    directory("etc", mode=0o711, uid=3, gid=4),
    file("etc/passwd", "root", mode=0o600),
    file("etc/group", "root"),
    directory("opt"),
    directory("opt/a", mode=0o700, uid=9),
    file("opt/a/old", "1"),
    file("opt/a/kept", "2"),
    directory("opt/a/deep"),
    file("opt/a/deep/x", "3"),
    directory("tmp", mode=0o1777),
    symlink("lib", "opt/a"),
)
IMAGES: dict[str, tuple[bytes, ...]] = {
    "owners-modes-times": (
        layer(
            ROOT,
            directory("d", mode=0o2775, uid=1, gid=2, mtime=1_000_000_000),
            directory("s", mode=0o1777),
            file("d/suid", "x", mode=0o4755, uid=5, gid=6, mtime=1),
            file("d/none", mode=0),
            file("d/far", uid=4_000_000_000, gid=2**31, mtime=2**33),
            file("d/fraction", pax={"mtime": "1234567890.123456789"}),
            symlink("d/link", "../s", uid=8, gid=9, mtime=1_200_000_000),
            Item("d/fifo", tarfile.FIFOTYPE, mode=0o640, uid=3),
        ),
    ),
    "attributes": (
        layer(
            ROOT,
            directory("d", pax={"SCHILY.xattr.user.on-directory": "1"}),
            file("ping", "x", mode=0o755, uid=3, pax={"SCHILY.xattr.security.capability": CAPABILITY}),
            file("note", pax={"SCHILY.xattr.user.note": "grüße", "SCHILY.xattr.user.empty": ""}),
        ),
    ),
    "whiteouts-of-files": (BASE, layer(ROOT, directory("etc", mode=0o755), file("etc/.wh.group"), file(".wh.lib"))),
    "whiteouts-of-directories": (BASE, layer(ROOT, file(".wh.opt"), file(".wh.nothing"))),
    "opaque": (BASE, layer(ROOT, directory("opt/a"), file("opt/a/new", "n"), file("opt/a/.wh..wh..opq"))),
    "opaque-mark-last": (BASE, layer(ROOT, directory("opt"), file("opt/.wh..wh..opq")), layer(file("opt/b", "b"))),
    "deleted-and-back": (
        BASE, layer(ROOT, file(".wh.opt")), layer(ROOT, directory("opt", mode=0o750), file("opt/again", "a")),
    ),
    "hard-links": (
        layer(
            ROOT, directory("a"), directory("b"), file("a/one", "1", uid=4, mtime=5), hardlink("b/two", "a/one"),
            hardlink("three", "./b/two"), symlink("s", "a/one"), hardlink("b/s", "s"),
        ),
        layer(ROOT, directory("b"), file("b/two", "broken")),
    ),
    "file-to-directory-and-back": (
        layer(ROOT, file("x", "f"), directory("y"), file("y/in", "i")),
        layer(ROOT, directory("x", mode=0o750), file("x/in", "i"), file("y", "f")),
        layer(ROOT, file("x", "again", mode=0o640), directory("y"), file("y/other", "o")),
    ),
    "symlink-to-directory-and-back": (
        layer(ROOT, directory("real"), file("real/f", "f"), symlink("way", "real"), directory("dir"), file("dir/f", "f")),
        layer(ROOT, directory("way", mode=0o711), file("way/g", "g"), symlink("dir", "real")),
    ),
    "written-through-a-symlink": (layer(ROOT, directory("real"), symlink("way", "real"), file("way/f", "f")),),
    "implied-parents": (layer(ROOT, file("a/b/c", "x")),),
    "opaque-root": (BASE, layer(ROOT, file("new", "n"), file(".wh..wh..opq")), layer(ROOT, file("etc/x", "x"))),
    "implied-parents-of-another-layer": (
        BASE, layer(file("tmp/x", "x"), file("etc/.wh.group"), file("opt/a/deep/y", "y"), file("fresh/z", "z")),
    ),
    "implied-below-an-opaque-one": (
        BASE, layer(ROOT, directory("opt", mode=0o750), file("opt/.wh..wh..opq"), file("opt/a/x", "x")),
        layer(file("opt/a/y", "y"), file("opt/z", "z")),
    ),
    "implied-over-a-whiteout": (BASE, layer(ROOT, file(".wh.opt")), layer(file("opt/a/x", "x"))),
    "implied-over-a-symlink": (BASE, layer(ROOT, file(".wh.lib")), layer(file("lib/x", "x"))),
    "implied-then-listed": (BASE, layer(ROOT, file("tmp/x", "x"), directory("tmp", mode=0o1770, uid=5))),
    "implied-then-listed-above": (
        BASE, layer(file("tmp/x", "x")), layer(ROOT, directory("tmp", mode=0o700, uid=6), file("tmp/y", "y")),
    ),
    "implied-with-attributes": (
        layer(ROOT, directory("d", pax={"SCHILY.xattr.user.note": "1"})), layer(file("d/e/x", "x")), layer(file("d/y")),
    ),
    "implied-root-of-another-mode": (layer(directory("./", mode=0o711, uid=3, mtime=7)), layer(file("x", "x"))),
    "implied-not-utf-8": (
        layer(ROOT, directory(NOT_UTF8, mode=0o700), form=tarfile.GNU_FORMAT),
        layer(file(NOT_UTF8 + "/x", "x"), form=tarfile.GNU_FORMAT),
    ),
    "implied-root": (BASE, layer(file("one", "1"))),
    "duplicates": (
        layer(
            ROOT, file("a", "1", mode=0o600), file("a", "2", mode=0o644), directory("d", mode=0o700, uid=1),
            file("d/f", "f"), directory("d", mode=0o755, mtime=99), file("e", "1"), symlink("e", "a"),
        ),
    ),
    "long-names": (
        layer(ROOT, directory("d" * 200), file("d" * 200 + "/" + "f" * 250, "x"), symlink("l", "t/" * 900)),
        layer(ROOT, file("/".join(["e" * 99] * 8) + "/f", "x"), form=tarfile.GNU_FORMAT),
    ),
    "names-that-are-not-utf-8": (
        layer(ROOT, file(NOT_UTF8, "x"), file("new\nline", "y"), file(" ", "z"), form=tarfile.GNU_FORMAT),
    ),
    "empty-layers": (BASE, layer(), layer(ROOT), layer()),
    "the-same-layer-twice": (BASE, layer(ROOT, file(".wh.etc")), BASE),
    "sparse-old": (sparse("f", "old"),),
    "sparse-0.0": (sparse("f", "0.0"),),
    "sparse-0.1": (sparse("f", "0.1"),),
    "sparse-1.0": (sparse("f", "1.0"),),
    "aufs-bookkeeping": (layer(ROOT, file("a", "x"), file(".wh..wh.aufs"), directory(".wh..wh.orph")),),
}  # fmt: skip


@dataclass(frozen=True)
class Found:
    kind: str
    mode: int
    owner: tuple[int, int]
    mtime_ns: int
    content: str  # size and digest, or target of a link
    attributes: dict[str, bytes]
    links: tuple[str, ...]  # all names of the file


def tree(root: Path) -> dict[str, Found]:
    found: dict[str, Found] = {}
    names: dict[tuple[int, int], list[str]] = {}
    paths = [root, *(Path(top, name) for top, below, files in os.walk(root) for name in (*below, *files))]
    for path in sorted(paths):
        state = path.lstat()
        names.setdefault((state.st_dev, state.st_ino), []).append(str(path.relative_to(root)))
    for path in sorted(paths):
        state = path.lstat()
        content = ""
        if stat.S_ISREG(state.st_mode):
            content = f"{state.st_size} {hashlib.sha256(path.read_bytes()).hexdigest()}"
        elif stat.S_ISLNK(state.st_mode):
            content = os.readlink(path)  # noqa: PTH115 (bytes that are no text)
        attributes = {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
            if not name.startswith(("trusted.", "user.rootlesscontainers", "user.umoci"))
        }
        found[str(path.relative_to(root))] = Found(
            stat.filemode(state.st_mode)[0],
            stat.S_IMODE(state.st_mode),
            (state.st_uid, state.st_gid),
            state.st_mtime_ns,
            content,
            attributes,
            tuple(names[(state.st_dev, state.st_ino)]),
        )
    return found


@contextlib.contextmanager
def mounted(shop: Shop, layers: tuple[str, ...]) -> Iterator[Path]:
    merged, empty = shop.root / "merged", shop.root / "empty"
    merged.mkdir()
    empty.mkdir()  # overlayfs wants two
    lower = ":".join(str(path) for path in (*map(shop.layer, reversed(layers)), empty))
    syscalls.mount("overlay", merged, "overlay", syscalls.MS_RDONLY, f"lowerdir={lower}")
    try:
        yield merged
    finally:
        syscalls.umount(merged)


def by_umoci(folder: Path, layout: Path) -> Path:
    command = ["umoci", "unpack", "--image", f"{layout}:one", str(folder / "bundle")]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "bundle/rootfs"


def by_tar(folder: Path, name: str) -> Path:
    """For what umoci 0.4 refuses."""
    (raw,) = IMAGES[name]
    target = folder / "extracted"
    target.mkdir()
    subprocess.run(["tar", "-C", str(target), "--numeric-owner", "-xp"], input=raw, check=True)
    return target


@pytest.mark.parametrize("compression", ["plain", "gzip", "zstd"])
@pytest.mark.parametrize("name", IMAGES)
async def test_the_tree_is_umocis(shop: Shop, name: str, compression: str) -> None:
    made = image(*IMAGES[name], compression=compression)
    began = time.time_ns()
    layout = oci_layout(shop.root / "layout", [(image(*IMAGES[name], compression="gzip"), "one")])
    expected = tree(by_tar(shop.root, name) if name == "sparse-old" else by_umoci(shop.root, layout))
    await shop.store.load(oci_archive(shop.root / "a.tar", [(made, "one")]), "made:1", shop.said.append)
    with mounted(shop, (await shop.store.config("made:1")).layers) as merged:
        found = tree(merged)
    for path in found.keys() & expected.keys():
        if found[path].kind == "d" and max(found[path].mtime_ns, expected[path].mtime_ns) >= began:
            # no entry says when, or umoci has written there since
            found[path], expected[path] = (replace(side[path], mtime_ns=0) for side in (found, expected))
    assert found == expected


async def test_a_mended_stack_lasts_as_long_as_its_image(shop: Shop) -> None:
    """Its layer on top survives a start of the store, is shared, and goes with the last image that needs it."""
    for number, more in enumerate((layer(ROOT), layer(ROOT, file("more")))):
        await shop.load(BASE, layer(file("tmp/x", "x")), more, name=f"made:{number}")
    shop.store = shop.open()
    stacks = [(await shop.store.config(f"made:{number}")).layers for number in range(2)]
    assert [len(stack) for stack in stacks] == [4, 4]
    assert stacks[0][-1] == stacks[1][-1]
    assert stat.S_IMODE((shop.layer(stacks[0][-1]) / "tmp").stat().st_mode) == 0o1777
    await shop.store.remove("made:0", {})
    assert shop.layer(stacks[0][-1]).is_dir()
    await shop.store.remove("made:1", {})
    assert shop.files() == set()
