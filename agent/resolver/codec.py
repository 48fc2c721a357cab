"""As much of the DNS wire format as a stub resolver's server needs (RFC 1035, EDNS of RFC 6891). Pure.

Why not a library: what comes in is a header and one question, and what the servers of the outside answer is passed on
as it came; for that our own few lines take a fraction of the time and of the memory. Every read is checked against the
end of the message, and whatever is wrong is Malformed. Compressed names are stepped over, never followed.
"""

from __future__ import annotations

import struct

A, SOA, PTR, AAAA, OPT, ANY = 1, 6, 12, 28, 41, 255
IN = 1
NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED = range(6)
UDP_PLAIN = 512  # bytes of an answer over UDP to a client that says nothing of EDNS
UDP_MOST = 4096  # and to one that asks for more than that; beyond it TCP serves better
ADDRESSES = 2000  # in one answer: with AAAA's 28 bytes each it stays below a message's 64 KiB
_QR, _OPCODE, _AA, _TC, _RD, _RA, _CD = 0x8000, 0x7800, 0x0400, 0x0200, 0x0100, 0x0080, 0x0010
_HEADER = struct.Struct(">HHHHHH")
_PAIR = struct.Struct(">HH")
_RECORD = struct.Struct(">HHIH")  # type, class, TTL, length of the data
_NAME_AT_12 = b"\xc0\x0c"  # a pointer to the question's name
_OPT_OURS = b"\0" + struct.pack(">HHIH", OPT, 1232, 0, 0)


class Malformed(ValueError):
    """Not a message as RFC 1035 has them."""


class Query:
    """One question. `name`: lower-case text without the last dot, labels' odd bytes escaped as \\DDD; "" is the root.
    `end`: where the question ends. `room`: bytes an answer over UDP may have."""

    __slots__ = ("edns", "end", "flags", "id", "kind", "klass", "name", "raw", "room")

    def __init__(self, raw: bytes) -> None:
        """Malformed when it is no query at all, to which there is no answer either."""
        if len(raw) < 12:
            raise Malformed("shorter than a header")
        self.id, self.flags, questions, answers, authorities, additional = _HEADER.unpack_from(raw)
        if self.flags & _QR:
            raise Malformed("an answer, not a query")
        self.raw, self.end, self.name, self.kind, self.klass = raw, 0, "", 0, 0
        self.room, self.edns = UDP_PLAIN, False
        if self.flags & _OPCODE:
            return
        if questions != 1 or answers or authorities or additional > 2:
            return
        try:
            self.name, at = name_at(raw, 12)
            self.kind, self.klass = _PAIR.unpack_from(raw, at)
            at += 4
            for _ in range(additional):
                at = self._extra(raw, at)
        except (struct.error, Malformed):
            return
        self.end = len(self.name_bytes) + 16

    @property
    def name_bytes(self) -> bytes:
        return self.raw[12 : skip_name(self.raw, 12)]

    @property
    def refusal(self) -> int:
        """The code with which to refuse it without looking further; NOERROR: it is a good one."""
        if self.flags & _OPCODE:
            return NOTIMP
        if not self.end:
            return FORMERR
        return NOERROR

    def _extra(self, raw: bytes, at: int) -> int:
        at = skip_name(raw, at)
        kind, size, _, length = _RECORD.unpack_from(raw, at)
        at += 10 + length
        if at > len(raw):
            raise Malformed("a record beyond the end")
        if kind == OPT:
            self.edns = True
            self.room = max(UDP_PLAIN, min(size, UDP_MOST))
        return at


def skip_name(raw: bytes, at: int) -> int:
    """Where a name ends that begins at `at`."""
    try:
        while length := raw[at]:
            if length >= 0xC0:
                at += 1
                break
            if length > 63:
                raise Malformed("a label of an unknown kind")
            at += 1 + length
    except IndexError:
        raise Malformed("a name beyond the end") from None
    if at + 1 > len(raw):
        raise Malformed("a name beyond the end")
    return at + 1


def name_at(raw: bytes, at: int) -> tuple[str, int]:
    """(name, where it ends), of a name without compression: a question's has nothing it could point to."""
    end = skip_name(raw, at)
    if end - at > 255:
        raise Malformed("a name of more than 255 bytes")
    labels = []
    while length := raw[at]:
        if length >= 0xC0:
            raise Malformed("a compressed name in a question")
        labels.append(raw[at + 1 : at + 1 + length])
        at += 1 + length
    text = b".".join(labels).decode("latin-1").lower()
    if not text.isascii() or any(b"." in label for label in labels):
        text = ".".join(label.decode("latin-1").replace(".", "\\046") for label in labels)
        text = "".join(c if c.isascii() else f"\\{ord(c):03d}" for c in text).lower()
    return text, end


def encode_name(name: str) -> bytes:
    """The wire form of a plain name. Malformed when it has none."""
    out = bytearray()
    for label in name.encode().split(b"."):
        if not 0 < len(label) < 64:
            raise Malformed(f"not a name: {name!r}")
        out.append(len(label))
        out += label
    if len(out) > 254:
        raise Malformed(f"not a name: {name!r}")
    return bytes(out) + b"\0"


def respond(
    query: Query, code: int, records: bytes = b"", count: int = 0, *, ours: bool = True, tcp: bool = False
) -> bytes:
    """The whole answer. `records`: `count` of them, as answer() makes them; what has no room over UDP becomes "ask
    again over TCP". `ours`: we know it ourselves (AA)."""
    flags = _QR | (query.flags & (_OPCODE | _RD | _CD)) | _RA | code | (_AA if ours else 0)
    question = query.raw[12 : query.end] if query.end else b""
    extra = _OPT_OURS if query.edns else b""
    if not tcp and 12 + len(question) + len(records) + len(extra) > query.room:
        flags, records, count = flags | _TC, b"", 0
    header = _HEADER.pack(query.id, flags, 1 if question else 0, count, 0, 1 if extra else 0)
    return header + question + records + extra


def answer(kind: int, data: bytes, ttl: int) -> bytes:
    """A record of the question's own name."""
    return _NAME_AT_12 + _RECORD.pack(kind, IN, ttl, len(data)) + data


class Reply:
    """What a server of the outside answered: `code`, `truncated`, and where its TTLs stand."""

    __slots__ = ("code", "raw", "soa", "truncated", "ttl_at")

    def __init__(self, raw: bytes, query: Query, id: int) -> None:
        """Malformed when it is no answer to `query`, sent under `id`."""
        if len(raw) < 12:
            raise Malformed("shorter than a header")
        given, flags, questions, answers, authorities, additional = _HEADER.unpack_from(raw)
        if given != id or not flags & _QR or flags & _OPCODE:
            raise Malformed("not an answer to this query")
        self.raw, self.code, self.truncated = raw, flags & 15, bool(flags & _TC)
        self.soa = False
        self.ttl_at: list[int] = []
        end = query.end
        # Some servers answer an error without the question; nothing but the id and the connected socket proves it then.
        if questions == 1:
            if raw[12:end].lower() != query.raw[12:end].lower():
                raise Malformed("an answer to another question")
        elif questions or not self.code:
            raise Malformed("an answer to no question")
        else:
            end = 12
        if self.truncated or self.code not in (NOERROR, NXDOMAIN):
            return
        at = end
        try:
            for index in range(answers + authorities + additional):
                at = skip_name(raw, at)
                kind, _, _, length = _RECORD.unpack_from(raw, at)
                if kind != OPT:
                    self.ttl_at.append(at + 4)
                    self.soa = self.soa or (kind == SOA and index >= answers)
                at += 10 + length
        except struct.error as error:
            raise Malformed("a record beyond the end") from error
        if at > len(raw):
            raise Malformed("a record beyond the end")

    def ttl(self) -> int:
        """Seconds for which it may be kept; 0: not at all."""
        ttls = [int.from_bytes(self.raw[at : at + 4], "big") for at in self.ttl_at]
        return min((ttl if ttl < 1 << 31 else 0 for ttl in ttls), default=0)  # RFC 2181 §8


def aged(raw: bytes, ttl_at: list[int], seconds: int, id: int) -> bytes:
    """A kept answer for another asker: under his id, its TTLs shorter by `seconds`."""
    made = bytearray(raw)
    struct.pack_into(">H", made, 0, id)
    for at in ttl_at:
        left = int.from_bytes(made[at : at + 4], "big") - seconds
        struct.pack_into(">I", made, at, max(0, left))
    return bytes(made)


def under(raw: bytes, id: int) -> bytes:
    """The same message under another id."""
    return id.to_bytes(2, "big") + raw[2:]
