"""The agent's unix socket: one-shot requests and streams, which do not ride the bus.

A connection carries one request: one line of JSON `{"op": …, …}` from the client, then lines of JSON from the agent:

    {"progress": {…}}   any number, pulls and loads
    {"line": {…}}       any number
    {"batch": […]}      any number, logs; bytes follow it (batches.py)
    {"data": "…"}       any number, archives: base64
    {"result": …}       last, success
    {"error": {…}}      last, failure: kit.errors document
    {"ready": {…}}      from here on both directions carry frames (frames.py); a RESULT or ERROR frame is the last. The
                        end of what a side sends is an END frame; a side that closes its socket has gone

Operations (arguments → result):
    ping        → {"version", "instance", "epoch"}
    images      → [ImageInfo document]
    ensure      images: {NAME: {policy, after?, platform?, id?, digest?}}, keys? → {NAME: {id, digest}}
                policy missing, always, never, or refresh: what is here is trusted for `after` seconds; id and digest:
                what the stack is locked to. All pulls in parallel
    pull        name, platform?, keys? → ImageInfo
    latest      images: [NAME], keys? → {NAME: {digest} or {error}}       what the registries have now
    login       registry, user, password → {}
    logout      registry → {}
    logins      → {REGISTRY: user}
    load        path, name → [ImageInfo]                  docker-archive or oci-archive
    import      path, name, config → ImageInfo            a root file system; config: as Docker writes it
    inspect     name → {id, names, digests, manifest, platform, created, size, layers, history, config, used_by}
    tag         name, new → ImageInfo
    save        names: [NAME], format docker-archive or oci-archive → {"data": base64}*, {bytes}
    image-usage     keep: {ID: who} → {images, unused, unnamed, blobs, layers, layer_count,
                    layers_unused, layers_reclaimable, reclaimable, free, total}
    image-collect   keep: {ID: who}, unnamed?, young?, old?, bytes?, dry? → {removed: [NAME], freed}    ports.GcRule
    usage       keep: {ID: who}, named? → {kinds: {KIND: {total, active, size, reclaimable}},
                    images: [{id, names, size, used_by}], volumes: [{name, size, used_by}], log_budget, free, total,
                    tasks: [{task, stack, service, slot, state, writable, logs}]}
                    bytes on the disk; KIND: images, layers, writable, volumes, logs
    fsck        repair → {images, blobs, layers, bytes, problems: [{what, digest, why, images, used_by, done}]}
    remove      name → {"removed": [NAME], "freed": bytes}
    logs        stack?, services?: [NAME], task?, follow, since?, until?, tail?, after?: CURSOR → batches, {}
                tail: of each slot; after: where it goes on, as batches.py has it
    status      → [StackStatus document]                  for root, when the orchestrator is down
    listeners   → [Listener document]                     the host's listening sockets, at this moment
    surroundings    → {troubles: [{text, cure}], firewalls: [NAME], sysctls: [TEXT]}     ports.Surroundings
    volumes     named? → [VolumeInfo document, with "used_by": STACK/SERVICE or ""]
    volume      name, named? → the same of one, with "size": bytes on the disk
    volume-create   name, labels, options → VolumeInfo document
    volume-remove   names, named? → {"removed": [NAME], "freed": bytes}     all or none; UserError volume-in-use
    volume-prune    all, named? → {"removed", "freed", "left"}    those of nobody; without `all`, anonymous ones alone
    volume-backup   name, path, uid, gid → {"name", "path", "size", "writer", "entries", "bytes", "changed", "skipped"}
                    the file is uid's and gid's; writer: who ran on it meanwhile, so that it may not be of one moment
    volume-restore  path, name?, force → VolumeInfo document with "size", "replaced"
    kill        stack, services?: [NAME], signal?, cause? → {"signalled": number of containers}
                signal: KILL, SIGHUP, 15 …; cause: id of the event that this follows from
    exec        stack, service, slot?, command: [WORD], user?, working_dir?, environment?, tty?, size?: [ROWS, COLUMNS],
                stdin?, detach? → {"ready": {task, service, slot, attempt}}, frames, {exit_code}
                without tty stdout and stderr come apart. A client that closes ends what it runs: SIGHUP, then SIGKILL.
                detach: it begins and is left alone; exit_code is null
    attach      stack, service, slot?, wait?, size?: [ROWS, COLUMNS] → {"ready": {task, service, slot, attempt, tty,
                stdin}}, frames, {exit_code}
                the streams of the container's own program, from now on. stdin: whether it takes any. One that reads too
                slowly is let go: Temporary too-slow; the program of a run waits for it. wait: for one that is only
                coming; what is `attended` begins then
    adopt       store_id → {}                             an operator binds the agent to a store by hand
    stats       stack?, services?: [NAME], follow?, every?: seconds → lines {at, cpus, memory, tasks: [{task, stack,
                service, slot, attempt, cpus_limit, memory_limit, pids_limit, and as decide/stats.py has it}]}
                one, without rates; or one after the other
    processes   stack, services?: [NAME] → [{task, stack, service, slot, attempt, processes: [{pid, host_pid, parent,
                user, state, cpu, rss, started_at, command}]}]        runtime/processes.py
    copy-out    stack, service, slot?, path, follow? → ready {task, service, slot}; STDOUT: a tar, whose names begin
                with the last part of `path` (of DIR/. and the root, with "."), END; {entries, bytes, changed, skipped}
                follow: what a symlink leads to, not the link
    copy-in     stack, service, slot?, path, source file | directory | content | archive, name?, archive? → ready; the
                client sends STDIN: a tar, END; {entries, bytes, changed, skipped}. name: the first part of each name in
                the tar of a file or directory. kit/copying.py says where it goes. archive: owners as the tar says
    forward     stack, service, slot?, port → ready once connected; STDIN and STDOUT, END each way; {}
    containers  stack, services?: [NAME] → [what there is to say of each task, decide/inspect.py]

keys: {REGISTRY or REGISTRY/PATH: base64 of USER:PASSWORD}, the asker's own; used for this request, kept nowhere.

`named`: what stacks use of which the agent knows nothing: {volume name, "lineage:TASK" or "stack:NAME": who}
(decide/mounts.py, users).

Peer credentials are checked: uid 0 or the orchestrator's. A client that vanishes ends its request.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agent.kit.errors import Temporary, from_document
from agent.wire import batches
from agent.wire.frames import Duplex, take_over

LIMIT = 8 * 1024 * 1024  # bytes of one line
_AT_ONCE = 256 * 1024


async def request(socket: Path, op: str, **arguments: Any) -> AsyncIterator[tuple[str, Any]]:
    """Yield ("progress" | "line" | "batch" | "result", value); raises the agent's GoraeError, or Temporary if it is
    away."""
    reader, writer = await _connect(socket)
    try:
        writer.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
        await writer.drain()
        async for raw in reader:
            answer = json.loads(raw)
            if "error" in answer:
                raise from_document(answer["error"])
            kind = next(iter(answer))
            value = answer[kind]
            if kind == "batch":
                value = batches.decode(value, await reader.readexactly(batches.length(value)))
            yield kind, value
            if kind == "result":
                return
        raise Temporary("cannot finish the request: the agent ended the connection", code="agent-away")
    except (ConnectionError, asyncio.IncompleteReadError) as error:
        raise Temporary("cannot finish the request: the agent went away", code="agent-away") from error
    finally:
        writer.close()


async def raw(socket: Path, op: str, **arguments: Any) -> AsyncIterator[bytes]:
    """The answer as it comes, errors of the agent's included. Temporary if it is away at the beginning."""
    reader, writer = await _connect(socket)
    try:
        writer.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
        await writer.drain()
        while data := await reader.read(_AT_ONCE):
            yield data
    except ConnectionError:
        return  # whoever reads it sees that the end is missing
    finally:
        writer.close()


@asynccontextmanager
async def converse(socket: Path, op: str, **arguments: Any) -> AsyncIterator[tuple[Any, Duplex]]:
    """What {"ready": …} says, and the frames; closed with the block, which ends the operation. Raises as request()."""
    reader, writer = await _connect(socket)
    duplex = None
    try:
        writer.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
        await writer.drain()
        line = await reader.readline()
        answer = json.loads(line) if line else {}
        if "error" in answer:
            raise from_document(answer["error"])
        if "ready" not in answer:
            raise Temporary("cannot finish the request: the agent ended the connection", code="agent-away")
        duplex = await take_over(reader, writer)
        yield answer["ready"], duplex
    except ConnectionError as error:
        raise Temporary("cannot finish the request: the agent went away", code="agent-away") from error
    finally:
        if duplex is not None:
            await duplex.abort()
        else:
            writer.close()


async def call(socket: Path, op: str, **arguments: Any) -> Any:
    """The result alone; progress is dropped."""
    async for kind, value in request(socket, op, **arguments):
        if kind == "result":
            return value
    raise AssertionError("unreachable: request ends with a result or raises")


async def _connect(socket: Path) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    try:
        return await asyncio.open_unix_connection(str(socket), limit=LIMIT)
    except OSError as error:
        raise Temporary(
            f"cannot reach the agent at {socket}: {error.strerror or error}",
            code="agent-away",
            hint="gorae doctor",
        ) from error
