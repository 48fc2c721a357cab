"""Whether two refusals are about the same thing, judged by what they name.

Each class of message has a pattern for docker compose's text, words of which ours must have one, and the names (groups
of the pattern) which ours must all have. A message of no class must have all that it quotes. One of our problems has
to meet all of it; which other problems we report beside it does not matter.
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


KIND = r"must be|expected|cannot use|takes"
BOTH = r"both|together|exclu|and|with|one of|several|more than"
GONE = r"no such|not found|missing|not exist|is not there|no file|cannot (find|read|open)"
CLASSES = (
    # References and cycles
    _class(r'service "(?P<a>[^"]+)" has neither an image', r"\bimage\b"),
    _class(
        r'depends on undefined service "(?P<a>[^"]+)"', r"depend|no (such )?service|undefined|not (a|declared|defined)"
    ),
    _class(r'"(?P<b>[^"]+)" refers to undefined (build )?(?P<c>\w+) (?P<a>\S+?):? ', r"no |undefined|not |undeclared"),
    _class(r"dependency cycle detected: (?P<a>\S+) ->", r"cycl|circ|each other|itself|loop|waits for"),
    _class(r"^\s*extends ", r"exten.*(cycl|circ|itself|each other|loop)"),
    _class(r"^\s*include ", r"inclu.*(cycl|circ|itself|each other|loop)"),
    _class(r'^cannot extend service .*service "(?P<a>[^"]+)" not found', r"extend"),
    _class(r"^extends\.(?P<a>[^.]+)\.service is required", r"extend.*\bservice\b.*(missing|need|must)"),
    # Files
    _class(r"(env|label) file (?P<a>\S+) not found", GONE),
    _class(r"find env file: (?P<a>\S+)", GONE),
    _class(r"^(open|stat) (?P<a>\S+): no such file", GONE),
    _class(r"^compose file \"(?P<a>[^\"]+)\" is invalid: open", GONE),
    _class(r"^no configuration file provided", r"Compose file"),
    _class(r"failed to read (?P<file>\S+): line", r"line|read|set"),
    _class(r"^unsupported env_file format \"(?P<a>[^\"]+)\"", r"format"),
    # YAML
    _class(r"mapping key \"(?P<a>[^\"]+)\" already defined", r"twice|duplicate|already|again|second"),
    _class(r"non-string key in (\w[^:]*): (?P<a>\S+)", r"must be text|string|a name"),
    _class(r"as a map key", r"\bkey\b.*(list|mapping|text)"),
    _class(r"map merge requires", r"<<|merge"),
    _class(r"cannot construct !!\w+.* into|top-level object must be", r"(file|document):.*(mapping|empty)"),
    _class(r"^empty compose file", r"it is empty|nothing|no services"),
    _class(r"go-yaml load error .*at L(?P<line>\d+)", r"YAML|anchor|alias|\btag\b|[*&]\w"),
    # Interpolation and names
    _class(r"required variable (?P<a>\w+) is missing", r"need|requir|not set|unset|empty|missing|must"),
    _class(r"interpolating ([\w-]+\.)*(\[\]\.)?(?P<a>[\w-]+)(\.\[\])?: failed to cast", KIND),
    _class(r"^(?P<a>\$\{[^}]*\})$", r"variable|substitut|interpol|\$"),
    _class(r"^\$\{[^}]*$", r"\$\{"),
    _class(r'invalid project name "(?P<a>[^"]+)"', r"project|name"),
    _class(r"^project name must not be empty", r"project|cannot name"),
    # Keys that exclude or need each other
    _class(r"mutual+y exclusive `?(?P<a>\w+)`? and `?(?P<b>\w+)`?", BOTH),
    _class(r"^\w+\.(?P<a>[^:]+): [\w|]+ attributes are mutually exclusive", BOTH),
    _class(r'"(?P<a>\w+)" and "(?P<b>\w+)" attributes are exclusive', BOTH),
    _class(
        r"distinct values on '(?P<a>[^']+)' and '(?P<b>[\w.]+)\.\w+'", r"differ|distinct|conflict|same|both|agree|equal"
    ),
    _class(r"can't set (?P<a>container_name) and (?P<b>\S+) as", r"one|unique|container"),
    _class(r'conflicting parameters "(?P<a>[^"]+)" and "(?P<b>[^"]+)"', r"external"),
    _class(r'^secret "(?P<a>[^"]+)" must declare either', r"file|environment|come"),
    _class(r"^\w+\.(?P<a>[^:]+): one of [\w|]+ must be set", r"need|must|neither|one of|where|missing"),
    # Values
    _class(r"invalid spec: .*: empty section between colons", r"(empty|nothing).*colons"),
    _class(r"invalid spec: .*: too many colons", r"too many|SOURCE:TARGET"),
    _class(r"invalid empty volume spec", r"volumes\[\d+\].*(empty|written|missing)"),
    _class(r"ranges specified for container and host Ports: (?P<a>[\d-]+) and (?P<b>[\d-]+)", r"port|range|long"),
    _class(r"invalid (container|host)Port: (?P<a>\S+)", r"port"),
    _class(r"no port specified", r"\bport is missing|ports\[\d+\].*(empty|missing)"),
    _class(r"\.(?P<a>\w+): invalid type \w+ for port", KIND),
    _class(r"invalid IP address: (?P<a>\S+)", r"\bIP\b|address"),
    _class(r"invalid proto: (?P<a>\S+)", r"protocol"),
    _class(r"\.(?P<a>\w+)\.\[\d+\] is missing a (mount )?target", r"target|port"),
    _class(r"invalid mount config .*: field Source must not be empty", r"source.*(missing|empty|must)"),
    _class(r"target (?P<a>\S+) already mounted", r"already|twice|two|both|again|also|same"),
    _class(r"environment variable (?P<a>\w+)\s+is declared with a trailing space", r"space"),
    _class(r"(?P<a>healthcheck)(\.test)? must start", r"CMD"),
    _class(r"build\.(?P<a>platforms) MUST include", r"platform"),
    _class(r"^'services\[[^]]+\]\.[\w.\[\]]*?(?P<a>\w+)(\[\d+\])?' ", KIND),
    _class(r"^cannot override \S*?(?P<a>\w+)$", KIND),
    # The schema's sentences
    _class(r"additional properties '(?P<a>[^']+)'", r"no |unknown|not |names may|name"),
    _class(r"\.(?P<a>[^. ]+) false schema", r"no |unknown|not "),
    _class(r"missing property '(?P<a>[^']+)'", r"need|missing|requir|without|lack|must"),
    _class(r"\.(?P<a>[\w-]+) items at \d+ and \d+ are equal", r"twice|same|duplicate|again|already|repeat|equal"),
    _class(r"unsupported value: \+Inf", r"\b\.?inf|finite"),
    _class(r"(?P<top>services\.[\w-]+) must be", KIND),
    _class(r"(?P<b>[\w-]+)\.(?P<a>[A-Za-z][\w-]*)(\.\d+)*:? (must be|value must|'[^']*' does not match)", KIND),
    _class(r"(?:^|: )(?P<top>\w+) must be", KIND),
)


def alike(expected: str, problems: Sequence[str]) -> bool:
    """`expected`: docker compose's last line. `problems`: our messages, each with its place."""
    for known in CLASSES:
        found = known.pattern.search(expected)
        if found:
            return any(_about(known, found.groupdict(), problem) for problem in problems)
    quoted = re.findall(r"[\"'`]([^\"'`]+)[\"'`]", expected)
    return bool(quoted) and any(all(_mentions(name, problem) for name in quoted) for problem in problems)


def _about(known: Class, names: dict[str, str | None], problem: str) -> bool:
    """Groups of the pattern: `line` is the place's; `file` may stand in the place; `top` is no beginning of a path."""
    place = re.match(r"\S+?:(\d+):\d+: ", problem)
    message = problem[place.end() :] if place else problem
    for group, name in names.items():
        if name is None:
            continue
        if group == "line":
            there = place is not None and place[1] == name
        else:
            there = _mentions(name, problem if group == "file" else message, r"|\.\w" if group == "top" else "")
        if not there:
            return False
    return known.words.search(message) is not None


def _mentions(name: str, text: str, nor: str = "") -> bool:
    """Names as they may be shown to people: without the folder everything is in."""
    shown = "null" if name == "<nil>" else name.removeprefix("@CASE@/").rstrip(".,:")
    return re.search(rf"(?<![\w-]){re.escape(shown)}(?![\w-]{nor})", text, re.IGNORECASE) is not None
