"""What the set-up scripts leave behind when they are interrupted, and for whom what they install is readable."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

LIB = Path(__file__).parents[2] / "deploy" / "lib.sh"


def test_what_is_installed_can_be_read_whatever_roots_umask() -> None:
    done = subprocess.run(["bash", "-c", f"umask 077; . {LIB}; umask"], capture_output=True, text=True, check=True)
    assert done.stdout == "0022\n"


@pytest.mark.host
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL], ids=lambda number: number.name)
def test_an_interrupted_installation_does_not_keep_services_from_starting(
    tmp_path: Path, number: signal.Signals
) -> None:
    """In a mount namespace whose /usr/sbin is ours: the host may have a policy of its own."""

    def command(line: str) -> list[str]:
        return ["unshare", "-m", "bash", "-c", f"mount --bind {tmp_path} /usr/sbin; . {LIB}; (without_services {line})"]

    policy = tmp_path / "policy-rc.d"
    process = subprocess.Popen(
        command("bash -c 'echo begun; exec sleep 600'"),
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a test run in the background ignores it
    )
    assert process.stdout is not None and process.stdout.readline() == "begun\n"
    assert "exit 101" in policy.read_text()
    os.killpg(process.pid, number)
    process.communicate(timeout=20)
    if number is signal.SIGKILL:  # nothing can tidy up then, but the next run does
        assert policy.exists()
        subprocess.run(command("true"), check=True)
    assert not policy.exists()


@pytest.mark.host
def test_a_policy_of_the_hosts_own_is_left_alone(tmp_path: Path) -> None:
    policy = tmp_path / "policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 0\n")
    line = f"mount --bind {tmp_path} /usr/sbin; . {LIB}; (without_services true)"
    subprocess.run(["unshare", "-m", "bash", "-c", line], check=True)
    assert policy.read_text() == "#!/bin/sh\nexit 0\n"
