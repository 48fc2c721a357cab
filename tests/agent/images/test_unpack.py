"""Layers on disk: everything tar can say comes out, nothing gets outside, whatever the layer says."""

from __future__ import annotations

import os
import stat
import struct
import tarfile
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
        Item(**{**{name: getattr(item, name) for name in Item.__dataclass_fields__},
                "name": item.name.replace(OUT, place), "link": item.link.replace(OUT, place)})
        for item in attack
    ]  # fmt: skip
    raw = layer(*items)
    try:
        await shop.load(raw)
    except GoraeError as error:
        assert error.code == "bad-layer"
        assert not shop.layer(sha(raw)).exists()
        assert shop.files() == set()
    assert fingerprint(outside) == before
    assert not list(shop.root.rglob("pwned")) or list(shop.layer(sha(raw)).rglob("pwned"))


@pytest.mark.parametrize("kind", [tarfile.CHRTYPE, tarfile.BLKTYPE], ids=["character", "block"])
async def test_devices_are_inert(shop: Shop, kind: bytes) -> None:
    raw = layer(directory("dev"), Item("dev/x", kind, device=(1, 3), mode=0o666), hardlink("dev/y", "dev/x"))
    await shop.load(raw)
    found = (shop.layer(sha(raw)) / "dev/x").lstat()
    assert stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == 0 and found.st_size == 0


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
    ],
    ids=[
        "long-name",
        "long-path",
        "file-as-parent",
        "symlink-loop",
        "dangling-link",
        "link-to-directory",
        "empty-symlink",
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
    """Global PAX headers count as no entry, and each stays for all that follow."""
    value = b"x" * 900_000

    def header(number: int) -> bytes:
        record = tarfile.TarInfo._create_pax_generic_header(  # type: ignore[attr-defined]
            {f"k{number:04}": value.decode()}, tarfile.XGLTYPE, "utf-8"
        )
        return bytes(record)

    shop.store = shop.open(Limits(memory=128 << 20))
    tar = shop.root / "r.tar.gz"
    tar.write_bytes(compress(b"".join(map(header, range(200))) + layer(file("a", "x")), "gzip"))
    with pytest.raises(GoraeError, match="names and headers") as caught:
        await shop.store.import_rootfs(tar, "r:1", {}, shop.said.append)
    assert caught.value.code == "layer-too-big"
    assert shop.files() == set()


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
