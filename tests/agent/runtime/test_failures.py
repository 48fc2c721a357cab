"""crun's words, as versions 1.8 to 1.21 say them, and what becomes of them."""

from __future__ import annotations

import errno

import pytest

from agent.kit.errors import GoraeError, Permanent, Temporary
from agent.runtime import failures


@pytest.mark.parametrize(
    ("text", "code", "kind"),
    [
        ("executable file `x` not found in $PATH: No such file or directory", "command-not-found", Permanent),
        ("executable file `x` not found: No such file or directory", "command-not-found", Permanent),
        ("open executable: No such file or directory", "command-not-found", Permanent),
        ("open executable: Permission denied", "not-executable", Permanent),
        ("open executable: Operation not permitted", "not-executable", Permanent),
        ("the path `/x` exists but it is not executable: Operation not permitted", "not-executable", Permanent),
        ("the path `/etc` is not a regular file: Operation not permitted", "not-executable", Permanent),
        ("exec container process `/x`: Exec format error", "not-executable", Permanent),
        ("exec container process `/x`: Argument list too long", "bad-command", Permanent),
        ("chdir `/nope`: Not a directory", "bad-workdir", Permanent),
        ("cannot chdir to `/nope`: Permission denied", "bad-workdir", Permanent),
        ("mkdir `/run/x`: No space left on device", "no-space", Temporary),
        ("write to seccomp fd", "no-space", Temporary),
        ("clone: Resource temporarily unavailable", "start-failed", Temporary),
        ("mount `proc` to `proc`: Operation not permitted", "start-failed", Permanent),
        ("", "start-failed", Permanent),
    ],
)
def test_from_crun(text: str, code: str, kind: type[GoraeError]) -> None:
    error = failures.from_crun(text, "shop/web", ["run", "-x"])
    assert (error.code, type(error)) == (code, kind)
    assert error.message.startswith("cannot start shop/web: `run -x`: ")
    assert error.evidence == {"crun": text, "args": ["run", "-x"]}


@pytest.mark.parametrize("text", ["", "write to seccomp fd", "open executable: No such file or directory"])
def test_on_a_full_disk_nothing_is_for_good(text: str) -> None:
    error = failures.from_crun(text, "shop/web", ["run"], "no space left on the disk of /run")
    assert (error.code, type(error)) == ("no-space", Temporary)
    assert error.message == "cannot start shop/web: no space left on the disk of /run"


@pytest.mark.parametrize(
    ("number", "code"), [(errno.ENOSPC, "no-space"), (errno.EDQUOT, "no-space"), (errno.EIO, "start-failed")]
)
def test_from_os(number: int, code: str) -> None:
    error = failures.from_os(OSError(number, "why", "/run/x"), "shop/web")
    assert (error.code, type(error)) == (code, Temporary)
