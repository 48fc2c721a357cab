"""One process of the fuzzer of tests/fuzz/compose.py, which starts it; atheris and its libFuzzer are found by then.

    python -m tests.fuzz.target FOLDER FLAGS… CORPUS      flags: libFuzzer's

What is found lies in FOLDER: `found-HASH` an input, `found-HASH.txt` why; one for each place that raised. `worst.json`: the
most that one input took.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
import signal
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

import atheris
import yaml

with atheris.instrument_imports(include=["orchestrator.compose"]):
    import orchestrator.compose.runtime  # noqa: F401 - which load() imports late
    from orchestrator.compose.keys import ROOT, Branch
    from tests.orchestrator.compose.anything import NAMES, TEXTS, files, survives

SECONDS, MIB = 2.0, 200
_SCALARS = [None, True, 0, -1, 80, 2**64, 1e300, float("nan"), *TEXTS]


def _below(branch: Branch | None, key: object) -> Branch | None:
    if branch is None:
        return None
    return branch.children.get("[]" if isinstance(key, int) else str(key)) or branch.children.get("*")


def _grown(branch: Branch | None, dice: random.Random) -> Any:
    """A value as the table of keys says, but for one in ten."""
    if branch is None or dice.random() < 0.1:
        return dice.choice(_SCALARS)
    kind, children = dice.choice(branch.rule.kinds), branch.children
    if kind == "map":
        names = [*branch.names(), *(NAMES if "*" in children else ())]
        return {name: _grown(_below(branch, name), dice) for name in dice.sample(names, min(len(names), 2))}
    if kind in ("list", "set"):
        return [_grown(children.get("[]"), dice) for _ in range(dice.randint(0, 2))]
    return dice.choice(branch.rule.words or _SCALARS)


def mutated(data: bytes, most: int, seed: int) -> bytes:
    """Half of the times bytes change; else a value of compose.yaml is replaced, wrapped, put elsewhere, or added."""
    dice = random.Random(seed)
    parts = files(data)
    try:
        root = yaml.load(parts["compose.yaml"], yaml.CSafeLoader)
        if not isinstance(root, dict) or not root or dice.random() < 0.5:
            return bytes(atheris.Mutate(data, most))
        _change(root, dice)
        text = yaml.dump(root, Dumper=yaml.CSafeDumper).encode(errors="surrogatepass")
    except (yaml.YAMLError, ValueError, TypeError, RecursionError):
        return bytes(atheris.Mutate(data, most))
    rest = b"".join(b"#" + name.encode() + b"\n" + more for name, more in parts.items() if name != "compose.yaml")
    return (text + rest)[:most]


def _change(root: dict[Any, Any], dice: random.Random) -> None:
    places: list[tuple[Any, Any, Branch | None]] = []
    todo: list[tuple[Any, Branch | None]] = [(root, ROOT)]
    while todo and len(places) < 5000:
        inside, branch = todo.pop()
        keys = list(inside) if isinstance(inside, dict) else range(len(inside)) if isinstance(inside, list) else ()
        places += [(inside, key, branch) for key in keys]
        todo += [(inside[key], _below(branch, key)) for key in keys]
    inside, key, branch = dice.choice(places)
    other, there, _ = dice.choice(places)
    match dice.randrange(6):
        case 0 | 1 if isinstance(inside, dict) and branch is not None and list(branch.names()):
            key = dice.choice(list(branch.names()))
            value = _grown(_below(branch, key), dice)
        case 2:
            value = _grown(_below(branch, key), dice)
        case 3:
            value = dice.choice([{}, [], [inside[key]], {str(there): inside[key]}, [inside[key]] * 2])
        case 4 if not isinstance(inside[key], dict | list) and not isinstance(other[there], dict | list):
            value = f"{inside[key]}{dice.choice(':/-=,.$@')}{other[there]}"[:200]
        case 5 if isinstance(inside, dict):
            key, value = dice.choice([there, f"{key}x"]), inside[key]
        case _:
            value = other[there]
    inside[key] = value


class _TooSlow(BaseException):
    pass


def _stop(*_: object) -> None:
    raise _TooSlow


class Watch:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._places: set[str] = set()
        self._worst = {"seconds": 0.0, "mib": 0.0}

    def check(self, data: bytes, scratch: Path) -> None:
        for old in scratch.iterdir():
            old.unlink()
        for name, content in files(data).items():
            (scratch / name).write_bytes(content)
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew: proc(5)
        before, began = _mib("VmRSS"), time.process_time()
        signal.setitimer(signal.ITIMER_VIRTUAL, 2 * SECONDS)
        try:
            survives(scratch)
        except _TooSlow:
            pass  # told below
        except Exception as error:
            frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "orchestrator" in frame.filename]
            self._found(data, f"{type(error).__name__} at {frames[-1].name}", traceback.format_exc())
        finally:
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        took, grown = time.process_time() - began, _mib("VmHWM") - before
        if took > SECONDS or grown > MIB:
            self._found(data, "too slow" if took > SECONDS else "too large", f"{took:.2f} s, {grown:.0f} MiB\n")
        if took > self._worst["seconds"] or grown > self._worst["mib"]:
            self._worst = {"seconds": max(took, self._worst["seconds"]), "mib": max(grown, self._worst["mib"])}
            (self._folder / "worst.json").write_text(json.dumps(self._worst))

    def _found(self, data: bytes, place: str, why: str) -> None:
        if place not in self._places:
            self._places.add(place)
            path = self._folder / f"found-{hashlib.sha256(data).hexdigest()[:8]}"
            path.write_bytes(data)
            path.with_suffix(".txt").write_text(f"{path.name}: {place}\n{why}".replace(f"{Path.cwd()}/", ""))


def _mib(what: str) -> float:
    found = re.search(rf"^{what}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found
    return int(found[1]) / 1024


def main() -> None:
    program, folder, *flags = sys.argv
    watch = Watch(Path(folder))
    signal.signal(signal.SIGVTALRM, _stop)
    with tempfile.TemporaryDirectory(dir="/dev/shm") as scratch:
        atheris.Setup([program, *flags], lambda data: watch.check(data, Path(scratch)), custom_mutator=mutated)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
