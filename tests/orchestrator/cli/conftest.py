from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.orchestrator.cli.fakes import FakeDaemon


@pytest.fixture
def root() -> Iterator[Path]:
    """Short: a unix socket's path ends at 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="g-", dir="/tmp"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def daemon(root: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeDaemon]:
    monkeypatch.setenv("GORAE_ROOT", str(root))
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.delenv("COMPOSE_FILE", raising=False)
    monkeypatch.setenv("REGISTRY_AUTH_FILE", str(root / "no-passwords.json"))
    monkeypatch.chdir(root)
    fake = FakeDaemon(root)
    yield fake
    fake.close()
