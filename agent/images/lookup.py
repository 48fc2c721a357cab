"""Which image a person means, and how an image is shown. Pure, over the index."""

from __future__ import annotations

from agent.images import names
from agent.images.errors import image_missing
from agent.images.index import Index
from agent.kit.errors import UserError
from agent.ports import ImageInfo


def find(index: Index, wanted: str) -> str:
    """The id meant by an id, a name, or the beginning of an id that fits one image, in this order.

    UserError image-missing, ambiguous-image.
    """
    if wanted in index.images:
        return wanted
    by_name = named(index, wanted)
    if by_name is not None:
        return index.names[by_name].id
    found = index.find(wanted)
    if len(found) > 1:
        raise UserError(
            f"cannot tell which image {wanted} means: {len(found)} ids begin so",
            code="ambiguous-image",
            hint="give more digits of the id",
        )
    if not found:
        raise image_missing(wanted)
    return found[0]


def named(index: Index, wanted: str) -> str | None:
    """The store's key of a name that is here. A digest also finds what was pulled by tag and has that digest."""
    try:
        reference = names.parse(wanted)
    except UserError:
        return None  # an id, or nothing that could be here
    if reference.full in index.names:
        return reference.full
    if reference.digest:
        for name, target in index.names.items():
            if target.digest == reference.digest and names.parse(name).repository == reference.repository:
                return name
    return None


def info(index: Index, id_: str) -> ImageInfo:
    own = [names.parse(name) for name in index.names_of(id_)]
    digests = {
        names.parse(f"{reference.repository}@{index.names[reference.full].digest}").familiar
        for reference in own
        if index.names[reference.full].digest
    }
    image = index.images[id_]
    return ImageInfo(
        id=id_,
        names=tuple(reference.familiar for reference in own),
        digests=tuple(sorted(digests)),
        size=index.size(id_),
        created=image.created,
        layers=len(image.layers),
    )


def shown(index: Index, id_: str) -> str:
    """An image as people know it: a name, else the beginning of its id."""
    own = index.names_of(id_)
    return names.parse(own[0]).familiar if own else id_[7:19]
