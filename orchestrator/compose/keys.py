"""The table of keys as values: a Rule for each key, and a tree of them for walking a file beside it.

Supporting a key means: its row in table.py, its form in forms.py, its meaning in runtime.py, its field in model.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Literal, cast

from orchestrator.compose.table import TEXT

Verdict = Literal["supported", "differs", "ignored", "warned", "refused"]

_REASONS = {
    "@later": "gorae does not support it yet",
    "@swarm": "it is for clusters of machines; gorae runs on one",
}
_SHAPES: dict[str, tuple[tuple[str, ...], dict[str, str]]] = {  # kinds of the value itself, and rows of its children
    "texts": (("text", "list"), {"[]": "text"}),
    "list:text": (("list",), {"[]": "text"}),
    "set:text": (("list", "set"), {"[]": "text"}),
    "entries": (("map", "list"), {"*": "scalar|null", "[]": "text"}),
    "variables": (("map", "list"), {"*": "scalar|null", "[]": "text"}),
    "ssh": (("map", "list"), {"*": "scalar|null", "[]": "text"}),
    "options": (("map",), {"*": "option|null"}),
    "words": (("text", "list", "null"), {"[]": "text"}),
    "hosts": (("map", "list"), {"*": "text|list", "[]": "text"}),
}
_HOLDS = re.compile(r"([^(\s]+)(?:\(([^)]*)\))?(\|\S+)?(?: needs (.*))?")
_VERDICT = re.compile(r"(differs|ignored|warned|refused)(?: but ([^:]*):)? (.*)")


@dataclass(frozen=True, slots=True)
class Rule:
    """`kinds`: what a value may be (table.py, holds). `strict`: text does not stand for the number or truth it spells.
    `words`: the only texts the Specification allows. `needs`: keys a mapping must have. `shape`: the name of the form
    it is written in, or "". `verdict`, `why`: what gorae makes of it. `but`: texts the verdict does not hold for."""

    kinds: tuple[str, ...]
    strict: bool = False
    words: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    shape: str = ""
    closed: bool = False
    verdict: Verdict = "supported"
    why: str = ""
    but: tuple[str, ...] = ()


@dataclass(slots=True)
class Branch:
    """A key and what may stand below it. `*` stands for any name, `[]` for an entry of a list."""

    rule: Rule
    children: dict[str, Branch] = field(default_factory=dict)

    def names(self) -> Iterator[str]:
        """The keys that may stand here; none when any name may."""
        return (name for name in self.children if name not in ("*", "[]"))


def _rules() -> dict[str, Rule]:
    found: dict[str, Rule] = {}
    section = ""
    for line in re.sub(r"\n +", " ", TEXT).splitlines():
        if line.startswith("[") and line.endswith(("]", " closed")):
            name, _, closed = line.partition(" ")
            section = name[1:-1] and name[1:-1] + "."
            if closed:
                found[section[:-1]] = replace(found[section[:-1]], closed=True)
        elif line and not line.startswith("#"):
            key, holds, *verdict = re.split(" {2,}", line)
            found |= _row(section + key, holds, "".join(verdict))
    return found


def _row(path: str, holds: str, judged: str) -> dict[str, Rule]:
    first, words, more, needs = _match(_HOLDS, holds)
    verdict, but, why = _match(_VERDICT, judged) if judged else ("supported", "", "")
    for short, reason in _REASONS.items():
        why = why.replace(short, reason)
    written = first + more
    kinds, children = _SHAPES.get(written, (tuple(written.replace("!", "").split("|")), {}))
    kinds += ("list",) if "set" in kinds and "list" not in kinds else ()
    own = Rule(
        kinds,
        strict="!" in written,
        words=tuple(words.split()),
        needs=tuple(needs.split()),
        shape=written if written in _SHAPES else "",
        verdict=cast(Verdict, verdict),
        why=why,
        but=tuple(but.split()),
    )
    return {path: own} | {f"{path}.{name}": Rule(tuple(kind.split("|"))) for name, kind in children.items()}


def _match(pattern: re.Pattern[str], text: str) -> tuple[str, ...]:
    found = pattern.fullmatch(text)
    assert found, f"the table of keys has a row that is none: {text}"
    return found.groups("")


def _grow() -> Branch:
    root = Branch(Rule(("map",)))
    for path, rule in TABLE.items():
        *above, last = path.split(".")
        branch = root
        for part in above:
            branch = branch.children[part]
        branch.children[last] = Branch(rule)
    hosts = [branch for branch in _all(root) if branch.rule.shape == "hosts"]
    for branch in hosts:
        branch.children["*"].children["[]"] = Branch(Rule(("text",)))
    return root


def _all(branch: Branch) -> Iterator[Branch]:
    yield branch
    for child in branch.children.values():
        yield from _all(child)


TABLE: dict[str, Rule] = _rules()
ROOT = _grow()
