"""Answers of the outside, kept as long as they may be, within bounds. Pure: `now` is an argument."""

from __future__ import annotations

from agent.resolver import codec

ENTRIES, BYTES, LARGEST = 2048, 1 << 20, 4096
LONGEST, LONGEST_NO = 600, 30  # seconds; "there is none" is forgotten sooner: it is what people are about to change


class Cache:
    """The key is all of a query but its id, and whom it is put to. What was used longest ago goes first."""

    def __init__(self, entries: int = ENTRIES, size: int = BYTES) -> None:
        self._entries, self._room = entries, size
        self._kept: dict[tuple[bytes, tuple[str, ...]], tuple[float, float, bytes, list[int]]] = {}
        self.size = 0

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, query: codec.Query, servers: tuple[str, ...], now: float) -> bytes | None:
        key = (query.raw[2:], servers)
        found = self._kept.pop(key, None)
        if found is None:
            return None
        since, until, raw, ttl_at = found
        if now >= until:
            self.size -= len(raw)
            return None
        self._kept[key] = found
        return codec.aged(raw, ttl_at, int(now - since), query.id)

    def put(self, query: codec.Query, servers: tuple[str, ...], reply: codec.Reply, now: float) -> None:
        """What may not be kept is not."""
        none = reply.code == codec.NXDOMAIN or reply.soa
        ttl = min(reply.ttl(), LONGEST_NO if none else LONGEST)
        if reply.truncated or reply.code not in (codec.NOERROR, codec.NXDOMAIN) or ttl <= 0 or len(reply.raw) > LARGEST:
            return
        key = (query.raw[2:], servers)
        before = self._kept.pop(key, None)
        self.size += len(reply.raw) - (len(before[2]) if before else 0)
        self._kept[key] = (now, now + ttl, reply.raw, reply.ttl_at)
        while len(self._kept) > self._entries or self.size > self._room:
            oldest = next(iter(self._kept))
            self.size -= len(self._kept.pop(oldest)[2])
