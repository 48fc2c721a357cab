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


KIND = r"must|not|expect|instead|needs|takes|as |cannot (use|read)"
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
    _class(r"^extends\.(?P<a>[^.]+)\.service is required", r"service"),
    # Files
    _class(r"(env|label) file (?P<a>\S+) not found", GONE),
    _class(r"find env file: (?P<a>\S+)", GONE),
    _class(r"^(open|stat) (?P<a>\S+): no such file", GONE),
    _class(r"^compose file \"(?P<a>[^\"]+)\" is invalid: open", GONE),
    _class(r"^no configuration file provided", r"Compose file"),
    _class(r"failed to read (?P<a>\S+): line", r"line|read|set"),
    _class(r"^unsupported env_file format \"(?P<a>[^\"]+)\"", r"format"),
    # YAML
    _class(r"mapping key \"(?P<a>[^\"]+)\" already defined", r"twice|duplicate|already|again|second"),
    _class(r"non-string key in (\w[^:]*): (?P<a>\S+)", r"key|text|name|string"),
    _class(r"as a map key", r"key"),
    _class(r"map merge requires", r"<<|merge"),
    _class(r"cannot construct !!\w+.* into|top-level object must be", r"mapping"),
    _class(r"^empty compose file", r"empty|nothing|no service"),
    _class(r"go-yaml load error .*at L(?P<a>\d+)", r"YAML|anchor|alias|tag"),
    # Interpolation and names
    _class(r"required variable (?P<a>\w+) is missing", r"need|requir|not set|unset|empty|missing|must"),
    _class(r"interpolating ([\w-]+\.)*(\[\]\.)?(?P<a>[\w-]+)(\.\[\])?: failed to cast", KIND),
    _class(r"^(?P<a>\$\{[^}]*\})$", r"variable|substitut|interpol|\$"),
    _class(r"^\$\{[^}]*$", r"\$\{"),
    _class(r'invalid project name "(?P<a>[^"]+)"', r"project|name"),
    _class(r"^project name must not be empty", r"\bname\b"),
    # Keys that exclude or need each other
    _class(r"mutual+y exclusive `?(?P<a>\w+)`? and `?(?P<b>\w+)`?", BOTH),
    _class(r"^\w+\.(?P<a>[^:]+): [\w|]+ attributes are mutually exclusive", BOTH),
    _class(r'"(?P<a>\w+)" and "(?P<b>\w+)" attributes are exclusive', BOTH),
    _class(r"distinct values on '(?P<a>[^']+)' and '(?P<b>[^']+)'", r"differ|distinct|conflict|same|both|agree|equal"),
    _class(r"can't set (?P<a>container_name) and (?P<b>\S+) as", r"one|unique|container"),
    _class(r'conflicting parameters "(?P<a>[^"]+)" and "(?P<b>[^"]+)"', r"external"),
    _class(r'^secret "(?P<a>[^"]+)" must declare either', r"file|environment|come"),
    _class(r"^\w+\.(?P<a>[^:]+): one of [\w|]+ must be set", r"need|must|neither|one of|where|missing"),
    # Values
    _class(r"invalid spec: (?P<a>\S+): empty section", r"empty|source|target|volume|mount"),
    _class(r"invalid empty volume spec", r"volume"),
    _class(r"ranges specified for container and host Ports: (?P<a>[\d-]+) and (?P<b>[\d-]+)", r"port|range|long"),
    _class(r"invalid (container|host)Port: (?P<a>\S+)", r"port"),
    _class(r"no port specified|invalid type \w+ for port", r"port"),
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
    _class(r"unsupported value: \+Inf", r"inf|number"),
    _class(r"(?P<a>[\w-]+)(\.\d+)*:? (must be|value must|'[^']*' does not match)", KIND),
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
    return "null" if name == "<nil>" else name.removeprefix("@CASE@/").rstrip(".,:")
