"""Folders of files made to hurt, as tables: name → the files, or a function that makes them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from orchestrator.compose.read import MAX_BYTES

Content = str | bytes | Callable[[Path], object]
Files = dict[str, Content]
A = "services:\n a:\n  image: x\n"
B = "services: {b: {image: x}}\n"


def write(folder: Path, files: Files) -> None:
    """A function is called with the path that it shall make."""
    for name, content in files.items():
        path = folder / name
        if callable(content):
            content(path)
        else:
            path.write_bytes(content if isinstance(content, bytes) else content.encode())


def link(target: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(target)


def huge(path: Path) -> None:
    path.touch()
    os.truncate(path, 2**30)


def joined(line: str, count: int) -> str:
    return "".join(line.replace("#", str(n)) for n in range(count))


def full(head: str, line: str) -> str:
    """As many lines as a file may have."""
    return head + joined(line, (MAX_BYTES - len(head)) // (len(line) + 6))


def layers(first: str, rest: str) -> str:
    return first + "".join(rest.format(n=n, before=", ".join([f"*a{n - 1}"] * 9)) for n in range(1, 30))


def one(texts: dict[str, str]) -> dict[str, Files]:
    return {name: {"compose.yaml": text} for name, text in texts.items()}


def services(count: int, line: str = "{image: x}") -> str:
    return "services:\n" + joined(f" s#: {line}\n", count)


def entries(key: str, entry: str, count: int) -> str:
    return f"{A}  {key}: [{joined(entry + ',', count)}]\n"


def chain(count: int, file: str = "") -> str:
    return "services:\n" + "".join(f" s{n}: {{extends: {{{file}service: s{n + 1}}}}}\n" for n in range(count)) + f" s{count}: {{image: x}}\n"  # fmt: skip


def growing(count: int) -> str:
    lines = (f" s{n}: {{extends: s{n - 1}, environment: [A{n}]}}\n" for n in range(1, count))
    return "services:\n s0: {image: x}\n" + "".join(lines)


def numbered(name: str, content: str, count: int) -> Files:
    """# in the content: the number, + the next one."""
    return {name.replace("#", str(n)): content.replace("#", str(n)).replace("+", str(n + 1)) for n in range(count)}


SHAPES: dict[str, Files] = one({
    "aliases of aliases": layers("x-a0: &a0 [x]\n", "x-a{n}: &a{n} [{before}]\n"),
    "merges of merges": layers("x-a0: &a0 {k: v}\n", "x-a{n}: &a{n} {{<<: [{before}]}}\n"),
    "a chain of aliases": "x-a0: &a0 [x]\n" + "".join(f"x-a{n}: &a{n} [*a{n - 1}]\n" for n in range(1, 20_000)),
    "a chain of merges": "x-a0: &a0 {k: v}\n" + "".join(f"x-a{n}: &a{n} {{<<: *a{n - 1}}}\n" for n in range(1, 20_000)),
    "a merge of itself": "services:\n a: &a\n  <<: *a\n  image: x\n",
    "a merge of a list of itself": "x-a: &a [*a]\nservices: {a: {<<: [*a]}}\n",
    "many merge keys": "x-a: &a {k: 1}\nx-b: {" + "<<: *a," * 90_000 + "}\n",
    "deep lists": "[" * (MAX_BYTES - 1),
    "deep mappings": "{a: " * (MAX_BYTES // 4 - 1),
    "deep blocks": "- " * (MAX_BYTES // 2 - 1),
    "deep keys": "? " * (MAX_BYTES // 2 - 1),
    "many keys": joined("k#: 1\n", 90_000),
    "many unknown keys": A + joined("  imagx#: 1\n", 40_000),
    "many anchors": joined("k#: &a# 1\n", 40_000),
    "many documents": "---\n{}\n" * 90_000,
    "documents over a long list": entries("security_opt", "a#", 25_000) + "---\nservices: {a: {security_opt: [b]}}\n" * 190,
    "documents over many services": services(3000) + "---\nservices: {s1: {environment: [b]}}\n" * 190,
    "many directives": joined("%TAG !a#! b\n", 60_000) + "---\n" + A,
    "many tags": A + "  command:\n" + joined("   - !t# a\n", 60_000),
    "reset everywhere": full("services:\n", " s#: !reset {image: !reset x, ports: !override [!reset 80]}\n"),
    "ten thousand services": services(10_000),
    "as many services as fit": full("services:\n", " s#: {}\n"),
    "one service, often": "services:\n s: &s {image: x, ports: [80], volumes: [./a:/b]}\n" + joined(" s#: *s\n", 60_000),
    "a long circle": "services:\n" + "".join(f" s{n}: {{image: x, depends_on: [s{(n + 1) % 9000}]}}\n" for n in range(9000)),
    "a long chain": "services:\n s9000: {image: x}\n" + "".join(f" s{n}: {{image: x, depends_on: [s{n + 1}]}}\n" for n in range(9000)),
    "names that are all near": f"services:\n a: {{image: x, depends_on: [{joined('b' * 29 + '#,', 60)}]}}\n" + joined(f" {'b' * 28}#: {{image: x}}\n", 5000),
    "each needs all before": "services:\n" + "".join(f" s{n}: {{image: x, depends_on: [{joined('s#,', n)}]}}\n" for n in range(380)),
    "too large": "#" * (MAX_BYTES + 1),
    "spaces": " " * (MAX_BYTES - 1),
    "comments": "#\n" * (MAX_BYTES // 2 - 1),
})  # fmt: skip

LISTS: dict[str, Files] = one({
    key: entries(key, entry, 60_000)
    for key, entry in {
        "command": "a#", "configs": "a#", "depends_on": "a#", "devices": "/a#:/b#", "environment": "A#=1", "env_file": "a#", "expose": "'1-65535'",
        "extra_hosts": "a#=1.1.1.1", "label_file": "a#", "labels": "a#", "links": "a#", "networks": "a#", "ports": "#", "profiles": "a#",
        "secrets": "a#", "security_opt": "a#", "tmpfs": "/a#", "volumes": "./a:/x#", "volumes_from": "a#",
    }.items()
} | {
    "all ports": entries("ports", "'1-65535'", 1000),
    "one mount": entries("volumes", "./a:/x", 60_000),
    "watched paths": A + "  build: .\n  develop:\n   watch:\n" + joined("    - {path: p#, action: sync, target: /x}\n", 20_000),
}) | {
    "two long lists": {"compose.yaml": entries("security_opt", "a#", 30_000), "compose.override.yaml": entries("security_opt", "b#", 30_000)},
    "two lists of subnets": {
        name: "networks: {n: {ipam: {config: [" + joined(f"{{subnet: {name}#}},", 12_000) + "]}}}\n" + A
        for name in ("compose.yaml", "compose.override.yaml")
    },
}  # fmt: skip

EXTENDS: dict[str, Files] = one({
    "a long chain": chain(12_000),
    "a long circle": chain(5000).replace("s5000: {image: x}", "s5000: {extends: s0}"),
    "a growing chain": growing(5000),
    "itself in its file": chain(3000, "file: compose.yaml, "),
    "all the same": "services:\n s: {image: x, environment: [" + joined("A#,", 500) + "]}\n" + joined(" s#: {extends: s}\n", 9000),
}) | {
    "a chain through files": {"compose.yaml": "services: {a: {extends: {file: f0.yaml, service: a}}}\n"}
    | numbered("f#.yaml", "services: {a: {extends: {file: f+.yaml, service: a}}}\n", 300),
    "large files": {"compose.yaml": "services:\n" + joined(" a#: {extends: {file: f#.yaml, service: s0}}\n", 190)}
    | numbered("f#.yaml", services(5000), 190),
    "one large file": {"compose.yaml": "services:\n" + joined(" a#: {extends: {file: f.yaml, service: s#}}\n", 190), "f.yaml": services(20_000)},
}  # fmt: skip

INCLUDES: dict[str, Files] = {
    "itself": {"compose.yaml": f"include: [compose.yaml]\n{A}"},
    "itself by another path": {"compose.yaml": f"include: [x/../compose.yaml]\n{A}"},
    "itself by a link": {"compose.yaml": f"include: [l.yaml]\n{A}", "l.yaml": link("compose.yaml")},
    "itself by a linked folder": {"compose.yaml": f"include: [l/compose.yaml]\n{A}", "l": link(".")},
    "itself beneath another": {"compose.yaml": f"include: [{{path: [b.yaml, compose.yaml]}}]\n{A}", "b.yaml": B},
    "two by two": {"compose.yaml": f"include: [f0.yaml, f0.yaml]\n{A}"} | numbered("f#.yaml", "include: [f+.yaml, f+.yaml]\n", 40),
    "a deep chain of many services": {"compose.yaml": f"include: [f0.yaml]\n{A}"}
    | {f"f{n}.yaml": f"include: [f{n + 1}.yaml]\n{services(300).replace(' s', f' s{n}x')}" for n in range(45)},
    "one often": {"compose.yaml": f"include: [{'b.yaml,' * 10_000}]\n{A}", "b.yaml": B},
    "a large one often": {"compose.yaml": f"include: [{'b.yaml,' * 190}]\n{A}", "b.yaml": services(5000)},
    "variables often": {"compose.yaml": f"include: [{'{path: b.yaml, env_file: e},' * 190}]\n{A}", "b.yaml": B, "e": joined("A#=1\n", 90_000)},
    "a text of variables often": {"compose.yaml": f"include: [{'b.yaml,' * 190}]\n{A}", "b.yaml": f"{A}  command: '{'$Q' * 400_000}'\n"},
    "special files": {"compose.yaml": f"include: [/dev/zero, /proc/self/mem, /proc/self/environ, f, d, l, {'n' * 5000}]\n{A}",
                      "f": os.mkfifo, "d": os.mkdir, "l": link("l")},
    "a folder with a long name": {"compose.yaml": f"include: [{{path: b.yaml, project_directory: {'n' * 5000}}}]\n{A}", "b.yaml": B},
}  # fmt: skip

TEXTS: dict[str, Files] = one({
    "a long key": "k" * (MAX_BYTES - 10) + ": 1",
    "dollars": f"{A}  command: {'$' * (MAX_BYTES - 100)}",
    "open variables": A + "  command: " + "${A:-" * 200_000,
    "nested variables": A + "  command: " + "${B:-" * 150_000 + "}" * 150_000,
    "wide variables": A + "  command: '" + "${B:-" * 9 + "${C-x}" * 100_000 + "}" * 9 + "'\n",
    "a variable many times": A + "  command: '" + "$A" * 500_000 + "'",
    "variables that are not set": entries("command", "$B#x", 60_000),
    "one long text, often": full(f"services:\n s: {{image: x, environment: &e [A={'b' * 500_000}]}}\n", " s#: {image: x, environment: *e}\n"),
    "one long path, often": full(f"services:\n s: {{image: x, volumes: &v ['./{'b/' * 300_000}:/x']}}\n", " s#: {image: x, volumes: *v}\n"),
    "many words": f"{A}  command: '{'a ' * 450_000}'\n",
    "mount options": f"{A}  volumes: ['./v:/x:{'b,' * 400_000}']\n",
    "control characters": A + '  "\\x9b31m\\u202e\\r": 1\n  pull_policy: "\\a"\n  depends_on: ["\\e"]\n  env_file: "\\e[1m"\n',
    "no UTF-8 in a variable": A.replace("image: x", "image: $BYTES") + '  hostname: $BYTES\n  volumes: ["./$BYTES:/x"]\n',
    "strange numbers": A + "  scale: 1e400\n  mem_limit: 9e999\n  pids_limit: .nan\n  shm_size: .inf\n  cpus: 1e19\n  stop_grace_period: 1e9s\n"
    "  ports: [1e3, .nan, 0x50, 99999999999999999999, -1, 0o17, 1_0]\n  expose: [.inf, 1e30]\n",
    "tags of YAML": A + "  cpus: !!int " + "9" * 5000 + "\n",
    "a tag of Python": A + "  command: !!python/object/apply:os.system [x]\n",
}) | {
    "UTF-16": {"compose.yaml": A.encode("utf-16")}, "UTF-32": {"compose.yaml": A.encode("utf-32")}, "latin-1": {"compose.yaml": A.encode() + b"# \xe9"},
    "a mark of byte order": {"compose.yaml": b"\xef\xbb\xbf" + A.encode()}, "CRLF": {"compose.yaml": A.replace("\n", "\r\n")},
    "CR": {"compose.yaml": A.replace("\n", "\r")}, "NUL": {"compose.yaml": A + "\0"}, "a NUL in a value": {"compose.yaml": A + '  hostname: "\\0"\n'},
    "a surrogate": {"compose.yaml": A.encode() + b"  command: \xed\xa0\x80\n"}, "a surrogate's name": {"compose.yaml": A + '  command: "\\ud800"\n'},
}  # fmt: skip

_LONG = {"digits": "9" * 900_000, "letters": "a" * 900_000, "colons": ":" * 900_000, "dashes": "1-" * 400_000, "hours": "1h" * 400_000, "spaces": " " * 900_000 + "x"}  # fmt: skip
TAKERS = [
    "build", "command", "container_name", "cpus", "devices[]", "env_file", "entrypoint", "expose[]", "extends", "extra_hosts[]",
    "healthcheck.interval", "image", "links[]", "mem_limit", "network_mode", "platform", "ports[]", "ports[].published", "ports[].target", "pull_policy",
    "restart", "scale", "stop_grace_period", "stop_signal", "tmpfs[]", "user", "volumes[]", "working_dir", "x-gorae-healthcheck.tcp.port",
]  # fmt: skip


def _nested(key: str, value: str) -> str:
    """a[].b → a: [{b: value}], in flow style."""
    first, _, rest = key.partition(".")
    inner = f"{{{_nested(rest, value)}}}" if rest else value
    return f"{first[:-2]}: [{inner}]" if first.endswith("[]") else f"{first}: {inner}"


def long_values(key: str) -> Iterable[str]:
    """Files that give the key, one of TAKERS, a text of nearly a MiB."""
    for text in _LONG.values():
        yield f"{A}  {_nested(key, repr(text))}\n"
    yield f"{A}  {_nested(key, _LONG['digits'])}\n"


ENV_FILES = {
    "doubling": "A0=xxxxxxxxxx\n" + "".join(f"A{n}={f'$A{n - 1}' * 10}\n" for n in range(1, 40)),
    "open quote": 'A="' + "x\n" * 500_000,
    "escapes": 'A="' + "\\\\" * 500_000,
    "many": joined("A#=1\n", 90_000),
    "many that are not set": joined("A#=$B#\n", 60_000),
    "exports": "export " * 140_000,
    "spaces": "A" + " " * 1_000_000,
    "line ends": "\r" * 1_000_000,
    "nested variables": "A=" + "${B:-" * 150_000 + "}" * 150_000,
    "huge": huge,
}  # fmt: skip
