"""Build the images of the services that have a build section, and give them to the daemon; needs buildah.

buildah runs with your own rights and files, and keeps what it has built as its cache; its own commands (buildah images,
buildah rmi) show and clear that. SERVICE: only these.

FROM finds images of registries and those that buildah has. One that only gorae has (loaded or imported) is handed over
with gorae image save NAME -o FILE, then buildah pull docker-archive:FILE.
"""

from __future__ import annotations

import argparse

from agent.kit.errors import UserError
from orchestrator.cli import building, targets
from orchestrator.cli.client import Client
from orchestrator.cli.render import Screen, count


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "services", metavar="SERVICE", nargs="*", help="all that have a build section, if none is named"
    )
    targets.register_files(parser)
    building.register(parser)


def run(arguments: argparse.Namespace) -> int:
    targets.load(arguments)  # refuses what up would refuse
    project = targets.read(arguments).document()
    services = building.buildable(project)
    for name in arguments.services:
        if name not in services:
            what = "has no build section" if name in project["services"] else "is no service of these files"
            raise UserError(f"cannot build {name}: it {what}", code="not-buildable", hint="gorae config --services")
    chosen = [name for name in services if not arguments.services or name in arguments.services]
    building.build(arguments, project, chosen, Client(arguments.root), Screen())
    print(f"stack {project['name']}: {count(len(chosen), 'image')} built")
    return 0
