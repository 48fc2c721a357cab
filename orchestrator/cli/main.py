"""The command `gorae`: a table verb → module, of which only the chosen one is imported. Start-up must stay light:
no pydantic, asyncio, http, yaml, pathlib or dataclasses on the way to `gorae status`, and next to nothing on the way to
`gorae exec` (swift.py).

Exit codes: 0 done; 1 not done; 2 wrong usage or a bad file; 3 the daemon is away; 130 interrupted.
"""

from __future__ import annotations

import os
import sys

from agent.kit.errors import GoraeError, UserError
from orchestrator.cli.client import Unreachable
from orchestrator.cli.width import columns

# verb → what it does; `gorae VERB` lives in verbs/VERB.py, with _ for -
VERBS = {
    "up": "make the stack of a Compose file run, and wait until it does",
    "plan": "show what up would do, and change nothing",
    "down": "stop and remove a stack",
    "status": "show what runs, and why what does not run does not",
    "ls": "list stacks",
    "ports": "show which ports lead into containers, and who reaches them",
    "logs": "show what containers wrote",
    "stats": "show what containers use: processor, memory, network, disk",
    "top": "watch everything on one screen, or show processes",
    "events": "show what happened, who did it, and why",
    "stop": "stop services; they stay stopped",
    "start": "start stopped services",
    "exec": "run a command in a running container",
    "attach": "be at the input and output of a running container's program",
    "run": "run a command once in a new container of a service",
    "restart": "restart services in their containers",
    "recreate": "throw containers away and make them anew",
    "pause": "hold containers still",
    "unpause": "let paused containers go on",
    "cp": "copy files into a container, or out of it",
    "port-forward": "reach ports of a container from here",
    "wait": "wait until containers have ended, and exit with their code",
    "kill": "send containers a signal",
    "drain": "stop everything on this host, until that is undone",
    "scale": "change the number of replicas",
    "why": "say why a service is as it is",
    "history": "list the revisions of a stack",
    "inspect": "say everything about a stack, service, image, volume or network",
    "diff": "show what differs between two revisions",
    "rollback": "make a stack as an earlier revision says",
    "outdated": "compare the images of stacks with what their registries have now",
    "login": "keep a password for a registry",
    "logout": "forget the password for a registry",
    "image": "list, pull, save, load, check and remove images",
    "volume": "list, create, remove, back up and restore volumes",
    "df": "show what takes room on the disk, and what could go",
    "build": "build the images of services that have a build section",
    "config": "print what the Compose files say, in canonical form",
    "check": "say of each key in the Compose files what gorae makes of it",
    "doctor": "check this host, and say what to mend",
    "daemon": "run gorae's daemons",
    "version": "show the versions of this program and of the daemons",
    "completion": "print a completion script for a shell",
}
EPILOG = """\
A stack is STACK, a service STACK/SERVICE. In a folder with a Compose file, SERVICE alone is a service of its
stack; -p NAME and -f FILE choose another. docs/cli.md has the whole rule. gorae VERB --help says more.
"""


def split(argv: list[str]) -> tuple[str | None, list[str], str | None]:
    """(verb, its arguments, --root given before the verb); verb None: none was given."""
    root = None
    rest = list(argv)
    while rest and rest[0].startswith("-"):
        word = rest.pop(0)
        if word == "--root" and rest:
            root = rest.pop(0)
        elif word.startswith("--root="):
            root = word[7:]
        elif word in ("-h", "--help"):
            return None, [], root
        elif word == "--version":
            return "version", rest, root
        else:
            raise UserError(f"cannot understand the option {word}", code="usage", hint="gorae --help")
    return (rest[0], rest[1:], root) if rest else (None, [], root)


def overview() -> str:
    from orchestrator.cli.parsing import filled

    lines = ["usage: gorae [--root DIR] VERB …", "", "Keeps the stacks of Compose files running on this host.", ""]
    lines += [f"  {verb:<12} {text}" for verb, text in VERBS.items()]
    return "\n".join([*lines, "", filled(EPILOG, columns() - 2)])


def hold_standard_streams() -> None:
    """A descriptor of 0 to 2 that was given to us closed leads to /dev/null: else the socket to the daemon gets its
    number, and what is meant for a terminal goes into it."""
    for fd in range(3):
        try:
            os.fstat(fd)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    # None, where Python found it closed
    sys.stdout = sys.stdout or open(1, "w", closefd=False)  # noqa: SIM115
    sys.stderr = sys.stderr or open(2, "w", closefd=False)  # noqa: SIM115


def main(argv: list[str] | None = None) -> int:
    hold_standard_streams()
    if reconfigure := getattr(sys.stdout, "reconfigure", None):
        reconfigure(errors="replace")  # a terminal that has no → shows ?
    try:
        if argv is None and sys.argv[1:2] == ["exec"]:
            from orchestrator.cli import swift

            swift.run(sys.argv[2:])
        code = _main(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader (head, less) has gone. Python would complain once more while it shuts down.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 141
    except OSError as error:  # what no verb expects: a full disk behind stdout, a folder that is gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        where = f"{error.filename}: " if error.filename else ""
        print(f"cannot go on: {where}{error.strerror or error}\ntry  gorae doctor", file=sys.stderr)
        return 1
    return code


def _main(argv: list[str]) -> int:
    try:
        verb, rest, root = split(argv)
        if verb is None:
            print(overview())
            return 0
        if verb == "help":
            verb, rest = (rest[0], ["--help"]) if rest else ("help", [])
            if verb == "help":
                print(overview())
                return 0
        if verb not in VERBS:
            raise UserError(f"cannot understand the verb {verb}", code="usage", hint=_nearest(verb))
        from orchestrator.cli.parsing import verb_parser

        arguments = verb_parser(verb).parse_args(rest)
        if arguments.root is None:
            arguments.root = root
        return int(arguments.run(arguments))
    except GoraeError as error:
        return failed(error)
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130


def failed(error: GoraeError) -> int:
    sys.stdout.flush()
    print(explain(error, columns(2) if sys.stderr.isatty() else None), file=sys.stderr)
    if isinstance(error, Unreachable):
        return 3
    if error.code == "interrupted":
        return 130
    return 2 if error.code == "usage" or error.code.startswith("compose-") else 1


def explain(error: GoraeError, width: int | None) -> str:
    """cannot …, and on the next line: try  …; within `width` columns, if that is given. Lines that begin with a blank
    are quoted from elsewhere: they are cut, not wrapped."""
    from orchestrator.cli.render import cut, safe, wrap

    message, advice = ("\n".join(map(safe, text.split("\n"))) for text in (error.message, error.hint))
    if width is None:
        return message + (f"\ntry  {advice}" if advice else "")
    lines: list[str] = []
    for line in message.splitlines():
        lines += [cut(line, width)] if line.startswith(" ") else wrap(line, width)
    hint = wrap(advice, width - 5) if advice else []
    lines += [("     " if number else "try  ") + line for number, line in enumerate(hint)]
    return "\n".join(lines)


def _nearest(verb: str) -> str:
    from difflib import get_close_matches

    from orchestrator.cli import elsewhere

    if verb in elsewhere.VERBS:
        return elsewhere.VERBS[verb]
    found = get_close_matches(verb, VERBS, 1)
    return f"gorae {found[0]}" if found else "gorae --help"


if __name__ == "__main__":
    sys.exit(main())
