"""The part of docs/compose.md that is made from the code: the stages of the pipeline, and the table of keys.

`python -m orchestrator.compose.reference docs/compose.md` writes it between its two marks; a test compares.
"""

from __future__ import annotations

import sys
from pathlib import Path

from orchestrator.compose import load
from orchestrator.compose.keys import TABLE, Rule

BEGIN = "<!-- made by python -m orchestrator.compose.reference docs/compose.md -->"
END = "<!-- end -->"
_TITLES = {
    "": "The file",
    "services.*": "A service",
    "services.*.build": "build",
    "services.*.deploy": "deploy",
    "networks.*": "A network",
    "volumes.*": "A volume",
}
_SAID = {"supported": "yes", "differs": "differs", "ignored": "ignored", "warned": "warned", "refused": "no"}

_LEGEND = """\
**yes**: honoured. **differs**: honoured in another way than docker compose does. **ignored**: it changes nothing here.
**warned**: ignored, and `up` says so. **no**: `up` refuses it, with the reason; `gorae config` reads it all the same.
Keys below one that is not honoured share its fate and are not listed. `x-…` keys are free."""


def generated() -> str:
    """The text between the marks."""
    stages = (load.__doc__ or "").partition("\n\n")[2].rpartition("\n\n")[0]
    parts = ["## The pipeline", f"One module a stage; `load.py` reads as this list.\n\n```\n{stages}\n```"]
    parts += ["## Keys", _LEGEND, *_tables()]
    return "\n\n".join(parts)


def _tables() -> list[str]:
    rows: dict[str, list[str]] = {title: [] for title in _TITLES.values()}
    for path, rule in TABLE.items():
        if path.endswith(("*", "[]")) or _settled_above(path):
            continue
        section = max((name for name in _TITLES if path.startswith(f"{name}." if name else "")), key=len)
        key = path.removeprefix(f"{section}.") if section else path
        rows[_TITLES[section]].append(f"| `{_shown(key)}` | {_verdict(rule)} | {_reason(rule)} |")
    return [f"### {title}\n\n| key | | |\n|---|---|---|\n" + "\n".join(lines) for title, lines in rows.items() if lines]


def _settled_above(path: str) -> bool:
    """A key above it decides: it is judged whole, or its children are what any entry has."""
    parts = path.split(".")
    above = (TABLE.get(".".join(parts[:end])) for end in range(1, len(parts)))
    return any(rule is not None and (rule.shape or rule.verdict in ("ignored", "warned", "refused")) for rule in above)


def _shown(key: str) -> str:
    return key.replace(".[]", "[]").replace(".*", ".NAME")


def _verdict(rule: Rule) -> str:
    return "in part" if rule.but and rule.verdict in ("refused", "warned") else _SAID[rule.verdict]


def _reason(rule: Rule) -> str:
    only = f"{', '.join(f'`{word}`' for word in rule.but)}; " if rule.but else ""
    return (("other than " if rule.verdict == "differs" else "only ") + only if only else "") + rule.why


def rewritten(page: str) -> str:
    """The page with the part between the marks made anew."""
    before, _, rest = page.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{generated()}\n\n{END}{after}"


if __name__ == "__main__":
    place = Path(sys.argv[1])
    place.write_text(rewritten(place.read_text()))
