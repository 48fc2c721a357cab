"""Files made to hurt: each ends as a stack or a ComposeError, in a moment. And any text at all does."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestrator.compose.errors import MAX_PROBLEMS
from orchestrator.compose.load import ComposeError, load
from orchestrator.compose.read import MAX_BYTES

from .support import write

SECONDS = 2.0
SERVICE = "services:\n a:\n  image: x\n"


def layers(first: str, rest: str) -> str:
    return first + "".join(rest.format(n=n, before=", ".join([f"*a{n - 1}"] * 9)) for n in range(1, 30))


FILES = {
    "aliases of aliases": layers("x-a0: &a0 [x]\n", "x-a{n}: &a{n} [{before}]\n"),
    "merges of merges": layers("x-a0: &a0 {k: v}\n", "x-a{n}: &a{n} {{<<: [{before}]}}\n"),
    "deep lists": "[" * (MAX_BYTES - 1),
    "deep mappings": "{a: " * (MAX_BYTES // 4 - 1),
    "deep blocks": "- " * (MAX_BYTES // 2 - 1),
    "many keys": "".join(f"k{n}: 1\n" for n in range(90_000)),
    "many unknown keys": SERVICE + "".join(f"  imagx{n}: 1\n" for n in range(40_000)),
    "many anchors": "".join(f"k{n}: &a{n} 1\n" for n in range(40_000)),
    "many documents": "---\n{}\n" * 90_000,
    "a long text": f"{SERVICE}  command: {'x' * (MAX_BYTES - 100)}",
    "a long key": "k" * (MAX_BYTES - 10) + ": 1",
    "dollars": f"{SERVICE}  command: {'$' * (MAX_BYTES - 100)}",
    "open variables": SERVICE + "  command: " + "${A:-" * 200_000,
    "nested variables": SERVICE + "  command: " + "${B:-" * 150_000 + "}" * 150_000,
    "a variable many times": SERVICE + "  command: '" + "$A" * 500_000 + "'",
    "a long number": f"{SERVICE}  scale: {'9' * (MAX_BYTES - 100)}",
    "all ports, often": SERVICE + "  ports: [" + ", ".join(['"1-65535"'] * 1000) + "]",
    "one mount, often": SERVICE + "  volumes: [" + ", ".join(['"./a:/x"'] * 60_000) + "]",
    "a long circle": "services:\n" + "".join(f" s{n}: {{image: x, depends_on: [s{(n + 1) % 9000}]}}\n" for n in range(9000)),
    "a long chain": "services:\n s9000: {image: x}\n" + "".join(f" s{n}: {{image: x, depends_on: [s{n + 1}]}}\n" for n in range(9000)),
    "too large": "#" * (MAX_BYTES + 1),
    "spaces": " " * (MAX_BYTES - 1),
    "a byte that is no text": "\x01",
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_a_hostile_file(tmp_path: Path, name: str) -> None:
    write(tmp_path, {"compose.yaml": FILES[name]})
    started = time.process_time()
    try:
        load(None, project="p", environ={"A": "v" * 100_000}, cwd=tmp_path)
    except ComposeError as error:
        assert 1 <= len(error.problems) <= MAX_PROBLEMS + 1
        assert all(len(str(problem)) < 1000 for problem in error.problems)
    assert time.process_time() - started < SECONDS


ENV_FILES = {
    "doubling": "A0=xxxxxxxxxx\n" + "".join(f"A{n}={f'$A{n - 1}' * 10}\n" for n in range(1, 40)),
    "open quote": 'A="' + "x\n" * 500_000,
    "escapes": 'A="' + "\\\\" * 500_000,
    "many": "".join(f"A{n}=1\n" for n in range(100_000)),
    "exports": "export " * 140_000,
    "spaces": "A" + " " * 1_000_000,
}


@pytest.mark.parametrize("name", ENV_FILES)
@pytest.mark.parametrize("file", [".env", "e.env"])
def test_a_hostile_env_file(tmp_path: Path, name: str, file: str) -> None:
    services = "".join(f" s{n}: {{image: x, env_file: [{{path: e.env, required: false}}]}}\n" for n in range(5000))
    write(tmp_path, {"compose.yaml": f"services:\n{services}", file: ENV_FILES[name]})
    started = time.process_time()
    try:
        load(None, project="p", environ={}, cwd=tmp_path)
    except ComposeError as error:
        assert 1 <= len(error.problems) <= MAX_PROBLEMS + 1
    assert time.process_time() - started < SECONDS


def test_a_device_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, {"compose.yaml": "services: {a: {image: x, env_file: /dev/zero}}\n"})
    with pytest.raises(ComposeError, match="cannot read /dev/zero: it is no regular file"):
        load(None, project="p", environ={}, cwd=tmp_path)


def test_no_control_character_reaches_the_terminal(tmp_path: Path) -> None:
    write(tmp_path, {"compose.yaml": 'services: {a: {image: x, "\\e[2Jfoo": 1}}\n'})
    with pytest.raises(ComposeError) as caught:
        load(None, project="p", environ={}, cwd=tmp_path)
    assert str(caught.value).isprintable()


KEYS = [
    "image",
    "command",
    "environment",
    "ports",
    "volumes",
    "depends_on",
    "healthcheck",
    "deploy",
    "tmpfs",
    "env_file",
    "x",
]
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-5, 70000), st.floats(), st.text(max_size=12))
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["test", "target", "a", *KEYS]), inner)),
    max_leaves=8,
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_any_service_is_a_stack_or_a_compose_error(tmp_path: Path, keys: dict[str, object]) -> None:
    import json

    text = json.dumps({"services": {"a": {"image": "x", **keys}}})
    write(tmp_path, {"compose.yaml": text})
    try:
        load(None, project="p", environ={"HOME": "/h"}, cwd=tmp_path)
    except ComposeError as error:
        assert all(": cannot " in str(problem) or str(problem).startswith("cannot ") for problem in error.problems)
