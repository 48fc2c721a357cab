"""The tar reader: agrees with tarfile on what both can read, and refuses what is malformed."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.images.sparse import placed
from agent.images.tarfields import BadTar, check_sum
from agent.images.tarstream import Entry, TarStream
from tests.support.images import Item, directory, file, hardlink, layer, symlink


def reader(raw: bytes, step: int = 1000) -> Callable[[int], bytes]:
    source = io.BytesIO(raw)
    return lambda _: source.read(step)


def read(raw: bytes, step: int = 1000) -> list[tuple[Entry, bytes]]:
    tar = TarStream(reader(raw, step))
    return [(entry, b"".join(tar.data())) for entry in tar]


names = st.text(st.characters(exclude_characters="\0/", exclude_categories=["Cs"]), min_size=1, max_size=80)
paths = st.lists(names, min_size=1, max_size=5).map("/".join).filter(lambda path: path not in (".", ".."))
items = st.lists(
    st.one_of(
        st.builds(
            Item,
            paths,
            content=st.binary(max_size=2000),
            mode=st.integers(0, 0o7777),
            uid=st.integers(0, 2**32 - 2),
            gid=st.integers(0, 2**21),
            mtime=st.integers(0, 2**34),
        ),
        st.builds(symlink, paths, paths),
        st.builds(hardlink, paths, paths),
        st.builds(directory, paths),
    ),
    max_size=6,
)


@given(items, st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]), st.sampled_from([1, 511, 512, 4096, 1 << 20]))
def test_agrees_with_tarfile(wanted: list[Item], form: int, step: int) -> None:
    raw = layer(*wanted, form=form)
    with tarfile.open(fileobj=io.BytesIO(raw), errors="surrogateescape", encoding="utf-8") as tar:
        expected = [
            (m.name.rstrip("/"), m.type, m.mode, m.uid, m.gid, int(m.mtime), m.linkname, m.size)
            for m in tar.getmembers()
        ]
    found = [
        (
            entry.name.decode("utf-8", "surrogateescape").rstrip("/"),
            entry.kind,
            entry.mode,
            entry.uid,
            entry.gid,
            entry.mtime_ns // 10**9,
            entry.link.decode("utf-8", "surrogateescape"),
            entry.size,
        )
        for entry, _ in read(raw, step)
    ]
    assert found == expected
    assert [data for _, data in read(raw, step)] == [item.content for item in wanted]


@given(st.binary(max_size=3000))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    try:
        read(raw)
    except BadTar:
        pass


@given(items.filter(bool), st.data())
def test_a_damaged_tar_is_read_or_refused(wanted: list[Item], data: st.DataObject) -> None:
    raw = bytearray(layer(*wanted))
    at = data.draw(st.integers(0, len(raw) - 1))
    raw[at] ^= data.draw(st.integers(1, 255))
    try:
        read(bytes(raw[: data.draw(st.integers(0, len(raw)))]))
    except BadTar:
        pass


def test_skipped_content_is_not_needed() -> None:
    tar = TarStream(reader(layer(file("a", "x" * 5000), file("b"))))
    assert [entry.name for entry in tar] == [b"a", b"b"]


def test_attributes_and_fractions() -> None:
    raw = layer(
        file("a", pax={"mtime": "1.000000001", "SCHILY.xattr.user.x": "1", "SCHILY.xattr.security.capability": "c"})
    )
    ((entry, _),) = read(raw)
    assert entry.mtime_ns == 1_000_000_001
    assert entry.xattrs == {b"user.x": b"1", b"security.capability": b"c"}


def test_time_before_1970() -> None:
    ((entry, _),) = read(layer(file("a", pax={"mtime": "-1.5"})))
    assert entry.mtime_ns == -1_500_000_000


def corrupt(at: int, new: bytes, raw: bytes | None = None) -> bytes:
    out = bytearray(raw or layer(file("a", "content"), form=tarfile.USTAR_FORMAT))
    out[at : at + len(new)] = new
    header = bytes(out[:148]) + b" " * 8 + bytes(out[156:512])
    out[148:156] = b"%06o\0 " % sum(header)
    return bytes(out)


def pax_sparse(map_: str, stored: bytes, **more: str) -> bytes:
    """PAX 0.1 unless `major` says otherwise."""
    records = {f"GNU.sparse.{key}": value for key, value in more.items()}
    if map_:
        records["GNU.sparse.map"] = map_
    if more.get("major"):
        records["GNU.sparse.minor"] = "0"
    return layer(Item("a", content=stored, pax=records))


GOOD = layer(file("a", "content"), form=tarfile.USTAR_FORMAT)


@given(st.binary(min_size=512, max_size=512) | st.sampled_from([b"\xff" * 512, bytes(512)]), st.integers(0, 70000))
def test_the_checksum_is_the_plain_sum(block: bytes, off: int) -> None:
    whole = sum(block) - sum(block[148:156]) + 8 * ord(" ")
    check_sum(block[:148] + b"%07o\0" % whole + block[156:])
    if off:
        with pytest.raises(BadTar):
            check_sum(block[:148] + b"%07o\0" % (whole + off) + block[156:])


@pytest.mark.parametrize(
    "raw",
    [
        pytest.param(GOOD[:100], id="half-a-header"),
        pytest.param(GOOD[:515], id="half-a-file"),
        pytest.param(GOOD[:148] + b"0000000\0" + GOOD[156:], id="wrong-checksum"),
        pytest.param(corrupt(124, b"99999999999\0"), id="size-not-octal"),
        pytest.param(corrupt(124, b"-0000000001\0"), id="size-negative"),
        pytest.param(corrupt(124, b"\xff" * 12), id="size-negative-base-256"),
        pytest.param(corrupt(124, b"\x80" + b"\xff" * 11), id="size-beyond-63-bits"),
        pytest.param(corrupt(108, b"\x80\0\0\0\xff\xff\xff\xff"), id="uid-minus-one"),
        pytest.param(corrupt(156, b"S"), id="sparse-but-not-gnu"),
        pytest.param(corrupt(156, b"M"), id="multi-volume"),
        pytest.param(corrupt(0, b"\0"), id="no-name"),
        pytest.param(corrupt(156, b"x"), id="pax-without-a-length"),
        pytest.param(corrupt(124, b"77777777777\0", corrupt(156, b"L")), id="long-name-of-8-gib"),
        pytest.param(corrupt(124, b"0_000000007\0"), id="size-with-underscore"),
        pytest.param(corrupt(124, b"+0000000007\0"), id="size-with-plus"),
        pytest.param(corrupt(124, b"000000007\0x\0"), id="size-with-junk"),
        pytest.param(layer(file("a", "x", pax={"size": "-1"})), id="pax-size-negative"),
        pytest.param(layer(file("a", "x", pax={"size": "1_0"})), id="pax-size-with-underscore"),
        pytest.param(layer(file("a", "x", pax={"size": "9" * 30})), id="pax-size-huge"),
        pytest.param(layer(file("a", "x", pax={"size": "9999"}))[: 512 * 4], id="pax-size-past-the-end"),
        pytest.param(layer(file("a", pax={"path": "a\0b"})), id="pax-name-with-nul"),
        pytest.param(layer(symlink("a", "b", pax={"linkpath": "c\0d"})), id="pax-link-with-nul"),
        pytest.param(layer(file("a", pax={"uid": str(2**32)})), id="pax-uid-too-big"),
        pytest.param(layer(file("a", pax={"mtime": "1e9"})), id="pax-mtime-not-decimal"),
        pytest.param(GOOD[:1024] + bytes(512) + GOOD, id="content-after-half-an-end"),
        pytest.param(layer(file("a", pax={"GNU.sparse.major": "1"})), id="sparse-without-a-size"),
        pytest.param(pax_sparse("1", b"", realsize="9", major="2"), id="sparse-of-version-2"),
        pytest.param(pax_sparse("", b"3\n1\n" + bytes(508), realsize="9", major="1"), id="sparse-map-cut-off"),
        pytest.param(pax_sparse("0,3,2,3", b"abcdef", size="9"), id="sparse-overlap"),
        pytest.param(pax_sparse("4,3,0,3", b"abcdef", size="9"), id="sparse-backwards"),
        pytest.param(pax_sparse("0,3,8,3", b"abcdef", size="9"), id="sparse-past-its-size"),
        pytest.param(pax_sparse("0,3", b"abcdef", size="9"), id="sparse-map-of-less-than-stored"),
        pytest.param(pax_sparse("0,3,7", b"abc", size="9"), id="sparse-map-of-odd-length"),
        pytest.param(pax_sparse("0,-3", b"", size="9"), id="sparse-negative"),
    ],
)
def test_malformed(raw: bytes) -> None:
    with pytest.raises(BadTar):
        read(raw)


# Where readers differ: as Go's archive/tar reads it, so that what one was shown is what the other runs -------------------


def test_a_global_header_says_nothing_about_files() -> None:
    header = tarfile.TarInfo.create_pax_global_header({"path": "elsewhere", "SCHILY.xattr.user.x": "1"})
    ((entry, data),) = read(header + GOOD)
    assert (entry.name, entry.xattrs, data) == (b"a", {}, b"content")


def test_pax_overrides_name_link_and_size() -> None:
    raw = layer(symlink("s", "t", pax={"path": "name", "linkpath": "link"}), file("f", "12345", pax={"uid": "5"}))
    (first, _), (second, data) = read(raw)
    assert (first.name, first.link, second.uid, data) == (b"name", b"link", 5, b"12345")


def test_a_pax_header_is_for_the_next_entry_only() -> None:
    first, second = read(layer(file("a", pax={"path": "b"}), file("c")))
    assert (first[0].name, second[0].name) == (b"b", b"c")


@pytest.mark.parametrize("kind", [tarfile.DIRTYPE, tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_only_files_have_content(kind: bytes) -> None:
    """A size in the header of anything else hides no entry behind it."""
    headers = [layer(Item(name, link="b", kind=one), form=tarfile.USTAR_FORMAT)[:512] for name, one in
               (("a", kind), ("hidden", tarfile.REGTYPE))]  # fmt: skip
    raw = corrupt(124, b"00000001000\0", headers[0]) + headers[1] + bytes(1024)
    assert [entry.name.rstrip(b"/") for entry, _ in read(raw)] == [b"a", b"hidden"]


def test_a_slash_makes_a_directory_only_of_old_entries() -> None:
    old = corrupt(156, b"\0", layer(file("d/"), form=tarfile.USTAR_FORMAT))
    new = corrupt(0, b"d/", layer(file("xx"), form=tarfile.USTAR_FORMAT))
    assert [entry.kind for raw in (old, new) for entry, _ in read(raw)] == [tarfile.DIRTYPE, tarfile.REGTYPE]


# Sparse files --------------------------------------------------------------------------------------------------------------


def expanded(entry: Entry, stored: bytes) -> bytes:
    if entry.fragments is None:
        return stored
    content = bytearray(entry.size)
    for offset, piece in placed([stored], entry.fragments):
        content[offset : offset + len(piece)] = piece
    return bytes(content)


@pytest.mark.parametrize("arguments", [["gnu"], ["posix", "0.0"], ["posix", "0.1"], ["posix", "1.0"]], ids="-".join)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(1, 9)), max_size=40), st.integers(0, 5))
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
def test_sparse_files_as_gnu_tar_writes_them(
    tmp_path_factory: pytest.TempPathFactory, arguments: list[str], runs: list[tuple[int, int]], tail: int
) -> None:
    """`runs`: a hole and some data, in blocks of 4 KiB."""
    folder = tmp_path_factory.mktemp("sparse")
    with (folder / "f").open("wb") as out:
        for number, (hole, length) in enumerate(runs):
            out.seek(hole * 4096, os.SEEK_CUR)
            out.write(bytes([number + 1]) * (length * 4096))
        out.truncate(out.tell() + tail * 4096 + 5)
    version = [f"--sparse-version={word}" for word in arguments[1:]]
    command = ["tar", "-C", str(folder), "-S", f"--format={arguments[0]}", *version, "-c", "f"]
    raw = subprocess.run(command, check=True, capture_output=True).stdout
    for step in (512, 1000, 1 << 20):
        ((entry, stored),) = read(raw, step)
        assert entry.name == b"f"
        assert expanded(entry, stored) == (folder / "f").read_bytes()
