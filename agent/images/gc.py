"""Which images may go. Pure.

Never one that `keep` names (a task, a stored revision, an `up` that is under way), and none that came or was wanted
within `young` seconds: whoever pulled it is about to use it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from functools import cache

from agent.images.index import Index
from agent.ports import GcRule

Weigh = Callable[[str], int]


def victims(index: Index, keep: Collection[str], rule: GcRule, now: float, weigh: Weigh) -> list[str]:
    """Image ids, the longest unused first. weigh: digest → bytes of that blob."""
    weigh = cache(weigh)  # asked for the same ones after each victim
    unused = sorted((index.used.get(id_, 0.0), id_) for id_ in index.images if id_ not in keep)
    allowed = [
        (at, id_)
        for at, id_ in unused
        if now - at >= rule.young and not (rule.unnamed and any(name.id == id_ for name in index.names.values()))
    ]
    gone = [id_ for at, id_ in allowed if rule.old is not None and now - at >= rule.old]
    for _, id_ in allowed:
        if freed(index, gone, weigh) >= rule.bytes:
            break
        if id_ not in gone:
            gone.append(id_)
    return gone


def freed(index: Index, gone: Collection[str], weigh: Weigh) -> int:
    """Bytes of blobs and unpacked layers that only these images need."""
    kept = {blob for id_, image in index.images.items() if id_ not in gone for blob in image.blobs}
    blobs = {blob for id_ in gone for blob in index.images[id_].blobs} - kept
    return sum(index.sizes.get(layer, 0) for layer in own_layers(index, gone)) + sum(map(weigh, blobs))


def own_layers(index: Index, gone: Collection[str]) -> set[str]:
    """Unpacked layers that only these images need."""
    kept = {layer for id_, image in index.images.items() if id_ not in gone for layer in image.layers}
    return {layer for id_ in gone for layer in index.images[id_].layers} - kept
