"""Copy files and directories into a running container, or out of it. One of SRC and DST is SERVICE:PATH or
STACK/SERVICE:PATH; the other a path here, or -, a tar on standard input or output.

A directory that exists at DST gets SRC in it, or, of DIR/., what is in that; else DST becomes the copy. What comes in
belongs to the container's root, and what comes out to whoever asks and without set-user bits; with -a, owners and modes
are copied. Device nodes and sockets are left out, extended attributes are not copied. Paths in a container begin at its
root. A path here with a colon begins with / or ./
"""

from __future__ import annotations

import argparse
import os
import sys
import tarfile
from pathlib import Path
from typing import Any

from agent.kit.copying import Source, name_of, wants_content
from agent.kit.errors import UserError
from agent.kit.treepack import OPEN, TreePacker
from agent.kit.treeunpack import Owner, TreeUnpacker, place
from orchestrator.cli import targets
from orchestrator.cli.carrying import Pipe
from orchestrator.cli.client import Client, quote
from orchestrator.cli.render import count, size

_BUFFER = 256 * 1024


def register(parser: argparse.ArgumentParser) -> None:
    targets.register_files(parser, short=False)
    parser.add_argument("-a", "--archive", action="store_true", help="copy owners and modes, too")
    parser.add_argument("-L", "--follow-link", action="store_true", help="copy what SRC links to, not the link")
    parser.add_argument("--index", metavar="N", type=int, help="which of the service's containers")
    parser.add_argument("source", metavar="SRC", help="SERVICE:PATH, a path here, or -")
    parser.add_argument("destination", metavar="DST", help="the same")


def run(arguments: argparse.Namespace) -> int:
    source, destination = _remote(arguments.source), _remote(arguments.destination)
    remote = source or destination
    if remote is None or (source and destination):
        raise UserError(
            "cannot tell what to copy: one of SRC and DST is in a container, the other is here",
            code="usage",
            hint="gorae cp SERVICE:PATH . or gorae cp FILE SERVICE:PATH",
        )
    client = Client(arguments.root)
    arguments.targets = [remote[0]]
    stack, service = targets.one_service(arguments, client)
    at = f"/v1/stacks/{stack}/services/{quote(service)}"
    try:
        counts = _out(arguments, client, at, remote[1]) if source else _in(arguments, client, at, remote[1])
    except tarfile.TarError as error:
        raise UserError(f"cannot copy {arguments.source}: it is no whole tar ({error})", code="bad-archive") from error
    except BrokenPipeError:
        raise  # whoever reads our standard output has gone
    except OSError as error:
        where = error.filename or (arguments.destination if source else arguments.source)
        raise UserError(f"cannot copy {where}: {(error.strerror or str(error)).lower()}", code="not-copied") from error
    if arguments.destination != "-":
        entries = counts["entries"]
        print(f"copied {size(counts['bytes'])} in {entries} {'entry' if entries == 1 else 'entries'}")
    if counts["skipped"]:
        print(f"note  devices, sockets or files of the kernel's left out: {counts['skipped']}", file=sys.stderr)
    if counts.get("changed"):
        print(f"note  {count(counts['changed'], 'file')} changed while being read", file=sys.stderr)
    return 0


def _remote(word: str) -> tuple[str, str] | None:
    """(service, path) of SERVICE:PATH; None: it is a path here."""
    service, colon, path = word.partition(":")
    if not colon or service.startswith(("/", ".")) or not service:
        return None
    if not path:
        raise UserError(f"cannot copy {word}: it names no path", code="usage", hint=f"{word}/")
    return service, path


def _out(arguments: argparse.Namespace, client: Client, at: str, path: str) -> dict[str, Any]:
    tar_wanted = arguments.destination == "-"
    if tar_wanted and sys.stdout.isatty():
        raise UserError("cannot copy to a terminal: it would be a tar", code="usage", hint="add | tar -t")
    ask: dict[str, object] = {"path": path, "follow": arguments.follow_link, "slot": arguments.index}
    with Pipe(client.path, f"{at}/copy-out", ask) as pipe:
        if tar_wanted:
            while data := pipe.read():
                sys.stdout.buffer.write(data)
            sys.stdout.buffer.flush()
        else:
            _unpack(arguments, pipe, path)
            while pipe.read():
                pass  # what stands behind the tar's end
        return pipe.finish()


def _unpack(arguments: argparse.Namespace, pipe: Pipe, path: str) -> None:
    stream: Any = pipe
    with tarfile.open(mode="r|", fileobj=stream, bufsize=_BUFFER) as tar:
        first = tar.next()
        if first is None:
            return  # the result says that nothing was copied
        name = "" if wants_content(path) else name_of(path)
        kind: Source = "file" if not first.isdir() else "directory" if name else "content"
        base, called = place(arguments.destination, kind, name)
        owner: Owner = "archive" if arguments.archive else None
        bits = 0o7777 if arguments.archive else 0o777
        unpacker = TreeUnpacker(base, called, strip=1 if name else 0, owner=owner, bits=bits)
        try:
            unpacker.add(first, tar)
            unpacker.all(tar)
        finally:
            unpacker.close()
            os.close(base)


def _in(arguments: argparse.Namespace, client: Client, at: str, path: str) -> dict[str, Any]:
    ask: dict[str, object] = {"path": path, "archive": arguments.archive, "slot": arguments.index}
    if arguments.source == "-":
        with Pipe(client.path, f"{at}/copy-in", {**ask, "source": "archive"}) as pipe:
            while data := os.read(0, _BUFFER):
                pipe.write(data)
            return pipe.finish(end=True)
    content = wants_content(arguments.source)
    follow = arguments.follow_link or arguments.source.endswith("/") or content
    real = Path(arguments.source).resolve() if follow else Path(os.path.abspath(arguments.source))  # noqa: PTH100
    real.lstat()  # what is not there is told before anybody is asked
    name = "" if content else name_of(arguments.source) or real.name
    kind: Source = "file" if not _is_directory(real) else "directory" if name else "content"
    with Pipe(client.path, f"{at}/copy-in", {**ask, "source": kind, "name": name}) as pipe:
        stream: Any = pipe
        with tarfile.open(mode="w|", fileobj=stream, format=tarfile.PAX_FORMAT, bufsize=_BUFFER) as tar:
            packer = TreePacker(tar, lambda: None, lambda fd, found: True, xattrs=False)
            if kind == "content":
                fd = os.open(real, OPEN)
                try:
                    packer.top(fd, ".")
                finally:
                    os.close(fd)
            else:
                fd = os.open(real.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                try:
                    packer.entry(real.name, fd, name)
                finally:
                    os.close(fd)
        counts = pipe.finish(end=True)
    return {**counts, "changed": packer.counts.changed, "skipped": counts["skipped"] + packer.counts.skipped}


def _is_directory(path: Path) -> bool:
    return path.is_dir() and not path.is_symlink()
