"""Layers on disk: everything tar can say comes out, nothing gets outside, whatever the layer says."""

from __future__ import annotations

import os
import stat
import struct
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest

from agent.images.layer_writer import Limits
from agent.kit import syscalls
from agent.kit.errors import GoraeError
from tests.agent.images.conftest import Shop
from tests.support.images import Item, compress, directory, file, hardlink, image, layer, oci_archive, sha, symlink

pytestmark = pytest.mark.host

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service=ep


def attribute(path: Path, name: str) -> bytes | None:
    try:
        return os.getxattr(path, name, follow_symlinks=False)
    except OSError:
        return None


def whiteout(path: Path) -> bool:
    found = path.lstat()
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def opaque(path: Path) -> bool:
    return attribute(path, "trusted.overlay.opaque") == b"y"


async def test_everything_tar_can_say(shop: Shop) -> None:
    long = "d" * 90 + "/" + "f" * 200
    raw = layer(
        directory("./", mode=0o751),
        directory("bin", mode=0o2755, mtime=1_234_567_890),
        file("bin/su", "suid", mode=0o4755, uid=0, gid=50, mtime=1_111_111_111),
        file(
            "bin/ping",
            "caps",
            mode=0o755,
            uid=7,
            pax={"SCHILY.xattr.security.capability": CAPABILITY.decode("latin-1")},
        ),
        hardlink("bin/su2", "bin/su"),
        hardlink("/bin/su3", "./bin//su"),
        symlink("sbin", "bin", uid=5, gid=6),
        symlink("absolute", "/etc/passwd"),
        file("sbin/through", "a link"),
        Item("fifo", tarfile.FIFOTYPE, mode=0o622),
        directory("tmp", mode=0o1777),
        file("home/me/.profile", "implied parents", uid=4_000_000, gid=70_000),
        file(long, "long"),
        file("empty", mode=0),
        file("ü", "name", pax={"SCHILY.xattr.user.note": "hello"}),
    )
    made = await shop.load(raw)
    root = shop.layer(sha(raw))
    assert stat.S_IMODE(root.stat().st_mode) == 0o751
    assert stat.S_IMODE((root / "bin").stat().st_mode) == 0o2755
    assert (root / "bin").stat().st_mtime == 1_234_567_890
    su = (root / "bin/su").stat()
    assert (stat.S_IMODE(su.st_mode), su.st_uid, su.st_gid, su.st_mtime, su.st_nlink) == (
        0o4755,
        0,
        50,
        1_111_111_111,
        3,
    )
    ping = (root / "bin/ping").stat()
    assert (ping.st_uid, stat.S_IMODE(ping.st_mode)) == (7, 0o755)
    assert attribute(root / "bin/ping", "security.capability") == CAPABILITY
    assert (root / "sbin").readlink() == Path("bin")
    assert ((root / "sbin").lstat().st_uid, (root / "sbin").lstat().st_gid) == (5, 6)
    assert (root / "bin/through").read_text() == "a link"
    assert (root / "absolute").readlink() == Path("/etc/passwd")
    assert stat.S_ISFIFO((root / "fifo").lstat().st_mode)
    assert stat.S_IMODE((root / "tmp").stat().st_mode) == 0o1777
    profile = (root / "home/me/.profile").stat()
    assert (profile.st_uid, profile.st_gid) == (4_000_000, 70_000)
    assert stat.S_IMODE((root / "home/me").stat().st_mode) == 0o755
    assert (root / long).read_text() == "long"
    assert stat.S_IMODE((root / "empty").stat().st_mode) == 0
    assert attribute(root / "ü", "user.note") == b"hello"
    assert (await shop.store.config(made.id)).layers == (sha(raw),)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("compression", ["plain", "gzip", "zstd"])
async def test_every_form_and_compression(shop: Shop, form: int, compression: str) -> None:
    big = os.urandom(3_000_000)
    raw = layer(directory("a"), Item("a/big", content=big), file("a/zeros", "\0" * 5_000_000), form=form)
    made = image(raw, compression=compression)
    await shop.store.load(oci_archive(shop.root / "a.tar", [(made, "x:1")]), None, shop.said.append)
    assert (shop.layer(sha(raw)) / "a/big").read_bytes() == big
    assert (shop.layer(sha(raw)) / "a/zeros").stat().st_size == 5_000_000


async def test_gzip_of_several_members(shop: Shop) -> None:
    raw = layer(file("a", "x" * 3000), file("b", "y"))
    made = image(raw, compression="plain")
    packed = compress(raw[:1700], "gzip") + compress(raw[1700:], "gzip")
    tar = shop.root / "r.tar.gz"
    tar.write_bytes(packed)
    await shop.store.import_rootfs(tar, "r:1", {}, shop.said.append)
    assert (shop.layer(sha(raw)) / "b").read_text() == "y"
    assert made.layers == (raw,)


# Whiteouts ---------------------------------------------------------------------------------------------------------------


async def test_whiteouts_take_overlay_form(shop: Shop) -> None:
    raw = layer(
        file("etc/.wh.gone"),
        directory("opt"),
        file("opt/.wh..wh..opq"),
        file("opt/new", "new"),
        file(".wh.top"),
        file("implied/deep/.wh.x"),
        file(".wh..wh.plnk/1.2", "aufs"),
        file(".wh..wh.aufs"),
    )
    await shop.load(raw)
    root = shop.layer(sha(raw))
    assert whiteout(root / "etc/gone")
    assert whiteout(root / "top")
    assert whiteout(root / "implied/deep/x")
    assert opaque(root / "opt")
    assert (root / "opt/new").read_text() == "new"
    assert sorted(path.name for path in root.iterdir()) == ["etc", "implied", "opt", "top"]


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([file(".wh.a"), file("a", "mine")], "file"),
        ([file("a", "mine"), file(".wh.a")], "file"),
        ([file(".wh.a"), directory("a")], "opaque"),
        ([directory("a"), file(".wh.a")], "opaque"),
        ([file(".wh.a"), file("a/b", "implied")], "opaque"),
        ([file(".wh.a"), file(".wh.a")], "whiteout"),
        ([symlink("a", "/x"), file(".wh.a")], "symlink"),
    ],
    ids=[
        "before-file",
        "after-file",
        "before-directory",
        "after-directory",
        "before-implied",
        "twice",
        "after-symlink",
    ],
)
async def test_a_whiteout_hides_lower_layers_only(shop: Shop, items: list[Item], expected: str) -> None:
    raw = layer(*items)
    await shop.load(raw)
    found = shop.layer(sha(raw)) / "a"
    if expected == "whiteout":
        assert whiteout(found)
    elif expected == "opaque":
        assert found.is_dir() and opaque(found)
    elif expected == "symlink":
        assert found.is_symlink()
    else:
        assert found.read_text() == "mine"


async def test_overlayfs_understands_it(shop: Shop) -> None:
    lower = layer(file("etc/gone", "1"), file("etc/stays", "2"), file("opt/old", "3"), file("opt/sub/old", "4"))
    upper = layer(file("etc/.wh.gone"), directory("opt"), file("opt/.wh..wh..opq"), file("opt/new", "5"))
    made = await shop.load(lower, upper)
    layers = [str(shop.layer(one)) for one in reversed((await shop.store.config(made.id)).layers)]
    merged = shop.root / "merged"
    merged.mkdir()
    syscalls.mount("overlay", merged, "overlay", syscalls.MS_RDONLY, f"lowerdir={':'.join(layers)}")
    try:
        seen = sorted(str(path.relative_to(merged)) for path in merged.rglob("*"))
    finally:
        syscalls.umount(merged)
    assert seen == ["etc", "etc/stays", "opt", "opt/new"]


# Later entries over earlier ones -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("items", "expected"),
    [
        ([file("a", "1"), file("a", "2")], {"a": "2"}),
        ([directory("a"), file("a/b", "1"), file("a", "2")], {"a": "2"}),
        ([file("a", "1"), directory("a"), file("a/b", "2")], {"a/b": "2"}),
        ([directory("d"), symlink("a", "d"), file("a", "2")], {"a": "2"}),
        ([directory("d"), symlink("a", "d"), directory("a"), file("a/b", "2")], {"a/b": "2"}),
        ([directory("d"), symlink("a", "d"), file("a/b", "2")], {"d/b": "2"}),
        ([file("b", "1"), hardlink("a", "b"), file("a", "2")], {"a": "2", "b": "1"}),
        ([directory("a"), file("a/b", "1"), directory("a")], {"a/b": "1"}),
        ([hardlink("a", "a"), file("a", "1"), hardlink("a", "a")], {"a": "1"}),
        ([directory("a/"), file("a//./b", "1")], {"a/b": "1"}),
    ],
    ids=[
        "file-file", "tree-file", "file-directory", "symlink-file", "symlink-directory", "through-symlink",
        "link-broken", "directory-again", "link-to-itself", "spelling",
    ],
)  # fmt: skip
async def test_the_last_entry_counts(shop: Shop, items: list[Item], expected: dict[str, str]) -> None:
    raw = layer(*items)
    await shop.load(raw)
    root = shop.layer(sha(raw))
    found = {str(p.relative_to(root)): p.read_text() for p in root.rglob("*") if p.is_file() and not p.is_symlink()}
    assert expected.items() <= found.items()
    assert not (root / "a").is_symlink() or "d/b" in expected


# Attacks -----------------------------------------------------------------------------------------------------------------

OUT = "OUTSIDE"  # replaced by the absolute path of a directory beside the store


def climbs(target: str) -> str:
    return "../" * 40 + target.lstrip("/")


ATTACKS = {
    "absolute-name": [file(f"/{OUT}/pwned", "x")],
    "dot-dot": [file(climbs(f"{OUT}/pwned"), "x")],
    "dot-dot-inside": [directory("a"), file(f"a/../{climbs(OUT)}/pwned", "x")],
    "symlink-then-file": [symlink("a", f"/{OUT}"), file("a/pwned", "x")],
    "climbing-symlink-then-file": [symlink("a", climbs(OUT)), file("a/pwned", "x")],
    "symlink-to-file-then-write": [symlink("a", f"/{OUT}/victim"), file("a", "x")],
    "chain-of-symlinks": [symlink("a", "b"), symlink("b", "c"), symlink("c", f"/{OUT}"), file("a/pwned", "x")],
    "symlink-then-directory-mode": [symlink("a", f"/{OUT}"), directory("a", mode=0o777)],
    "symlink-parent-then-mkdir": [symlink("a", f"/{OUT}"), directory("a/made")],
    "symlink-then-chown": [symlink("a", f"/{OUT}/victim", uid=1000, gid=1000)],
    "hardlink-to-outside": [hardlink("a", f"/{OUT}/victim"), file("a", "x")],
    "hardlink-climbing": [hardlink("a", climbs(f"{OUT}/victim")), file("a", "x")],
    "hardlink-through-symlink": [symlink("s", f"/{OUT}"), hardlink("a", "s/victim"), file("a", "x")],
    "whiteout-climbing": [file(climbs(f"{OUT}/.wh.victim"))],
    "whiteout-through-symlink": [symlink("a", f"/{OUT}"), file("a/.wh.victim")],
    "opaque-through-symlink": [symlink("a", f"/{OUT}"), file("a/.wh..wh..opq")],
    "whiteout-of-dot-dot": [file("a/.wh...")],
    "whiteout-of-dot": [file("a/.wh..")],
    "replace-through-symlink": [symlink("a", f"/{OUT}/.."), file("a/outside", "x")],
    "fifo-over-symlink": [symlink("a", f"/{OUT}/victim"), Item("a", tarfile.FIFOTYPE)],
    "proc-root": [symlink("a", f"/proc/1/root/{OUT}"), file("a/pwned", "x")],
    "proc-cwd": [symlink("a", f"/proc/self/cwd/{climbs(OUT)}"), file("a/pwned", "x")],
    "descriptor": [symlink("a", "/proc/self/fd/0"), file("a", "x")],
    "xattr-through-symlink": [symlink("a", f"/{OUT}/victim", pax={"SCHILY.xattr.user.x": "1"})],
    "rename-over-root": [file("./", "x")],
    "file-over-root": [Item(".", tarfile.REGTYPE)],
    "symlink-over-root": [symlink(".", f"/{OUT}"), file("pwned", "x")],
    "symlink-over-root-with-slash": [symlink("/", f"/{OUT}"), file("pwned", "x")],
    "hardlink-over-root": [hardlink("./.", f"/{OUT}/victim")],
    "whiteout-of-the-root": [file(".wh.", "")],
    "opaque-root": [file(".wh..wh..opq")],
    "dot-dot-by-pax": [file("a", "x", pax={"path": climbs(f"{OUT}/pwned")})],
    "absolute-name-by-pax": [file("a", "x", pax={"path": f"/{OUT}/pwned"})],
    "link-by-pax": [Item("a", tarfile.LNKTYPE, link="b", pax={"linkpath": f"/{OUT}/victim"}), file("a", "x")],
    "symlink-by-pax": [symlink("a", "b", pax={"linkpath": f"/{OUT}"}), file("a/pwned", "x")],
    "chain-of-hardlinks": [symlink("s", f"/{OUT}/victim"), hardlink("a", "s"), hardlink("b", "a"), file("b", "x")],
    "hardlink-to-symlink-then-through": [symlink("s", f"/{OUT}"), hardlink("a", "s"), file("a/pwned", "x")],
    "chown-by-hardlinked-symlink": [
        symlink("s", f"/{OUT}/victim"),
        hardlink("a", "s"),
        symlink("a", f"/{OUT}/victim", uid=7),
    ],
    "dot-dot-through-symlink": [symlink("a", f"/{OUT}"), symlink("b", "a/.."), file("b/outside/pwned", "x")],
    "directory-replaced-by-symlink": [directory("a"), file("a/b", "1"), symlink("a", f"/{OUT}"), file("a/pwned", "x")],
    "tree-deleted-through-symlink": [symlink("a", f"/{OUT}/.."), file("a/outside/victim", "x"), file("a/outside", "y")],
    "whiteout-chain": [symlink("a", "b"), symlink("b", f"/{OUT}"), file("a/.wh.victim"), file("a/.wh..wh..opq")],
    "whiteout-by-symlink-entry": [symlink(".wh.victim", f"/{OUT}"), directory(f"{OUT}/.wh.victim")],
    "mode-through-directory-entry": [symlink("a", f"/{OUT}/victim"), directory("a", mode=0o6777)],
    "fifo-through-symlink": [symlink("a", f"/{OUT}"), Item("a/pwned", tarfile.FIFOTYPE)],
    "device-through-symlink": [symlink("a", f"/{OUT}"), Item("a/pwned", tarfile.CHRTYPE, device=(1, 3))],
    "sparse-through-symlink": [
        symlink("a", f"/{OUT}/victim"),
        Item("a", content=b"x", pax={"GNU.sparse.map": "5,1", "GNU.sparse.size": "9", "GNU.sparse.name": "a"}),
    ],
    "sparse-name": [
        Item(
            "a",
            content=b"x",
            pax={"GNU.sparse.map": "5,1", "GNU.sparse.size": "9", "GNU.sparse.name": climbs(f"{OUT}/pwned")},
        )
    ],
    "capability-through-symlink": [
        symlink("a", f"/{OUT}/victim"),
        file("a", "x", pax={"SCHILY.xattr.security.capability": "\1\0\0\2" + "\0" * 16}),
    ],
}


def fingerprint(outside: Path) -> list[object]:
    found: list[object] = []
    for path in sorted([outside, *outside.rglob("*")]):
        state = path.lstat()
        found += [str(path), state.st_mode, state.st_uid, state.st_nlink, state.st_mtime_ns, os.listxattr(path)]
        found.append(path.read_bytes() if path.is_file() else None)
    return found


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
async def test_nothing_gets_outside(shop: Shop, attack: list[Item]) -> None:
    outside = shop.root / "outside"
    outside.mkdir()
    (outside / "victim").write_text("precious")
    before = fingerprint(outside)
    place = str(outside).lstrip("/")
    items = [
        replace(
            item,
            name=item.name.replace(OUT, place),
            link=item.link.replace(OUT, place),
            pax={key: value.replace(OUT, place) for key, value in item.pax.items()},
        )
        for item in attack
    ]
    raw = layer(*items)
    try:
        await shop.load(raw)
    except GoraeError as error:
        assert error.code == "bad-layer"
        assert not shop.layer(sha(raw)).exists()
        assert shop.files() == set()
    assert fingerprint(outside) == before
    assert not list(shop.root.rglob("pwned")) or list(shop.layer(sha(raw)).rglob("pwned"))


@pytest.mark.parametrize("numbers", [(1, 3), (8, 0), (0, 0)], ids=["null", "disk", "overlayfs-whiteout"])
@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE], ids=["character", "block"])
async def test_devices_are_inert(shop: Shop, kind: bytes, numbers: tuple[int, int]) -> None:
    raw = layer(directory("dev"), Item("dev/x", kind, device=numbers, mode=0o4666), hardlink("dev/y", "dev/x"))
    await shop.load(raw)
    found = (shop.layer(sha(raw)) / "dev/x").lstat()
    assert stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == 0 and found.st_size == 0


async def test_setuid_programs_are_out_of_the_hosts_users_reach(shop: Shop) -> None:
    raw = layer(directory("./", mode=0o777), file("su", "x", mode=0o6755))
    await shop.load(raw)
    assert stat.S_IMODE((shop.layer(sha(raw)) / "su").stat().st_mode) == 0o6755
    assert stat.S_IMODE(shop.images.stat().st_mode) == 0o700


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(CAPABILITY, id="v2"),
        pytest.param(struct.pack("<IIIIII", 0x03000001, 1 << 10, 0, 0, 0, 70_000), id="v3-of-another-root"),
    ],
)
async def test_capabilities_are_kept(shop: Shop, value: bytes) -> None:
    """capabilities(7): v3 holds for the namespaces whose root has its rootid; to a container, mapped, it is inert."""
    raw = layer(file("ping", "x", uid=5, mode=0o755, pax={"SCHILY.xattr.security.capability": value.decode("latin-1")}))
    await shop.load(raw)
    assert attribute(shop.layer(sha(raw)) / "ping", "security.capability") == value


@pytest.mark.parametrize(
    "name",
    ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.opaque", "security.selinux", "trusted.x"],
)
async def test_an_image_cannot_speak_to_overlayfs(shop: Shop, name: str) -> None:
    raw = layer(directory("a", pax={f"SCHILY.xattr.{name}": "/y"}), file("b", pax={f"SCHILY.xattr.{name}": "y"}))
    await shop.load(raw)
    assert os.listxattr(shop.layer(sha(raw)) / "a") == []
    assert os.listxattr(shop.layer(sha(raw)) / "b") == []


@pytest.mark.parametrize(
    "items",
    [
        [file("a" * 300, "x")],
        [file("/".join(["d" * 200] * 30), "x")],
        [file("a", "x"), file("a/b", "x")],
        [symlink("a", "a"), file("a/b", "x")],
        [hardlink("a", "nowhere")],
        [directory("d"), hardlink("a", "d")],
        [symlink("a", "")],
        [file(".wh.gone"), hardlink("a", "gone")],
        [file("a" * 5000, "x")],
        [file("/".join(["d" * 240] * 17), "x")],
        [symlink("a", "t" * 5000)],
        [file("a", "x", uid=2**32 - 1)],
        [file("a", "x", pax={"uid": "-1"})],
        [file("a", "x", pax={"SCHILY.xattr.security.capability": "no capability"})],
        [Item("a", content=b"x", pax={"GNU.sparse.map": "0,1", "GNU.sparse.size": str(1 << 61)})],
    ],
    ids=[
        "long-name",
        "long-path",
        "file-as-parent",
        "symlink-loop",
        "dangling-link",
        "link-to-directory",
        "empty-symlink",
        "link-to-whiteout",
        "name-of-5000-bytes",
        "path-of-4097-bytes",
        "link-of-5000-bytes",
        "uid-minus-one",
        "uid-negative",
        "malformed-capability",
        "sparse-of-2-EiB",
    ],
)
async def test_broken_layers_are_refused_whole(shop: Shop, items: list[Item]) -> None:
    with pytest.raises(GoraeError, match="cannot unpack layer sha256:") as caught:
        await shop.load(layer(file("before", "x"), *items))
    assert caught.value.code == "bad-layer"
    assert shop.files() == set()
    assert await shop.store.list() == []


async def test_a_very_deep_tree_can_be_made_and_replaced(shop: Shop) -> None:
    deep = "/".join(["d"] * 1900)
    raw = layer(file(f"{deep}/f", "x"), file("d", "now a file"))
    await shop.load(raw)
    assert (shop.layer(sha(raw)) / "d").read_text() == "now a file"


async def test_a_layer_named_like_a_python_module_is_not_imported(shop: Shop) -> None:
    """The child's module search path would otherwise lead into the layer."""
    evil = "import os; os.open('/imported', os.O_CREAT)"
    places = [p.lstrip("/") for p in (str(Path(os.__file__).parent), str(Path(__file__).resolve().parents[3]), "")]
    raw = layer(
        *(file(f"{place}/{name}.py".lstrip("/"), evil) for place in places for name in ("linecache", "encodings/idna")),
        file("x" * 300, "an error, which must be reported"),
    )
    with pytest.raises(GoraeError) as caught:
        await shop.load(raw)
    assert caught.value.code == "bad-layer"
    assert not Path("/imported").exists()


# Limits --------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (Limits(unpacked=10 << 20), "layer-too-big"),
        (Limits(entries=3), "layer-too-big"),
        (Limits(reserve=1 << 60), "no-space"),
    ],
    ids=["bytes", "entries", "free-space"],
)
async def test_limits(shop: Shop, limits: Limits, code: str) -> None:
    shop.store = shop.open(limits)
    zeros = "\0" * (70 << 20)
    made = image(layer(*(file(f"e{n}") for n in range(4)), file("bomb", zeros)))
    archive = oci_archive(shop.root / "a.tar", [(made, "x:1")])
    with pytest.raises(GoraeError) as caught:
        await shop.store.load(archive, None, shop.said.append)
    assert caught.value.code == code
    assert shop.files() == set()


async def test_headers_that_unpack_to_gigabytes_of_memory_are_refused(shop: Shop) -> None:
    """A directory's time is set last, so its name is remembered."""
    deep = "/".join(["d" * 190] * 20)
    shop.store = shop.open(Limits(memory=64 << 20))
    tar = shop.root / "r.tar.gz"
    tar.write_bytes(compress(layer(*(directory(deep) for _ in range(14_000))), "gzip"))
    with pytest.raises(GoraeError, match="names and headers") as caught:
        await shop.store.import_rootfs(tar, "r:1", {}, shop.said.append)
    assert caught.value.code == "layer-too-big"
    assert shop.files() == set()


async def test_a_megabyte_of_gzip_that_unpacks_to_a_gigabyte_takes_little_memory(shop: Shop) -> None:
    """Within the child's bound on memory, piece by piece."""
    shop.store = shop.open(Limits(memory=64 << 20, unpacked=2 << 30))
    tar = shop.root / "r.tar.gz"
    empty = Item("a", content=b"")
    header = layer(replace(empty, pax={"GNU.sparse.map": "", "GNU.sparse.size": "9"}))[:1536]
    member = compress(bytes(64 << 20), "gzip")
    size = tarfile.TarInfo("zeros")
    size.size = 1 << 30
    tar.write_bytes(compress(header + size.tobuf(), "gzip") + member * 16 + compress(bytes(1024), "gzip"))
    assert tar.stat().st_size < 2 << 20
    (made,) = [await shop.store.import_rootfs(tar, "r:1", {}, shop.said.append)]
    assert made.size == (1 << 30) + 9


async def test_directories_that_no_entry_names_are_counted(shop: Shop) -> None:
    """One entry can lead through 2,000 of them: two million entries would take every inode of the host."""
    shop.store = shop.open(Limits(entries=1000))
    raw = layer(*(file(f"{number}/" + "d/" * 700 + "f") for number in range(2)))
    with pytest.raises(GoraeError, match="more than 1000 files and directories") as caught:
        await shop.load(raw)
    assert caught.value.code == "layer-too-big"
    assert shop.files() == set()


@pytest.mark.parametrize("limits", [Limits(reserve=1 << 60), Limits(inodes=1 << 60)], ids=["bytes", "inodes"])
async def test_many_small_files_leave_room_on_the_disk(shop: Shop, limits: Limits) -> None:
    shop.store = shop.open(limits)
    with pytest.raises(GoraeError) as caught:
        await shop.load(layer(*(file(f"f{number}") for number in range(4200))))
    assert caught.value.code == "no-space"
    assert shop.files() == set()


async def test_the_holes_of_a_sparse_file_count(shop: Shop) -> None:
    shop.store = shop.open(Limits(unpacked=10 << 20))
    pax = {"GNU.sparse.map": "0,1", "GNU.sparse.size": str(11 << 20)}
    with pytest.raises(GoraeError, match="its files are more than 10 MiB") as caught:
        await shop.load(layer(Item("a", content=b"x", pax=pax)))
    assert caught.value.code == "layer-too-big"


async def test_a_truncated_gzip_layer_is_refused(shop: Shop) -> None:
    tar = shop.root / "r.tar.gz"
    tar.write_bytes(compress(layer(file("a", "x" * 100_000)), "gzip")[:-9])
    with pytest.raises(GoraeError) as caught:
        await shop.store.import_rootfs(tar, "r:1", {}, shop.said.append)
    assert caught.value.code == "bad-layer"
    assert shop.files() == set()


async def test_a_layer_must_have_its_diff_id(shop: Shop) -> None:
    raw = layer(file("a", "x"))
    made = image(raw, diff_ids=["sha256:" + "0" * 64])
    with pytest.raises(GoraeError, match="its config says sha256:0000") as caught:
        await shop.store.load(oci_archive(shop.root / "a.tar", [(made, "x:1")]), None, shop.said.append)
    assert caught.value.code == "bad-layer"
    assert shop.files() == set()
