"""The tar reader: agrees with tarfile on what both can read, and refuses what is malformed."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.images.tarstream import BadTar, Entry, TarStream
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


GOOD = layer(file("a", "content"), form=tarfile.USTAR_FORMAT)


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
        pytest.param(corrupt(156, b"S"), id="sparse"),
        pytest.param(corrupt(156, b"M"), id="multi-volume"),
        pytest.param(corrupt(0, b"\0"), id="no-name"),
        pytest.param(corrupt(156, b"x"), id="pax-without-a-length"),
        pytest.param(corrupt(124, b"77777777777\0", corrupt(156, b"L")), id="long-name-of-8-gib"),
        pytest.param(layer(file("a", pax={"GNU.sparse.major": "1"})), id="pax-sparse"),
    ],
)
def test_malformed(raw: bytes) -> None:
    with pytest.raises(BadTar):
        read(raw)
