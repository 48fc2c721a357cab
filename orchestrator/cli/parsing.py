"""The parser of a verb's arguments: what the verb's module registers, with errors and help in gorae's own form."""

from __future__ import annotations

import argparse
from importlib import import_module

from agent.kit.errors import UserError
from orchestrator.cli.width import columns

TYPE_CHECKING = False  # typing itself costs 2 ms of start-up
if TYPE_CHECKING:
    from typing import Any, NoReturn


class Parser(argparse.ArgumentParser):
    """Errors in gorae's own form."""

    def error(self, message: str) -> NoReturn:
        from orchestrator.cli.elsewhere import OPTIONS

        unknown = message.partition("unrecognized arguments: ")[2].split()
        option = (unknown[0].partition("=")[0] if unknown[0].startswith("-") else "SERVICE") if unknown else ""
        hint = OPTIONS.get(f"{self.prog} {option}", f"{self.prog} --help")
        raise UserError(f"cannot understand the command: {message}", code="usage", hint=hint)


def module_of(verb: str) -> Any:
    return import_module(f"orchestrator.cli.verbs.{verb.replace('-', '_')}")


def verb_parser(verb: str) -> Parser:
    module = module_of(verb)
    parser = Parser(
        prog=f"gorae {verb}",
        description=(module.__doc__ or "").strip(),
        formatter_class=_Formatter,
        allow_abbrev=False,
    )
    parser.set_defaults(run=module.run)
    module.register(parser)
    parser.add_argument(
        "--root", metavar="DIR", help="the instance that keeps everything below DIR (default: $GORAE_ROOT)"
    )
    return parser


class _Formatter(argparse.HelpFormatter):
    """Paragraphs stay apart. With a width of its own: argparse would load shutil to ask, with three compressors, for
    every argument."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, width=columns() - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return filled(text, width)


def filled(text: str, width: int) -> str:
    from orchestrator.cli.render import wrap

    return "\n\n".join("\n".join(wrap(paragraph, width)) for paragraph in text.split("\n\n"))
