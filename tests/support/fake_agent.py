"""An agent without containers: its journal, its bus flows and its socket, scripted by tests.

It follows the contract of agent/wire: obeys one store, keeps everything at an unknown one and reports, acknowledges
tombstones, keeps events until the cursor has passed them. `starts` is the proof that nothing was restarted.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from agent.kit.errors import GoraeError, Temporary
from agent.kit.ids import Ulids
from agent.wire import topics
from agent.wire.bus import Bus, BusDown, Message, Session
from agent.wire.frames import Duplex, take_over
from agent.wire.messages import (
    Assignment,
    Cursor,
    Event,
    EventBatch,
    HostStatus,
    Listener,
    Online,
    PublishedPort,
    Report,
    StackStatus,
    Store,
    Task,
    TaskStatus,
)


class Broker(Protocol):
    def bus(self, role: str) -> Bus: ...


class FakeAgent:
    """What survives a restart is in attributes; `run` is one life. `auto`: tasks become what they should be at once."""

    def __init__(self, broker: Broker, *, auto: bool = True) -> None:
        self.broker = broker
        self.auto = auto
        self.bound: str | None = None
        self.journal_id = "journal-1"
        self.epoch = 0
        self.seq = 0
        self.assignments: dict[str, Assignment] = {}
        self.events: list[tuple[int, Event]] = []
        self.forgotten = 0
        self.starts: list[str] = []
        self.running: dict[str, TaskStatus] = {}
        self.listeners: tuple[Listener, ...] = ()
        self.firewalls: tuple[str, ...] = ()
        self.deaf: set[str] = set()  # stacks whose assignments are lost on the way
        self.withhold = False  # reports are not sent
        self.accepted: list[tuple[str, int]] = []
        self.images: dict[str, str] = {}  # loaded here, of no registry: name → id
        self.published: dict[str, str] = {}  # name → what a registry has under it now, where it has moved
        self.missing: dict[str, GoraeError] = {}
        self.usage: dict[str, Any] = {"images": 0, "unused": 0, "free": 100, "total": 100}
        self.latest: dict[str, dict[str, Any]] = {}  # answers about what registries have, where they are odd
        self.volumes: dict[str, dict[str, str]] = {}  # name → driver options
        self.requests: list[dict[str, Any]] = []
        self.batches: list[bytes] = []  # of logs, encoded
        self.answers: dict[str, list[dict[str, Any]]] = {}  # operation → what is said, line by line
        self.conversations: dict[str, Callable[[Duplex], Awaitable[None]]] = {}
        self.hang = asyncio.Event()  # set: a `logs` with follow ends
        self.pulling = False  # an `ensure` hangs as well
        self._ulids = Ulids()
        self._session: Session | None = None
        self._changed = asyncio.Event()

    # A life ----------------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def life(self, socket: Path | None = None) -> AsyncIterator[FakeAgent]:
        self.epoch += 1
        self.seq = 0
        server = await asyncio.start_unix_server(self._serve, str(socket)) if socket else None
        task = asyncio.create_task(self._run())
        try:
            yield self
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if server is not None and socket is not None:
                server.close()
                socket.unlink(missing_ok=True)

    async def _run(self) -> None:
        will = Message(topics.ONLINE, Online(online=False, epoch=self.epoch).model_dump_json().encode(), retain=True)
        while True:
            try:
                async with self.broker.bus("agent").session(topics.FROM_ORCHESTRATOR, will) as session:
                    self._session = session
                    await self._say(topics.ONLINE, Online(online=True, epoch=self.epoch))
                    await self.tell_host()
                    for stack in self.assignments:
                        await self.tell(stack)
                    await self._send_events(self.forgotten)
                    async for message in session.messages():
                        if message.payload:
                            await self._take(message)
                        self._changed.set()
            except BusDown:
                await asyncio.sleep(0.01)
            finally:
                self._session = None

    async def until(self, test: Callable[[], object], timeout: float = 5.0) -> None:
        async with asyncio.timeout(timeout):
            while not test():
                self._changed.clear()
                await self._changed.wait()

    # In --------------------------------------------------------------------------------------------------------------

    async def _take(self, message: Message) -> None:
        if message.topic == topics.STORE:
            await self._store(Store.model_validate_json(message.payload))
        elif message.topic == topics.CURSOR:
            cursor = Cursor.model_validate_json(message.payload)
            if cursor.journal_id == self.journal_id:
                self.forgotten = max(self.forgotten, cursor.seq)
                await self._send_events(cursor.seq)
        else:
            await self._assign(Assignment.model_validate_json(message.payload))

    async def _store(self, store: Store) -> None:
        if store.store_id == self.bound:
            return
        if self.bound is None or self.bound in store.adopts:
            for stack in self.assignments:
                await self._clear(topics.report(stack))
            self.bound = store.store_id
            self.assignments = {
                name: a.model_copy(update={"store_id": self.bound}) for name, a in self.assignments.items()
            }
            await self.tell_host()
            for stack in self.assignments:
                await self.tell(stack)
            return
        for stack, assignment in self.assignments.items():
            if self.withhold:
                break
            await self._say(topics.report(stack), Report(bound_store_id=self.bound, assignment=assignment))

    async def _assign(self, assignment: Assignment) -> None:
        if assignment.store_id != self.bound or assignment.stack in self.deaf:
            return
        kept = self.assignments.get(assignment.stack)
        if kept is not None and assignment.generation <= kept.generation:
            return
        self.accepted.append((assignment.stack, assignment.generation))
        before = kept.tasks if kept else ()
        for task in before:
            if assignment.removed or task.id not in {t.id for t in assignment.tasks}:
                self.running.pop(task.id, None)
        if assignment.removed:
            self.assignments.pop(assignment.stack, None)
            await self._say(topics.status(assignment.stack), self._status(assignment))
        else:
            self.assignments[assignment.stack] = assignment
            if self.auto:
                for task in assignment.tasks:
                    self.running[task.id] = self._become(task)
            await self.tell(assignment.stack)
        await self.tell_host()

    def _become(self, task: Task) -> TaskStatus:
        old = self.running.get(task.id)
        if task.desired == "running" and (
            old is None or old.state != "running" or old.restart_request < task.restart_request
        ):
            self.starts.append(task.id)
        health = "healthy" if task.policy.healthcheck else "none"
        ports = tuple(
            PublishedPort(target=p.target, published=p.published or 40000 + p.target, protocol=p.protocol)
            for p in task.container.ports
        )
        return TaskStatus(
            id=task.id,
            service=task.service,
            slot=task.slot,
            template=task.template,
            state="running" if task.desired == "running" else "stopped",
            reason="host-drained" if task.desired == "drained" else "",
            health=health if task.desired == "running" else "none",
            attempt=1,
            since=1_700_000_000.0,
            pid=4711,
            address="10.181.0.16",
            ports=ports,
            restart_request=task.restart_request,
        )

    # Out -------------------------------------------------------------------------------------------------------------

    def _status(self, assignment: Assignment) -> StackStatus:
        self.seq += 1
        return StackStatus(
            store_id=assignment.store_id,
            stack=assignment.stack,
            observed_generation=assignment.generation,
            epoch=self.epoch,
            seq=self.seq,
            removed=assignment.removed,
            tasks=tuple(self.running[task.id] for task in assignment.tasks if task.id in self.running),
        )

    async def tell(self, stack: str) -> None:
        """Publish the status of a stack."""
        await self._say(topics.status(stack), self._status(self.assignments[stack]))

    async def tell_host(self) -> None:
        self.seq += 1
        await self._say(
            topics.HOST,
            HostStatus(
                instance="0badcafe",
                bound_store_id=self.bound,
                journal_id=self.journal_id,
                epoch=self.epoch,
                seq=self.seq,
                version="0.1.0",
                boot_id="boot",
                kernel="6.1",
                cgroup="v2",
                cpus=2,
                memory=4 << 30,
                listeners=self.listeners,
                stacks={name: a.generation for name, a in self.assignments.items()},
            ),
        )

    async def set(self, stack: str, service: str, **fields: Any) -> None:
        """Change what runs, and say so."""
        for task in self.assignments[stack].tasks:
            if task.service == service:
                self.running[task.id] = self.running[task.id].model_copy(update=fields)
        await self.tell(stack)

    async def emit(self, kind: str, **fields: Any) -> Event:
        """One event into the journal, and out if the bus is there."""
        event = Event(id=self._ulids.next(), at=1_700_000_000.0 + len(self.events), kind=kind, **fields)
        self.events.append(((self.events[-1][0] if self.events else 0) + 1, event))
        await self._send_events(self.events[-1][0] - 1)
        return event

    async def _send_events(self, after: int) -> None:
        batch = tuple((seq, event) for seq, event in self.events if seq > after)
        if batch and self._session is not None:
            await self._say(topics.EVENTS, EventBatch(journal_id=self.journal_id, after=after, events=batch), False)

    async def _say(self, topic: str, value: Any, retain: bool = True) -> None:
        if self._session is not None:
            try:
                await self._session.publish(topic, value.model_dump_json().encode(), retain=retain)
            except BusDown:
                pass  # the session loop sees it too, and says everything again
        self._changed.set()

    async def _clear(self, topic: str) -> None:
        assert self._session is not None
        await self._session.publish(topic, b"", retain=True)

    # The socket ------------------------------------------------------------------------------------------------------

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            request = json.loads(await reader.readline())
            self.requests.append(request)
            if request["op"] in self.conversations:
                writer.write(json.dumps({"ready": {"task": "t1"}}).encode() + b"\n")
                await writer.drain()
                duplex = await take_over(reader, writer)
                await self.conversations[request["op"]](duplex)
                await duplex.close()
                return
            try:
                async for answer in self._answer(request):
                    writer.write(answer if isinstance(answer, bytes) else json.dumps(answer).encode() + b"\n")
                    await writer.drain()
            except GoraeError as error:
                writer.write(json.dumps({"error": error.document()}).encode() + b"\n")
        except ConnectionError:
            pass  # the client has left
        finally:
            writer.close()

    async def _answer(self, request: dict[str, Any]) -> AsyncIterator[dict[str, Any] | bytes]:
        if request["op"] == "ensure":
            for name in request["images"]:
                if name in self.missing:
                    raise self.missing[name]
                yield {"progress": {"image": name, "step": "present"}}
            if self.pulling:
                await self.hang.wait()
            yield {"result": {name: self._resolved(name, wish) for name, wish in request["images"].items()}}
        elif request["op"] == "images":
            yield {"result": [{"id": id, "names": [name]} for name, id in self.images.items()]}
        elif request["op"] == "volumes":
            yield {"result": [{"name": name, "options": options} for name, options in self.volumes.items()]}
        elif request["op"] == "logs":
            for batch in self.batches:
                yield batch
            if request.get("follow"):
                await self.hang.wait()
            yield {"result": {}}
        elif request["op"] in self.answers:
            for answer in self.answers[request["op"]]:
                yield answer
        elif request["op"] == "surroundings":
            yield {"result": {"troubles": [], "firewalls": list(self.firewalls), "sysctls": []}}
        elif request["op"] == "listeners":
            yield {"result": [listener.model_dump(mode="json") for listener in self.listeners]}
        elif request["op"] == "image-usage":
            yield {"result": self.usage}
        elif request["op"] == "image-collect":
            yield {"result": {"removed": [], "freed": 0}}
        elif request["op"] == "save":
            yield {"data": "YXJjaGl2ZQ=="}
            yield {"result": {"bytes": 7}}
        elif request["op"] == "latest":
            yield {
                "result": {
                    name: self.latest.get(name) or {"digest": digest_of(self.published.get(name, name))}
                    for name in request["images"]
                }
            }
        elif request["op"] in _ECHOED or request["op"].startswith("volume-"):
            yield {"progress": {"step": "half"}}
            yield {"result": {key: value for key, value in request.items() if key not in ("op", "password", "keys")}}
        else:
            raise Temporary(f"cannot do {request['op']}", code="op-unknown")

    def _resolved(self, name: str, wish: dict[str, Any]) -> dict[str, str]:
        """As the store does it: a lock holds unless the policy is to move on, or somebody loaded another image."""
        if name in self.images:
            return {"id": self.images[name], "digest": ""}
        if wish["digest"] and wish["policy"] in ("missing", "never"):
            return {"id": wish["id"], "digest": wish["digest"]}
        found = self.published.get(name, name)
        return {"id": f"sha256:{found}", "digest": digest_of(found)}


_ECHOED = (
    *("pull", "load", "import", "remove", "login", "logout"),
    *("inspect", "tag", "fsck", "usage"),
)


def digest_of(name: str) -> str:
    return "sha256:" + hashlib.sha256(name.encode()).hexdigest()
