"""What a person asks to be run in a container that runs, and as what process. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.decide import hooks
from agent.decide.oci_config import TERM
from agent.kit.errors import UserError
from agent.ports import UserIds
from agent.wire.messages import Hook

MOST = 4096  # rows, columns
LONGEST = 128 * 1024  # bytes of a word with its end (execve(2), MAX_ARG_STRLEN)


@dataclass(frozen=True, slots=True)
class Wanted:
    """`user`, `working_dir`: None is the container's own. `size`: rows, columns of the terminal; 0 is unknown."""

    command: tuple[str, ...]
    user: str | None = None
    working_dir: str | None = None
    environment: Mapping[str, str] = field(default_factory=dict)
    tty: bool = False
    size: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        """UserError bad-command."""
        if not self.command or not self.command[0]:
            raise UserError("cannot run nothing", code="bad-command", hint="name a command: gorae exec SERVICE sh")
        words = (*self.command, *(f"{name}={value}" for name, value in self.environment.items()))
        if any(len(word.encode(errors="surrogatepass")) >= LONGEST for word in words):
            raise UserError(
                f"cannot run it: a word or variable is longer than Linux takes ({LONGEST} bytes)",
                code="bad-command",
                hint="give it in a file, or as input",
            )
        if any("\0" in word for word in words) or any("=" in key or not key for key in self.environment):
            raise UserError(
                "cannot run it: a word has a zero byte, or a variable a name that cannot be one", code="bad-command"
            )


def process_spec(config: Mapping[str, Any], wanted: Wanted, ids: UserIds | None) -> dict[str, Any]:
    """The OCI process: as the container's own, but for what is wanted. `ids`: of wanted.user. Permanent bad-workdir."""
    environment = dict(wanted.environment)
    if ids is not None:
        environment.setdefault("HOME", ids.home or "/")
    own = {entry.partition("=")[0] for entry in config["process"]["env"]}
    if wanted.tty and "TERM" not in own:
        environment.setdefault("TERM", TERM)
    hook = Hook(command=wanted.command, environment=environment, working_dir=wanted.working_dir)
    process = hooks.process_spec(config, hook, ids)
    process["terminal"] = wanted.tty
    process.pop("consoleSize", None)
    if wanted.tty and all(0 < number <= MOST for number in wanted.size):
        process["consoleSize"] = {"height": wanted.size[0], "width": wanted.size[1]}
    return process
