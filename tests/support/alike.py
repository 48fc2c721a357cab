"""Whether two refusals are about the same thing, judged by what they name.

Each class of message has a pattern for docker compose's text, words of which ours must have one, and the names (groups
of the pattern) which ours must all have. A message of no class must have the names it quotes or the key at the end of
its path. One of our problems has to meet all of it; which other problems we report beside it does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple


class Class(NamedTuple):
    pattern: re.Pattern[str]
    words: re.Pattern[str]


def _class(pattern: str, words: str) -> Class:
    return Class(re.compile(pattern), re.compile(words, re.IGNORECASE))


TYPES = r"must be|not|expect|instead|needs|takes|as |cannot (use|read)"
CLASSES = (
    _class(r'service "(?P<a>[^"]+)" has neither an image', r"\bimage\b"),
    _class(
        r'depends on undefined service "(?P<a>[^"]+)"', r"depend|no (such )?service|undefined|not (a|declared|defined)"
    ),
    _class(
        r'service "(?P<b>[^"]+)" refers to undefined (?P<c>\w+) (?P<a>\S+?):? ',
        r"no |undefined|not |undeclared|nowhere",
    ),
    _class(
        r'"(?P<a>[^"]+)" depends on|required by (?P<b>\S+) is disabled|depends on disabled',
        r"profile|disabled|inactive",
    ),
    _class(r"dependency cycle detected: (?P<a>\S+) ->", r"cycl|circ|each other|itself|loop"),
    _class(r"required variable (?P<a>\w+) is missing", r"need|requir|not set|unset|empty|missing|must"),
    _class(r"additional properties '(?P<a>[^']+)'", r"no |unknown|not |does not|names may|name"),
    _class(r"\.(?P<a>[^. ]+) false schema", r"no |unknown|not "),
    _class(r"missing property '(?P<a>[^']+)'", r"need|missing|requir|without|lack|must"),
    _class(r"(?P<a>[\w-]+)(\.\d+)* (must be|value must|'[^']*' does not match|must be greater)", TYPES),
    _class(r"mutually exclusive `(?P<a>\w+)` and `(?P<b>\w+)`", r"both|together|exclu|and|beside|with"),
    _class(
        r"distinct values on '(?P<a>[^']+)' and '(?P<b>[^']+)'", r"differ|distinct|conflict|same|both|but|agree|equal"
    ),
    _class(r"mapping key \"(?P<a>[^\"]+)\" already defined", r"twice|duplicate|already|again|second"),
    _class(r"non-string key in (\w[^:]*): (?P<a>\S+)", r"key|text|name|string"),
    _class(
        r"env file (?P<a>\S+) not found", r"no such|not found|missing|does not exist|not exist|is not there|no file"
    ),
    _class(
        r"^open (?P<a>\S+): no such file", r"no such|not found|missing|does not exist|not exist|no file|cannot read"
    ),
    _class(r'^cannot extend service .*service "(?P<a>[^"]+)" not found', r"extend"),
    _class(r"^\s*(?P<a>extends|include) ", r"cycl|circ|itself|each other|loop|again"),
    _class(r'invalid project name "(?P<a>[^"]+)"', r"project|name"),
    _class(r"^service \"(?P<a>[^\"]+)\" can't be used with `extends` as it declare `(?P<b>[^`]+)`", r"extend"),
    _class(r"invalid spec: (?P<a>\S+): empty section", r"empty|source|target|volume|mount"),
    _class(
        r"invalid ranges specified for container and host Ports: (?P<a>[\d-]+) and (?P<b>[\d-]+)", r"port|range|long"
    ),
    _class(r"(?P<a>volume|bind|tmpfs|mount).*must not be empty", r"source|target|empty"),
    _class(r"target (?P<a>\S+) already mounted", r"already|twice|two|both|again|also|same"),
    _class(
        r"'services\[[^]]+\]\.(?P<a>[\w.]+)[^']*' (invalid|environment variable (?P<b>\w+)|.*only value)", r"cannot"
    ),
    _class(r"interpolating ([\w-]+\.)*(\[\]\.)?(?P<a>[\w-]+)(\.\[\])?: failed to cast", r""),
    _class(r"^(?P<a>\$\{[^}]+\})$", r"variable|substitut|interpol|\$"),
    _class(r"container_name and (?P<a>\S+) as container name", r"container_name"),
    _class(r'conflicting parameters "(?P<a>[^"]+)" and "(?P<b>[^"]+)"', r"external"),
    _class(r'"(?P<a>\w+)" and "(?P<b>\w+)" attributes are exclusive', r"both|together|exclu|and|with"),
    _class(
        r"(?P<a>file)\|(?P<b>environment).* mutually exclusive",
        r"both|together|exclu|and|one of|with|several|more than",
    ),
    _class(r"must declare either `(?P<a>file)` or `(?P<b>environment)`", r"need|must|neither|or|one of"),
    _class(r"(?P<a>healthcheck)(\.test)? must start", r"CMD"),
    _class(r"build\.(?P<a>platforms) MUST include", r"platform"),
)


def alike(expected: str, problems: Sequence[str]) -> bool:
    """`expected`: docker compose's last line. `problems`: our messages, each with its place."""
    for known in CLASSES:
        found = known.pattern.search(expected)
        if found:
            names = [name for name in found.groupdict().values() if name]
            return any(known.words.search(problem) and _all(names, problem) for problem in problems)
    quoted = [name for name in re.findall(r"[\"'`]([^\"'`]+)[\"'`]", expected) if not name.startswith("services[")]
    path = re.findall(r"(?:[\w-]+\.)+([A-Za-z_]\w*)", expected)
    return bool(quoted or path) and any(_all(quoted or path[-1:], problem) for problem in problems)


def _all(names: Sequence[str], problem: str) -> bool:
    return all(re.search(rf"(?<![\w-]){re.escape(_shown(name))}(?![\w-])", problem) for name in names)


def _shown(name: str) -> str:
    """A path as it may be shown to people: without the folder everything is in."""
    return name.removeprefix("@CASE@/").rstrip(".,:")
