"""What is said when the kernel gives no more of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_SCRIPT = """
import resource
from agent.kit.errors import Temporary
from agent.runtime.inotify import Inotify
held = [Inotify()]
resource.setrlimit(resource.RLIMIT_NOFILE, (held[0].fd + 1, held[0].fd + 1))
try:
    Inotify()
except Temporary as error:
    print(error.code, error.message, error.hint, sep="\\n")
"""


def test_none_is_left() -> None:
    root = str(Path(__file__).parents[3])
    done = subprocess.run(
        [sys.executable, "-P", "-c", _SCRIPT], capture_output=True, text=True, check=True, env={"PYTHONPATH": root}
    )
    assert done.stdout.splitlines() == [
        "no-inotify",
        "cannot watch files: inotify: Too many open files",
        "sysctl fs.inotify.max_user_instances=1024",
    ]
