"""Images of `build:` sections, made by buildah (build.md): with the rights, the network and the files of the one who
asks, never the daemon's. The result stays in buildah's own storage, as its cache and as a base for other builds, and
goes to the daemon as an archive, the way of `gorae image load`.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.kit.errors import UserError
from orchestrator.cli.client import Client
from orchestrator.cli.progress import Progress
from orchestrator.cli.render import Screen

_REGISTRIES = Path("/etc/containers/registries.conf")


def register(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--no-cache", action="store_true", help="build every step anew")
    parser.add_argument("--build-arg", metavar="K=V", action="append", default=[], help="an argument of the build")


def image_name(project: Mapping[str, Any], service: str) -> str:
    return str(project["services"][service].get("image") or f"{project['name']}-{service}".lower())


def buildable(project: Mapping[str, Any]) -> list[str]:
    """Those that others build upon come first."""
    left = {name: entry["build"] for name, entry in project["services"].items() if entry.get("build")}
    order: list[str] = []
    while left:
        free = [name for name, section in left.items() if not _bases(section) & left.keys() - {name}]
        if not free:
            raise UserError(
                f"cannot build {', '.join(left)}: each waits for another",
                code="build-cycle",
                hint="additional_contexts",
            )
        order += free
        for name in free:
            del left[name]
    return order


def _bases(section: Mapping[str, Any]) -> set[str]:
    places = section.get("additional_contexts", {}).values()
    return {place.removeprefix("service:") for place in places if place.startswith("service:")}


def build(
    arguments: argparse.Namespace, project: Mapping[str, Any], services: Sequence[str], client: Client, screen: Screen
) -> None:
    """Build these and load what is new. UserError no-builder, build-failed; what the daemon says of an image."""
    if not services:
        return
    if shutil.which("buildah") is None:
        raise UserError(
            f"cannot build {', '.join(services)}: buildah is not installed",
            code="no-builder",
            hint="apt-get install buildah; or build elsewhere and gorae image load",
        )
    with tempfile.TemporaryDirectory(prefix="gorae-build-") as folder:
        id_file, archive = Path(folder, "id"), Path(folder, "image.tar")
        options = [*_registries(Path(folder)), "build", f"--iidfile={id_file}"]
        for service in services:
            section, name = project["services"][service]["build"], image_name(project, service)
            print(f"building {service} as {name}", file=sys.stderr)
            words = [*options, *command(project, service, arguments), "--", section["context"]]
            _buildah(service, words, section.get("dockerfile_inline"))
            built = id_file.read_text().strip()
            fresh = [one for one in (name, *section.get("tags", ())) if _here(client).get(_full(one)) != built]
            if fresh:
                _buildah(service, ["push", "--quiet", built, f"docker-archive:{archive}"])
            for one in fresh:
                Progress(screen).result(client.stream("POST", "/v1/images/load", {"path": str(archive), "name": one}))
            archive.unlink(missing_ok=True)


def command(project: Mapping[str, Any], service: str, arguments: argparse.Namespace) -> list[str]:
    """What buildah is asked, but for the context at its end."""
    entry = project["services"][service]
    section = entry["build"]
    platform = entry.get("platform") or next(iter(section.get("platforms", ())), "")
    words = ["--format=docker", f"--tag={image_name(project, service)}"]
    if not section.get("args") and not arguments.build_arg:
        # buildah 1.28 takes ENV A=$ARG from its cache whatever value the argument has now
        # --force-rm: else a step that fails leaves its container in buildah's storage; without --layers none is left
        words += ["--layers", "--force-rm"]
    if "BUILDAH_ISOLATION" not in os.environ:
        words.append("--isolation=chroot")  # needs no network of its own, and no rights but those to write
    words.append(f"--network={section.get('network') or 'host'}")
    words.append("--file=-" if "dockerfile_inline" in section else f"--file={_dockerfile(section)}")
    words += [f"--build-arg={name}={value}" for name, value in section.get("args", {}).items()]
    words += [f"--build-arg={pair}" for pair in arguments.build_arg]
    words += [f"--label={name}={value}" for name, value in section.get("labels", {}).items()]
    words += [f"--add-host={pair.replace('=', ':', 1)}" for pair in section.get("extra_hosts", ())]
    words += [f"--ulimit={name}={_limit(value)}" for name, value in section.get("ulimits", {}).items()]
    words += [f"--ssh={one}" for one in section.get("ssh", ())]
    words += [f"--secret={_secret(project, service, one)}" for one in section.get("secrets", ())]
    words += [
        f"--build-context={name}={_context(project, place)}"
        for name, place in section.get("additional_contexts", {}).items()
    ]
    for option, value in (
        ("target", section.get("target")),
        ("platform", platform),
        ("shm-size", section.get("shm_size")),
    ):
        words += [f"--{option}={value}"] if value else []
    words.append(f"--pull={'always' if section.get('pull') else 'false'}")
    return words + (["--no-cache"] if arguments.no_cache or section.get("no_cache") else [])


def _dockerfile(section: Mapping[str, Any]) -> str:
    """Relative to the context, if that is a folder here; buildah would take it relative to where the user stands."""
    context, name = str(section["context"]), str(section["dockerfile"])
    return os.path.join(context, name) if context.startswith("/") else name  # noqa: PTH118


def _limit(value: Any) -> str:
    return f"{value['soft']}:{value['hard']}" if isinstance(value, dict) else str(value)


def _context(project: Mapping[str, Any], place: str) -> str:
    if place.startswith("service:"):
        return "container-image://localhost/" + image_name(project, place.removeprefix("service:"))
    return str(place)


def _secret(project: Mapping[str, Any], service: str, one: Mapping[str, Any]) -> str:
    name = one["source"]
    source = project.get("secrets", {}).get(name, {})
    found = f"src={source['file']}" if source.get("file") else f"env={source.get('environment')}"
    if not source.get("file") and not source.get("environment"):
        raise UserError(
            f"cannot build {service}: the secret {name} has no file and no environment",
            code="no-secret",
            hint=f"secrets: {{{name}: {{file: …}}}}",
        )
    return f"id={one.get('target') or name},{found}"


def _registries(folder: Path) -> list[str]:
    """A name without a registry is one of docker.io, as everywhere in gorae, unless the host's registries.conf says
    where to look for those."""
    text = ""
    named = os.environ.get("CONTAINERS_REGISTRIES_CONF")
    own = os.environ.get("XDG_CONFIG_HOME") or Path("~/.config").expanduser()
    for place in (Path(named),) if named else (Path(own, "containers/registries.conf"), _REGISTRIES):
        if place.is_file():
            text = place.read_text()
            break
    try:
        if "unqualified-search-registries" in tomllib.loads(text):
            return []
    except tomllib.TOMLDecodeError:
        return []  # buildah will say what is wrong with it
    ours = folder / "registries.conf"
    ours.write_text('unqualified-search-registries = ["docker.io"]\n' + text)
    return [f"--registries-conf={ours}"]


def _buildah(service: str, words: Sequence[str], given: str | None = None) -> None:
    """`given`: for its standard input."""
    try:
        subprocess.run(["buildah", *words], check=True, stdout=sys.stderr, input=(given or "").encode())
    except subprocess.CalledProcessError as error:
        raise UserError(
            f"cannot build {service}: buildah ended with {error.returncode}; its last words are above",
            code="build-failed",
            hint="mend the Dockerfile, or what it needs",
        ) from None


def _here(client: Client) -> dict[str, str]:
    """The names of the host's images, with their ids."""
    return {name: image["id"] for image in client.get("/v1/images")["images"] for name in image["names"]}


def _full(name: str) -> str:
    return name if ":" in name.rpartition("/")[2] else f"{name}:latest"


def missing(project: Mapping[str, Any], client: Client) -> list[str]:
    """Those whose image is not on this host, and that are not to be pulled."""
    here, services = _here(client), project["services"]
    return [
        service
        for service in buildable(project)
        if services[service].get("pull_policy") in (None, "build") and _full(image_name(project, service)) not in here
    ]
