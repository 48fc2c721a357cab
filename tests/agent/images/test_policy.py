"""Which image a name means this time: every policy, with and without a lock, over what may be here."""

from __future__ import annotations

from typing import Any

import pytest

from agent.images import policy
from agent.images.index import Image, Index, Name
from agent.kit.errors import Permanent
from agent.ports import Wanted

OLD, NEW, ARM = (f"sha256:{digit * 64}" for digit in "123")
OLD_DIGEST, NEW_DIGEST = (f"sha256:{digit * 64}" for digit in "ab")
NOW = 1_700_000_000.0
FULL = "docker.io/library/app:1"
LOCK = {"id": OLD, "digest": OLD_DIGEST}


def index(name: Name | None, *ids: str) -> Index:
    platforms = {ARM: "linux/arm64/v8"}
    images = {id_: Image("sha256:" + "f" * 64, [], [], platform=platforms.get(id_, "linux/amd64")) for id_ in ids}
    return Index(images, {FULL: name} if name else {})


NOTHING = index(None)
HERE = index(Name(OLD, OLD_DIGEST, NOW - 100), OLD)
MOVED = index(Name(NEW, NEW_DIGEST, NOW - 100), OLD, NEW)
MOVED_AND_OLD_GONE = index(Name(NEW, NEW_DIGEST, NOW - 100), NEW)
UNNAMED = index(None, OLD)
LOADED = index(Name(NEW, "", NOW - 100), OLD, NEW)
FOREIGN = index(Name(ARM, NEW_DIGEST, NOW - 100), ARM)


@pytest.mark.parametrize(
    ("here", "more", "chosen"),
    [
        pytest.param(NOTHING, {}, None, id="nothing here: pulled"),
        pytest.param(HERE, {}, OLD, id="missing: what is here does"),
        pytest.param(HERE, {"policy": "never"}, OLD, id="never: what is here does"),
        pytest.param(HERE, {"policy": "always"}, None, id="always: pulled all the same"),
        pytest.param(HERE, {"policy": "always", **LOCK}, None, id="always moves a lock"),
        pytest.param(HERE, {"policy": "refresh", "after": 200.0}, OLD, id="refresh: young enough"),
        pytest.param(HERE, {"policy": "refresh", "after": 100.0}, None, id="refresh: old enough to be looked up"),
        pytest.param(NOTHING, {"policy": "refresh", "after": 200.0, **LOCK}, None, id="refresh: nothing here"),
        pytest.param(MOVED, {}, NEW, id="no lock: the name as it is here"),
        pytest.param(MOVED, LOCK, OLD, id="locked: another stack's pull moves nothing"),
        pytest.param(MOVED, {"policy": "never", **LOCK}, OLD, id="locked and never"),
        pytest.param(MOVED_AND_OLD_GONE, LOCK, None, id="locked and gone: pulled by digest"),
        pytest.param(UNNAMED, LOCK, OLD, id="locked and its name gone"),
        pytest.param(LOADED, LOCK, NEW, id="locked, but somebody loaded another under the name"),
        pytest.param(FOREIGN, {"platform": "linux/amd64"}, None, id="another platform is not the image"),
        pytest.param(FOREIGN, {"platform": "linux/arm64"}, ARM, id="a variant of the platform is"),
    ],
)
def test_choose(here: Index, more: dict[str, Any], chosen: str | None) -> None:
    assert policy.choose(Wanted("app:1", **more), here, NOW) == chosen


def test_an_image_may_be_named_by_its_id() -> None:
    assert policy.choose(Wanted(OLD[7:19]), UNNAMED, NOW) == OLD


@pytest.mark.parametrize(
    ("more", "source"),
    [
        pytest.param({}, "app:1", id="no lock"),
        pytest.param(LOCK, f"docker.io/library/app@{OLD_DIGEST}", id="the locked digest"),
        pytest.param({"policy": "always", **LOCK}, "app:1", id="moving on"),
        pytest.param({"policy": "refresh", **LOCK}, "app:1", id="looking up"),
    ],
)
def test_source(more: dict[str, Any], source: str) -> None:
    assert policy.source(Wanted("app:1", **more)) == source


@pytest.mark.parametrize("document", [{"policy": "sometimes"}, {"id": 5}, {"after": "x"}, {"policy": ["never"]}])
def test_a_wish_of_bad_form(document: dict[str, Any]) -> None:
    with pytest.raises((Permanent, ValueError)):
        policy.wanted("app:1", document)
