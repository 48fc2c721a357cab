"""How fast layers are unpacked, beside tar with the same decompressor, in one run and as ratios.

    python -m tests.bench.images [--json FILE] [--mib 500] [--rounds 3]        as root

Two layers of that size: 25,000 small files, and ten large ones; each uncompressed, as gzip and as zstd. gorae unpacks,
hashes, checks the diff id and flushes to disk, through the store's own path; tar extracts, and `sync -f` follows. Then
two different layers at once, beside one alone.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import io
import json
import os
import random
import statistics
import subprocess
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

import uvloop

from agent.images.blobs import Files, compression
from agent.images.layer_writer import Limits
from agent.images.layers import Layers
from agent.images.manifest import Blob, Layer
from agent.kit import trees

FORMS = {  # form → what packs it, and what unpacks it for tar
    "plain": (["cat"], "cat"),
    "gzip": (["gzip", "-1"], "gzip -dc"),
    "zstd": (["zstd", "-q"], "zstd -dcq"),
}
Made = tuple[Layer, str]  # a layer whose blob is in the store, and its diff id


def write_layer(path: Path, files: int, total: int, seed: int) -> None:
    """A tar of `files` files with `total` bytes in all: three parts words, two parts noise."""
    draw = random.Random(seed)
    words = [bytes(draw.choices(b"abcdefghijklmnopqrstuvwxyz", k=draw.randint(2, 9))) for _ in range(3000)]
    text, noise = b" ".join(draw.choices(words, k=400_000)), draw.randbytes(2 << 20)
    mean = total // files
    with tarfile.open(path, "w") as tar:
        for number in range(files):
            if number % 20 == 0:
                tar.addfile(_member(f"usr/d{number // 20}", tarfile.DIRTYPE, 0o755))
            size = min(int(draw.expovariate(1 / mean)), 10 * mean) if files > 100 else mean
            content = bytearray()
            while len(content) < size:
                source = text if draw.random() < 0.6 else noise
                at = draw.randrange(len(source) - 65536)
                content += source[at : at + 65536]
            member = _member(f"usr/d{number // 20}/f{number}", tarfile.REGTYPE, 0o644)
            member.size = size
            tar.addfile(member, io.BytesIO(bytes(content[:size])))


def _member(name: str, kind: bytes, mode: int) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.mode, member.mtime = kind, mode, 1_600_000_000
    return member


class Bench:
    """A store's files in a scratch directory, and layers unpacked into it again and again."""

    def __init__(self, root: Path, runner: asyncio.Runner) -> None:
        self.root, self.runner = root, runner
        self.files = Files(root / "images")
        self.files.prepare()
        self.layers = Layers(self.files, Limits())

    def made(self, tar: Path, form: str) -> Made:
        packed = self.root / "packed"
        with tar.open("rb") as source, packed.open("wb") as out:
            subprocess.run(FORMS[form][0], stdin=source, stdout=out, check=True)
        with packed.open("rb") as file:
            blob = Blob("sha256:" + hashlib.file_digest(file, "sha256").hexdigest(), packed.stat().st_size)
        self.files.take(packed, blob)
        with tar.open("rb") as file:
            diff_id = "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()
        return Layer(blob, compression(self.files.blob(blob.digest))), diff_id

    def gorae(self, *made: Made) -> float:
        """Seconds to unpack these, all at once."""

        async def all_of_them() -> None:
            async with asyncio.TaskGroup() as group:
                for layer, diff_id in made:
                    group.create_task(self.layers.ensure(layer, diff_id, lambda _: None))

        began = time.monotonic()
        self.runner.run(all_of_them())
        took = time.monotonic() - began
        for _, diff_id in made:
            trees.delete(self.files.layer(diff_id))
        return took

    def tar(self, made: Made, form: str) -> float:
        target = self.root / "extracted"
        target.mkdir()
        unpack = f"{FORMS[form][1]} < {self.files.blob(made[0].blob.digest)}"
        began = time.monotonic()
        subprocess.run(["sh", "-c", f"{unpack} | tar -xp -C {target} && sync -f {target}"], check=True)
        took = time.monotonic() - began
        trees.delete(target)
        return took


def measure(size: int, rounds: int, place: Path | None = None) -> dict[str, Any]:
    """`size` in bytes; `place`: a directory to do it in. Ratios of medians; the sides take turns."""
    found: dict[str, Any] = {"cores": os.cpu_count(), "mib": size >> 20, "unpack": {}}
    with (
        tempfile.TemporaryDirectory(prefix="g-bench-", dir=place) as name,
        asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner,
    ):
        bench = Bench(Path(name), runner)
        tars = {kind: Path(name) / f"{kind}.tar" for kind in ("many", "few", "other")}
        for seed, (kind, path) in enumerate(tars.items()):
            write_layer(path, 10 if kind == "few" else max(100, size // (20 << 10)), size, seed)
        for kind in ("many", "few"):
            for form in FORMS:
                made = bench.made(tars[kind], form)
                taken = [(bench.gorae(made), bench.tar(made, form)) for _ in range(rounds)]
                ours, theirs = (statistics.median(side) for side in zip(*taken, strict=True))
                found["unpack"][f"{kind} {form}"] = {
                    "gorae_s": round(ours, 2), "tar_s": round(theirs, 2), "ratio": round(ours / theirs, 2)
                }  # fmt: skip
        pair = bench.made(tars["many"], "gzip"), bench.made(tars["other"], "gzip")
        taken = [(bench.gorae(*pair), bench.gorae(pair[0]) + bench.gorae(pair[1])) for _ in range(rounds)]
        together, in_turn = (statistics.median(side) for side in zip(*taken, strict=True))
        found["two_at_once"] = round(together / in_turn, 2)
    return found


def tell(found: dict[str, Any]) -> str:
    lines = [f"layers of {found['mib']} MiB, {found['cores']} cores; gorae, tar | sync, ratio (goal ≤ 1.3)"]
    for what, row in found["unpack"].items():
        lines.append(f"  {what:<11} {row['gorae_s']:6.2f} s {row['tar_s']:6.2f} s {row['ratio']:5.2f}")
    lines.append(f"two layers at once take {found['two_at_once']} of the time of one after the other")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("--mib", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--place", type=Path, help="where to do it: /dev/shm leaves the disk out")
    arguments = parser.parse_args()
    found = measure(arguments.mib << 20, arguments.rounds, arguments.place)
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=2) + "\n")
    print(tell(found))


if __name__ == "__main__":
    main()
