"""Where we differ from docker compose on purpose. At most ten rules, each about values, never about a case's name."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from tests.support.canonical import FREE, MISSING, Difference


class Rule(NamedTuple):
    name: str
    reason: str
    excuses: Callable[[Difference], bool]


class Refusal(NamedTuple):
    """`subject`: what each of our problems must be about. `excuses`: whether the model accepted elsewhere warrants it."""

    name: str
    reason: str
    subject: re.Pattern[str]
    excuses: Callable[[dict[str, Any]], bool]


def _services(model: dict[str, Any]) -> list[dict[str, Any]]:
    return list(model.get("services", {}).values())


def _zero_limit(difference: Difference) -> bool:
    return difference.path[-2:-1] == ("ulimits",) and difference.expected == {} and difference.ours == 0


def _one_letter_volume(difference: Difference) -> bool:
    """`a:/a` taken for a Windows path there; here volume `a`, which then exists at the top level too."""
    path, expected, ours = difference
    if len(path) == 2 and path[0] == "volumes":
        return len(path[1]) == 1 and expected is MISSING
    if len(path) == 1 and path[0] == "volumes":
        return expected is MISSING and isinstance(ours, dict) and all(len(name) == 1 for name in ours)
    if len(path) != 5 or path[0] != "services" or path[2] != "volumes":
        return False
    if path[4] == "source":
        return expected is MISSING and isinstance(ours, str) and len(ours) == 1
    return (
        path[4] == "target"
        and isinstance(expected, str)
        and re.fullmatch(r"[A-Za-z]:" + re.escape(str(ours)), expected) is not None
    )


def _date(difference: Difference) -> bool:
    written = re.fullmatch(r"(\d{4}-\d\d-\d\d) 00:00:00 \+0000 UTC", str(difference.expected))
    return written is not None and difference.ours == written[1]


def _extension_as_value(difference: Difference) -> bool:
    """`labels: {x-a: 1}`: the x- keys are lost there, and `#extensions: map[x-a:1]` is in their place."""
    path, expected, ours = difference
    if len(path) < 2 or path[-2] not in FREE:
        return False
    return (path[-1] == "#extensions" and ours is MISSING) or (path[-1].startswith("x-") and expected is MISSING)


RULES = (
    Rule("ulimit-zero", "a limit of 0 is a limit; docker compose loses it", _zero_limit),
    Rule("one-letter-volume", "there is no drive `a:` on Linux: `a:/a` mounts the volume a", _one_letter_volume),
    Rule("date-as-written", "YAML 1.2 has no dates: an unquoted one is the text it is", _date),
    Rule("x-as-value", "in labels and environment an x- key is a name like any other", _extension_as_value),
)
REFUSALS = (
    Refusal(
        "shell-operator",
        "a string command runs without a shell; docker compose silently cuts it at `&&`, `|`, `;`, `<`, `>`",
        re.compile(r"shell"),
        lambda model: any(service.get("command") or service.get("entrypoint") for service in _services(model)),
    ),
)


def deliberate(difference: Difference) -> str | None:
    """The rule that excuses a difference of two models."""
    return next((rule.name for rule in RULES if rule.excuses(difference)), None)


def deliberate_refusal(problems: Sequence[str], expected: dict[str, Any]) -> str | None:
    """The rule that excuses refusing what is accepted elsewhere; every problem must be of its subject."""
    for rule in REFUSALS:
        if rule.excuses(expected) and all(rule.subject.search(problem) for problem in problems):
            return rule.name
    return None
