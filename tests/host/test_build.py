"""Images that buildah makes of Compose files, run: from nothing, on a base of a registry, on one another."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from tests.support.host import CLI, Host
from tests.support.images import image, registry

pytestmark = pytest.mark.host

STACK = """\
name: shop
services:
  tiny:
    build: {{context: tiny, {args}labels: {{made: here}}}}
    stop_grace_period: 100ms
  based:
    build:
      dockerfile_inline: |
        FROM {base}
        RUN --mount=type=secret,id=word wc -c < /run/secrets/word > /length
        HEALTHCHECK NONE
        FROM {base}
        CMD ["false"]
      target: "0"
      secrets: [word]
    command: [sh, -c, cat /length; exec sleep 3600]
    stop_grace_period: 100ms
  upon:
    build:
      additional_contexts: {{tiny: "service:tiny"}}
      dockerfile_inline: "FROM tiny\\nENV UPON=1\\n"
    stop_grace_period: 100ms
secrets: {{word: {{file: word.txt}}}}
"""


@pytest.fixture
def folder(own: Host, tmp_path: Path, tars: dict[str, Path]) -> Path:
    """A project, with a storage and a registries.conf of buildah's for it alone."""
    (tmp_path / "tiny").mkdir()
    subprocess.run(["tar", "-C", str(tmp_path / "tiny"), "-xf", str(tars["busybox"])], check=True)
    (tmp_path / "tiny/Dockerfile").write_text(
        'FROM scratch\nCOPY --chown=7:8 . /\nARG SAID=one\nENV SAID=$SAID\nHEALTHCHECK --interval=1s CMD ["true"]\n'
        'CMD ["sh", "-c", "echo $SAID; exec sleep 3600"]\n'
    )
    (tmp_path / "tiny/.dockerignore").write_text("Dockerfile\n")
    (tmp_path / "word.txt").write_text("secret")
    storage = tmp_path / "storage.conf"
    storage.write_text(f'[storage]\ndriver = "vfs"\ngraphroot = "{tmp_path}/graph"\nrunroot = "{tmp_path}/run"\n')
    own.env |= {
        "CONTAINERS_STORAGE_CONF": str(storage),
        "CONTAINERS_REGISTRIES_CONF": str(tmp_path / "registries.conf"),
    }
    return tmp_path


def gorae(host: Host, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *words], env=host.env, cwd=folder, capture_output=True, text=True, timeout=300)


def test_a_stack_that_is_built(own: Host, folder: Path, tars: dict[str, Path]) -> None:
    with registry() as hub:
        base = hub.push("team/base", "1", image(tars["busybox"].read_bytes(), history=True))
        (folder / "registries.conf").write_text(f'[[registry]]\nlocation = "{hub.host}"\ninsecure = true\n')
        (folder / "compose.yaml").write_text(STACK.format(args="", base=base))
        first = gorae(own, folder, "up")
        assert first.returncode == 0, first.stderr
        own.wait("shop", lambda document: document["converged"], "the built stack to run")
        names = {name for one in json.loads(own.cli("image", "ls", "--json").stdout)["images"] for name in one["names"]}
        assert names >= {"shop-tiny:latest", "shop-based:latest", "shop-upon:latest"}
        assert "healthy" in own.cli("status", "shop/tiny").stdout  # HEALTHCHECK is only in Docker's form of images
        assert own.cli("logs", "shop/based").stdout.split()[-1] == "6"
        assert own.cli("logs", "shop/tiny").stdout.split()[-1] == "one"
        pids = own.pids("shop")

        again = gorae(own, folder, "up", "--build")
        assert again.returncode == 0, again.stderr
        assert own.pids("shop") == pids, again.stderr

        (folder / "compose.yaml").write_text(STACK.format(args="args: {SAID: two}, ", base=base))
        assert gorae(own, folder, "up", "--pull", "always").returncode == 0
        assert own.pids("shop") == pids, "only --build builds what is here"
        told = gorae(own, folder, "build", "tiny")
        assert told.stdout.endswith("stack shop: 1 image built\n"), told.stderr
        assert gorae(own, folder, "up").returncode == 0
        own.wait("shop", lambda document: document["converged"], "the new image to run")
        assert own.cli("logs", "shop/tiny").stdout.split()[-1] == "two"


def test_a_build_that_fails_changes_nothing(own: Host, folder: Path) -> None:
    (folder / "registries.conf").write_text("")
    (folder / "compose.yaml").write_text(
        'name: shop\nservices: {a: {build: {dockerfile_inline: "FROM scratch\\nCOPY nothing /\\n"}}}\n'
    )
    failed = gorae(own, folder, "up")
    assert failed.returncode == 1
    assert "cannot build a: buildah ended with" in failed.stderr
    assert json.loads(own.cli("ls", "--json").stdout)["stacks"] == []
    assert "shop" not in own.cli("image", "ls").stdout
