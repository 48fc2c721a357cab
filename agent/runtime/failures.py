"""crun's words → our errors. The only place that reads them.

What is not recognised stays start-failed, evidence kept."""

from __future__ import annotations

import errno
import re

from agent.kit.errors import GoraeError, Permanent, Temporary

# First match wins: (code, pattern of crun's text, sentence, hint). crun 1.8 to 1.21 word these alike.
_KNOWN: tuple[tuple[str, str, str, str], ...] = (
    (
        "no-space",
        r"No space left on device|Disk quota exceeded|write to seccomp fd",  # the last: of a write that fell short
        "the disk is full",
        "free some space: gorae doctor says on which disk",
    ),
    (
        "bad-command",
        r"Argument list too long",
        "its words and variables are longer than Linux takes",
        "give it less in words, and more in a file or as input",
    ),
    (
        "bad-workdir",
        r"chdir|cwd|working directory",
        "its working directory cannot be entered",
        "working_dir must be a directory that its user may enter",
    ),
    (
        "command-not-found",
        r"executable file .* not found|(open executable|exec(ve)?\b.*|stat executable|find executable).*No such file",
        "there is no such command in the image",
        "check command and entrypoint against the image",
    ),
    (
        "not-executable",
        r"(executable|exec).*(Permission denied|Operation not permitted|Exec format error|Is a directory)"
        r"|the path .* is not a regular file",
        "it is not an executable file for this machine",
        "chmod +x it in the image, or name its interpreter in command; check the image's platform",
    ),
)
_TRANSIENT = r"Resource temporarily unavailable|Cannot allocate memory|Too many open files|Device or resource busy"


def from_crun(text: str, name: str, args: list[str], disk: str = "") -> GoraeError:
    """`name`: "stack/service"; `args`: what should have run. `disk`: why nothing can be written to that of the bundle;
    of a write that fell short crun gives no reason."""
    command = " ".join(args)
    if disk:
        return Temporary(f"cannot start {name}: {disk}", code="no-space", hint="free some space", crun=text, args=args)
    for code, pattern, sentence, hint in _KNOWN:
        if re.search(pattern, text, re.IGNORECASE):
            kind = Temporary if code == "no-space" else Permanent
            return kind(f"cannot start {name}: `{command}`: {sentence}", code=code, hint=hint, crun=text, args=args)
    kind = Temporary if re.search(_TRANSIENT, text) else Permanent
    return kind(
        f"cannot start {name}: `{command}`: {text or 'crun gave no reason'}", code="start-failed", crun=text, args=args
    )


def of_command(text: str, name: str, args: list[str]) -> GoraeError:
    """Of a command that a person wants to run in a container of `name`."""
    for code, pattern, sentence, _ in _KNOWN:
        if re.search(pattern, text, re.IGNORECASE):
            kind = Temporary if code == "no-space" else Permanent
            return kind(f"cannot run `{' '.join(args)}` in {name}: {sentence}", code=code, crun=text)
    return Temporary(
        f"cannot run `{' '.join(args)}` in {name}: {text}", code="exec-failed", hint=f"gorae status {name}", crun=text
    )


def from_os(error: OSError, name: str) -> GoraeError:
    """Preparing the bundle failed, or a program is missing."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Temporary(
            f"cannot start {name}: the disk is full",
            code="no-space",
            hint="free some space: gorae doctor says on which disk",
            path=str(error.filename),
        )
    return Temporary(f"cannot start {name}: {error}", code="start-failed", hint="gorae doctor", errno=error.errno)
