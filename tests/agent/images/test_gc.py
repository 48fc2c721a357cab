"""Which images may go: never what is kept or young; by age, by room, by name."""

from __future__ import annotations

import pytest

from agent.images import gc
from agent.images.index import Image, Index, Name
from agent.ports import GcRule

NOW = 1_000_000.0
DAY = 86400.0


def index() -> Index:
    """a: named, a day old. b: two days, no name. c: three days, named, shares its base with a. d: just wanted."""
    made = Index()
    layers = {"a": ["base", "la"], "b": ["lb"], "c": ["base", "lc"], "d": ["ld"]}
    for number, (id_, own) in enumerate(layers.items()):
        made.images[id_] = Image(f"m{id_}", [f"m{id_}", id_, *own], own)
        made.used[id_] = NOW - (number + 1) * DAY
    made.used["d"] = NOW - 5
    made.names = {"x/a:1": Name("a"), "x/c:1": Name("c"), "x/d:1": Name("d")}
    made.sizes = {"base": 1000, "la": 10, "lb": 20, "lc": 30, "ld": 40}
    return made


def weigh(digest: str) -> int:
    return 1


@pytest.mark.parametrize(
    ("rule", "keep", "gone"),
    [
        pytest.param(GcRule(), "", [], id="nothing asked for"),
        pytest.param(GcRule(old=0), "", ["c", "b", "a"], id="all that is not young"),
        pytest.param(GcRule(old=0, young=0), "", ["c", "b", "a", "d"], id="young ones, too"),
        pytest.param(GcRule(old=0), "c", ["b", "a"], id="but what is kept"),
        pytest.param(GcRule(old=0, unnamed=True), "", ["b"], id="only without a name"),
        pytest.param(GcRule(old=2.5 * DAY), "", ["c"], id="by age"),
        pytest.param(GcRule(bytes=1), "", ["c"], id="the longest unused first"),
        pytest.param(GcRule(bytes=40), "", ["c", "b"], id="until there is room"),
        pytest.param(GcRule(bytes=10_000), "", ["c", "b", "a"], id="as far as it goes"),
        pytest.param(GcRule(bytes=10_000), "abc", [], id="never what is kept, however full"),
        pytest.param(GcRule(old=2.5 * DAY, bytes=40), "", ["c", "b"], id="by age, then for room"),
    ],
)
def test_victims(rule: GcRule, keep: str, gone: list[str]) -> None:
    assert gc.victims(index(), set(keep), rule, NOW, weigh) == gone


def test_shared_layers_are_freed_with_the_last_image() -> None:
    assert gc.freed(index(), ["a"], weigh) == 10 + 3
    assert gc.freed(index(), ["a", "c"], weigh) == 1040 + 7
    assert gc.freed(index(), [], weigh) == 0


def test_each_blob_is_weighed_once_however_many_images_go() -> None:
    weighed: list[str] = []

    def weigh(digest: str) -> int:
        weighed.append(digest)
        return 1

    many = Index(images={f"i{n}": Image(f"m{n}", [f"m{n}", f"b{n}"], []) for n in range(50)})
    assert len(gc.victims(many, (), GcRule(young=0, bytes=1 << 60), 10.0, weigh)) == 50
    assert len(weighed) == len(set(weighed))
