"""What the fuzzer (tests/fuzz/compose.py) begins with beside the corpus, and all that it ever found."""

from __future__ import annotations

from pathlib import Path

import pytest

from .anything import files, survives


@pytest.mark.parametrize("path", sorted((Path(__file__).parent / "found").iterdir()), ids=lambda path: path.name)
def test_it_is_survived(tmp_path: Path, path: Path) -> None:
    for name, content in files(path.read_bytes()).items():
        (tmp_path / name).write_bytes(content)
    survives(tmp_path)


@pytest.mark.parametrize("name", ["extends", "include"])
def test_a_file_beside_is_read(tmp_path: Path, name: str) -> None:
    contents = files((Path(__file__).parent / "found" / name).read_bytes())
    assert contents.keys() == {"compose.yaml", ".env", "b.yaml"}
    for file, content in contents.items():
        (tmp_path / file).write_bytes(content)
    assert survives(tmp_path)
