"""Blobs on disk."""

from __future__ import annotations

import hashlib
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.images.blobs import Files


def test_the_same_blob_put_at_once_by_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files, raw, together = Files(tmp_path), b"manifest", threading.Barrier(4, timeout=10)
    files.prepare()
    real = Files.accept

    def meet(self: Files, source: Path, blob: object) -> None:
        together.wait()  # everybody has written, nobody has renamed
        real(self, source, blob)  # type: ignore[arg-type]

    monkeypatch.setattr(Files, "accept", meet)
    with ThreadPoolExecutor(4) as pool:
        (blob,) = set(pool.map(lambda _: files.put(raw), range(4)))
    assert blob.digest == "sha256:" + hashlib.sha256(raw).hexdigest()
    assert files.blob(blob.digest).read_bytes() == raw
    assert list(files.tmp.iterdir()) == []
