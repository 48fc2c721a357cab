"""`gorae daemon` with the real daemons: it comes up, is the only one of its root, and leaves no process behind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.kit import pools
from agent.kit.layout import Layout

REPOSITORY = Path(__file__).parents[3]
pytestmark = pytest.mark.host


def processes(root: Path) -> list[str]:
    """Command lines that name `root`, ours aside."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                words = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            except OSError:
                continue  # it has just ended
            if str(root) in words:
                found.append(words)
    return found


def gorae(root: Path, *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of the command in a process of its own."""
    command = [sys.executable, "-m", "orchestrator.cli.main", "--root", str(root), *words]
    # Files, not pipes: a daemon that is left behind must not keep the test waiting.
    with (root / "out").open("w+") as out, (root / "err").open("w+") as err:
        code = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=out, stderr=err, cwd=REPOSITORY).returncode
    return code, (root / "out").read_text(), (root / "err").read_text()


def test_detach_and_stop(root: Path) -> None:
    layout = Layout.at(root)
    try:
        code, out, err = gorae(root, "daemon", "--detach")
        assert (code, err) == (0, "")
        assert f"log {layout.state}/daemon.log" in out
        running = "\n".join(processes(root))
        assert "mosquitto -c" in running
        assert "orchestrator.main" in running
        assert gorae(root, "status")[0] == 0
        assert "gorae already runs" in gorae(root, "daemon", "--detach")[1]
        code, _, err = gorae(root, "daemon")
        assert code == 1
        assert f"already runs for {layout.state}\ntry  gorae status, or gorae daemon --stop" in err
    finally:
        stopped = gorae(root, "daemon", "--stop")
        if layout.instance_file.exists():
            pools.release(layout.instance_file.read_text().strip())
    assert stopped == (0, "gorae is stopped\n", "")
    assert processes(root) == []
    assert gorae(root, "status")[0] == 3


def test_a_daemon_that_cannot_start_says_why(root: Path) -> None:
    layout = Layout.at(root)
    layout.state.mkdir()
    layout.orchestrator_dir.symlink_to("/nonexistent")
    code, _, err = gorae(root, "daemon", "--detach")
    assert code == 1
    assert err.startswith("cannot start gorae: its daemon ended\n  │ ")
    assert f"cannot prepare the directory {layout.orchestrator_dir}" in err
    assert processes(root) == []
