"""Which images may go. Pure.

Never one that `keep` names (a task, a stored revision, an `up` that is under way), and none that came or was wanted
within `young` seconds: whoever pulled it is about to use it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from agent.images.index import Index
from agent.ports import GcRule

Weigh = Callable[[str], int]


def victims(index: Index, keep: Collection[str], rule: GcRule, now: float, weigh: Weigh) -> list[str]:
    """Image ids, the longest unused first. weigh: digest → bytes of that blob."""
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
    kept = [image for id_, image in index.images.items() if id_ not in gone]
    lost = [index.images[id_] for id_ in gone]
    layers = {layer for image in lost for layer in image.layers} - {layer for image in kept for layer in image.layers}
    blobs = {blob for image in lost for blob in image.blobs} - {blob for image in kept for blob in image.blobs}
    return sum(index.sizes.get(layer, 0) for layer in layers) + sum(map(weigh, blobs))
