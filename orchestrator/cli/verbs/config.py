"""Print what the Compose files say, in canonical form: variables, defaults, includes and overrides put in.

The daemon is not asked. What is printed is a Compose file again, for gorae and for docker compose. With SERVICE: those
services and what they need, profiles or not.

--hash: a service's hash changes if, and only if, gorae up would make its containers anew.
"""

from __future__ import annotations

import argparse
import sys

from agent.kit.errors import UserError
from orchestrator.cli import targets

TYPE_CHECKING = False  # typing itself costs 2 ms of start-up
if TYPE_CHECKING:
    from typing import Any


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("services", metavar="SERVICE", nargs="*", help="only these, and what they depend on")
    targets.register_files(parser)
    parser.add_argument("--format", choices=["yaml", "json"], default=None, help="yaml if nothing is said")
    for name, text in _LISTS.items():
        parser.add_argument(f"--{name}", dest="what", action="append_const", const=name, default=[], help=text)
    parser.add_argument("--hash", metavar="SERVICES", help="print SERVICE HASH of these (A,B or '*')")
    parser.add_argument("--no-interpolate", action="store_true", help="leave variables as they are written")
    parser.add_argument("-q", "--quiet", action="store_true", help="print nothing, only tell what is wrong")
    parser.add_argument("-o", "--output", metavar="FILE", help="write to FILE")


def run(arguments: argparse.Namespace) -> int:
    if len(arguments.what) + bool(arguments.hash) > 1:
        raise UserError("cannot print two lists at once", code="usage", hint="one command for each")
    raw = arguments.no_interpolate or "variables" in arguments.what
    composed = targets.read(arguments, services=arguments.services, interpolated=not raw)
    for warning in composed.warnings:
        print(f"note  {warning}", file=sys.stderr)
    printed = _text(arguments, composed)
    if arguments.quiet:
        return 0
    if arguments.output is None:
        sys.stdout.write(printed)
        return 0
    try:
        with open(arguments.output, "w", encoding="utf-8") as file:  # noqa: PTH123 (pathlib is slow to load)
            file.write(printed)
    except OSError as error:
        raise UserError(
            f"cannot write {arguments.output}: {error.strerror}", code="output-failed", hint="choose another file"
        ) from error
    return 0


def _text(arguments: argparse.Namespace, composed: Any) -> str:
    what = arguments.what[0] if arguments.what else None
    if what == "variables":
        return _variables(arguments.format, composed)
    if what == "environment":
        return _lines(f"{name}={value}" for name, value in sorted(composed.variables.items()))
    if what == "profiles":
        from orchestrator.compose.nodes import fields, items, text

        services = fields(fields(composed.everything).get("services")).values()
        return _lines(sorted({text(item) or "" for node in services for item in items(fields(node).get("profiles"))}))
    document = composed.document(models=arguments.format != "json")
    services = document.get("services", {})
    if arguments.hash:
        return _hashes(arguments.hash, document)
    if what == "images":
        named = (services[name].get("image") or f"{composed.name}-{name}" for name in sorted(services))
        return _lines(named)
    if what:
        return _lines(sorted(document.get(what) or ()))
    from orchestrator.compose import printed

    ready = document if arguments.no_interpolate else printed.escaped(document)
    return printed.as_json(ready) if arguments.format == "json" else printed.as_yaml(ready)


def _lines(lines: Any) -> str:
    return "".join(f"{line}\n" for line in lines)


def _hashes(wanted: str, document: dict[str, Any]) -> str:
    from orchestrator.compose.hashes import service_hash

    services = document.get("services", {})
    names = sorted(services if wanted == "*" else set(wanted.split(",")))
    for name in names:
        if name not in services:
            raise UserError(
                f"cannot find the service {name}: the files have none of that name",
                code="usage",
                hint=f"they have {', '.join(sorted(services))}",
            )
    return _lines(f"{name} {service_hash(document, name)}" for name in names)


def _variables(style: str | None, composed: Any) -> str:
    from orchestrator.compose.variables import variables

    found = variables(composed.everything)
    if style is None:
        rows = [("NAME", "REQUIRED", "DEFAULT VALUE", "ALTERNATE VALUE")]
        rows += [(one.name, str(one.required).lower(), one.default, one.alternate) for one in found]
        widths = [max(20, *(len(row[column]) + 3 for row in rows)) for column in range(3)]
        return _lines("".join(map(str.ljust, row, widths)) + row[3] for row in rows)
    from orchestrator.compose import printed

    keys = ("Name", "Required", "DefaultValue", "PresenceValue")
    documents = {one.name: dict(zip(keys, one, strict=True)) for one in found}
    if style == "json":
        return printed.as_json(documents)
    return printed.as_yaml({name: {k.lower(): v for k, v in one.items()} for name, one in documents.items()})


_LISTS = {
    "services": "print the names of the services",
    "images": "print the image of each service",
    "volumes": "print the names of the volumes",
    "networks": "print the names of the networks",
    "profiles": "print all profiles of the services",
    "variables": "print the variables the files ask for, and their defaults",
    "environment": "print the variables that there are, NAME=VALUE",
}
