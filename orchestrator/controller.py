"""The verbs: what a user asked for → decided here, admitted and committed by applying.py. The link carries it out.

Every verb is one transaction (revision, generation, tasks, event) and is acknowledged only after it. Images are fetched
before anything changes, so that a failing pull leaves all as it was. Must not talk to the bus.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from agent.kit.errors import GoraeError, Temporary, UserError
from agent.kit.ids import task_id
from agent.wire import streams
from agent.wire.messages import Listener
from orchestrator import refusals, rolling
from orchestrator.applying import Applied, Applying, Peer
from orchestrator.compose.model import LockedImage, Stack
from orchestrator.decide import expand, rollout, runs
from orchestrator.decide.networks import settled
from orchestrator.decide.order import order
from orchestrator.decide.plan import Intent, Verb
from orchestrator.decide.ports import published_at
from orchestrator.decide.pulling import Pull, wants
from orchestrator.decide.records import Revision, StackRecord
from orchestrator.decide.staying import Others, as_they_are, beside, staying
from orchestrator.decide.staying import locks as kept_locks
from orchestrator.store.ledger import Ledger
from orchestrator.store.port import Change

Progress = Callable[[dict[str, Any]], None]
PATIENCE = 5.0  # seconds
ALL_GO = Others()


class Controller:
    """`patience`: seconds a verb waits for the agent to say what runs, as it does right after a start."""

    def __init__(
        self,
        ledger: Ledger,
        agent_socket: Path,
        *,
        new_id: Callable[[], str] = task_id,
        patience: float = PATIENCE,
        default_address: str = "",
    ) -> None:
        """`default_address`: where ports are published of which the model does not say where; "": everywhere."""
        self.default_address = default_address
        self._ledger = ledger
        self._agent = agent_socket
        self._new_id = new_id
        self._patience = patience
        self.applying = Applying(ledger, new_id)
        self._ups: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def up(
        self,
        model: Stack,
        pull: Pull,
        peer: Peer,
        progress: Progress,
        keys: Mapping[str, str] | None = None,
        *,
        others: Others = ALL_GO,
    ) -> Applied:
        """Make the stack as the model says. Two `up` of one stack are applied in the order they came in.

        keys: the asker's own for registries (agent/wire/streams.py); they go with the request and are kept nowhere.
        others: what becomes of services of the stack that the model does not have.
        """
        model = published_at(model, self.default_address)
        names = sorted({service.image for service in model.services.values()})
        expand.expand(model, dict.fromkeys(names, ""))  # refused before anybody waits, or anything is pulled for it
        services = order(model.services)
        named = frozenset(model.services)
        async with self._ups.setdefault(model.name, asyncio.Lock()):
            await self._until_bound()
            await self.check_volumes(model)
            before = self._ledger.stacks.get(model.name)
            wanted = wants(model, _locks(before), pull)
            stay = staying(before, model, others)
            if before is not None and stay:
                model = beside(before, model, stay)
                services = order(model.services)
            model = settled(model, (r.model for name, r in self._ledger.stacks.items() if name != model.name))
            locks = await self._ensure(wanted, progress, keys or {})
            if before is not None and stay:
                locks = kept_locks(before, model) | locks
            model = model.model_copy(update={"images": locks})
            desired = expand.expand(model, {image: lock.id for image, lock in locks.items()})
            publishes = any(port.published for service in model.services.values() for port in service.ports)
            listeners = await self._listeners() if publishes else None
            async with self._ledger.changing:
                record = self._ledger.stacks.get(model.name)
                if record is not None and record.removed:
                    raise refusals.removing(model.name)
                if record is not None and stay:
                    if before is None or record.model != before.model:
                        raise refusals.changed(model.name)
                    desired |= as_they_are(record, stay)
                desired |= runs.under_way(record, self.applying.resting(model.name))
                templates = {service: want.template for service, want in desired.items()}
                current = rollout.basis(record.goal, record.tasks, templates) if record else ()
                intent = Intent("up", named if stay else None)
                planned = self.applying.plan(model.name, services, desired, current, intent)
                document = model.model_dump(mode="json", exclude_defaults=True)
                return await self.applying.apply(model.name, document, planned, record, peer, "up", listeners)

    async def act(self, name: str, verb: Verb, services: Sequence[str], peer: Peer) -> Applied:
        """stop, start, restart, recreate: `services` empty means all. UserError stack-unknown, service-unknown."""
        await self._until_bound()
        async with self._ledger.changing:
            record = self._record(name)
            refusals.must_have(record, services)
            intent = Intent(verb, frozenset(services) or None)
            desired = expand.as_it_is(record.goal)
            planned = self.applying.plan(name, _order(record), desired, record.goal, intent)
            return await self.applying.apply(name, record.model, planned, record, peer, verb)

    async def kill(self, name: str, signal: str, services: Sequence[str], peer: Peer) -> int:
        """How many containers were sent it. UserError stack-unknown, service-unknown, bad-signal, nothing-runs."""
        record = self._record(name)
        refusals.must_have(record, services)
        whom = ", ".join(services) or "every service"
        event = self.applying.event("user.kill", name, peer, f"kill: {signal} to {whom}", verb="kill", signal=signal)
        async with self._ledger.changing:
            await self._ledger.commit(Change(events=[event]))
        answer = await streams.call(
            self._agent, "kill", stack=name, services=list(services), signal=signal, cause=event.id
        )
        return int(answer["signalled"])

    async def scale(self, name: str, replicas: Mapping[str, int], peer: Peer) -> Applied:
        """A new revision with other numbers of replicas: it stays until the next `up` of a file says otherwise."""
        await self._until_bound()
        record = self._record(name)
        refusals.must_have(record, replicas)
        model = _scaled(record, replicas)
        images = {task.container.image: task.container.image_id for task in record.goal}
        missing = {model.services[service].image for service in replicas} - set(images)
        if missing:
            wanted = {image: wish for image, wish in wants(model, model.images, "missing").items() if image in missing}
            locks = await self._ensure(wanted, lambda _: None, {})
            images |= {image: lock.id for image, lock in locks.items()}
        async with self._ledger.changing:
            record = self._record(name)  # it may have changed while images were fetched
            refusals.must_have(record, replicas)
            model = _scaled(record, replicas)
            desired = expand.as_it_is(record.goal)
            for service, count in replicas.items():
                image = images.get(model.services[service].image)
                if service in desired:
                    desired[service] = replace(desired[service], replicas=count)
                elif count and image is not None:
                    desired[service] = expand.service(model, service, image)
                elif count:
                    raise Temporary(
                        f"cannot scale {name}/{service}: its image was changed meanwhile",
                        code="changed",
                        hint="try again",
                    )
            planned = self.applying.plan(name, order(model.services), desired, record.goal, Intent("scale"))
            document = model.model_dump(mode="json", exclude_defaults=True)
            return await self.applying.apply(name, document, planned, record, peer, "scale")

    async def run(
        self,
        name: str,
        service: str,
        wanted: runs.Wanted,
        peer: Peer,
        *,
        once: str | None = None,
    ) -> tuple[Applied, str]:
        """A command once in a container of the service's; the name under which it runs: `once`, or one that is made."""
        await self._until_bound()
        async with self._ledger.changing:
            record = self._record(name)
            refusals.must_have(record, [service])
            if self._ledger.drained:
                raise refusals.drained(f"{name}/{service}")
            stack = Stack.model_validate(record.model)
            lock = stack.images.get(stack.services[service].image) if service in stack.services else None
            if lock is None:
                raise refusals.no_service(service, name, stack.services)
            desired = expand.as_it_is(record.goal)
            once = once or f"{service[:40]}-run-{self._new_id()[-6:]}"
            if once in desired or once in stack.services:
                raise refusals.name_taken(f"{name}/{once}")
            desired[once] = runs.run(expand.service(stack, service, lock.id), once, wanted)
            planned = self.applying.plan(name, _order(record), desired, record.goal, Intent("run"))
            return await self.applying.apply(name, record.model, planned, record, peer, "run"), once

    async def end_run(self, name: str, once: str, peer: Peer) -> Applied:
        """Stop and remove what `run` began. UserError service-unknown for what it did not."""
        async with self._ledger.changing:
            record = self._record(name)
            desired = expand.as_it_is(record.goal)
            services = record.model.get("services", {})
            if once not in desired or once in services:
                raise refusals.no_service(once, name, {*desired} - {*services})
            del desired[once]
            planned = self.applying.plan(name, _order(record), desired, record.goal, Intent("run"))
            return await self.applying.apply(name, record.model, planned, record, peer, "run")

    async def rollback(self, name: str, number: int | None, peer: Peer) -> Applied:
        """Make the stack as a revision says; None: as the last one before this that had come to its end. UserError
        revision-unknown, image-missing."""
        await self._until_bound()
        fetched = await self._revision(self._record(name), number)
        await self.have_images(Stack.model_validate(fetched.model))
        async with self._ledger.changing:
            record = self._record(name)
            revision = await self._revision(record, number)
            if revision.number != fetched.number:
                raise refusals.changed(name)
            planned = rolling.restoring(self._ledger, record, revision, self._new_id)
            return await self.applying.apply(
                name, revision.model, planned, record, peer, "rollback", restored=revision.number
            )

    async def down(self, name: str, volumes: bool, peer: Peer) -> int:
        """A tombstone, and its generation; the stack is gone when the agent has acknowledged it."""
        await self._until_bound()
        async with self._ledger.changing:
            record = self._ledger.stacks.get(name)
            if record is None:
                raise refusals.no_stack(name)
            if record.removed and (record.remove_volumes or not volumes):
                return record.generation
            self.applying.must_be_bound()
            with_volumes = ", with its volumes" if volumes else ""
            event = self.applying.event("user.down", name, peer, f"down{with_volumes} was asked for", verb="down")
            if record.held:
                await self._ledger.commit(Change(stacks={name: None}, events=[event]))
                return record.generation
            tombstone = replace(
                record,
                generation=self.applying.counter(name).generation + 1,
                tasks=(),
                removed=True,
                remove_volumes=volumes,
                cause=event.id,
                updated_at=event.at,
            )
            await self._ledger.commit(Change(stacks={name: tombstone}, events=[event]))
            return tombstone.generation

    async def drain(self, drained: bool, peer: Peer) -> dict[str, int]:
        """Take the host out of service, or back into it: stack → the generation that says so. What the stacks are to be
        stays as it is, and may be changed meanwhile."""
        await self._until_bound()
        ledger = self._ledger
        async with ledger.changing:
            kept = {name: record for name, record in ledger.stacks.items() if not record.removed and not record.held}
            if bool(ledger.drained) == drained:
                return {name: record.generation for name, record in kept.items()}
            self.applying.must_be_bound()
            kind, message = (
                ("host.drained", "the host is drained")
                if drained
                else ("host.undrained", "the host is drained no more")
            )
            said = f"{message} (by uid {peer.uid})"
            event = ledger.event(kind, said, reason="user", evidence={"uid": peer.uid})
            told = {name: ledger.event(f"user.{kind}", said, stack=name, cause=event.id) for name in kept}
            stacks = {
                name: replace(record, generation=self.applying.counter(name).generation + 1, cause=told[name].id)
                for name, record in kept.items()
            }
            events = [event, *told.values()]
            await ledger.commit(Change(stacks=stacks, events=events, drained=event.at if drained else 0.0))
            return {name: record.generation for name, record in stacks.items()}

    # Steps ---------------------------------------------------------------------------------------------------------

    async def check_volumes(self, model: Stack) -> None:
        """What must be there is, and what is there was made as the file says. UserError volume-missing, volume-differs.
        What would be made anew needs no look."""
        if any(volume.external or volume.driver_opts for volume in model.volumes.values()):
            found = await streams.call(self._agent, "volumes")
            refusals.volumes(model, {volume["name"]: volume["options"] for volume in found})

    async def _listeners(self) -> tuple[Listener, ...] | None:
        """The host's, at this moment: its message on the bus may be some seconds old. None: that must do."""
        try:
            found = await streams.call(self._agent, "listeners")
        except GoraeError:
            return None
        return tuple(Listener.model_validate(listener) for listener in found)

    def _record(self, name: str) -> StackRecord:
        record = self._ledger.stacks.get(name)
        if record is None:
            raise refusals.no_stack(name)
        if record.removed:
            raise refusals.removing(name)
        if record.held:
            raise refusals.held(name)
        return record

    async def _until_bound(self) -> None:
        """Nothing is promised before it is known whose assignments the agent obeys."""
        try:
            async with asyncio.timeout(self._patience):
                with self._ledger.listen() as bell:
                    while not self._ledger.bound:
                        bell.clear()
                        await bell.wait()
        except TimeoutError:
            self.applying.must_be_bound()

    async def _ensure(
        self, wanted: Mapping[str, Mapping[str, Any]], progress: Progress, keys: Mapping[str, str]
    ) -> dict[str, LockedImage]:
        """What each name resolved to; pulls what the policies say. UserError image-missing, Temporary agent-away …"""
        if not wanted:
            return {}
        async for kind, value in streams.request(self._agent, "ensure", images=wanted, keys=keys):
            if kind == "progress":
                progress(value)
            elif kind == "result":
                return {str(name): LockedImage.model_validate(lock) for name, lock in value.items()}
        raise Temporary("cannot fetch the images: the agent gave no answer", code="agent-away", hint="gorae doctor")

    async def _revision(self, record: StackRecord, number: int | None) -> Revision:
        kept = await self._ledger.store.revisions(record.name)
        wanted = _before(record, [revision.number for revision in kept]) if number is None else number
        revision = next((revision for revision in kept if revision.number == wanted), None)
        if revision is None:
            raise refusals.no_revision(record.name, number)
        return revision

    async def have_images(self, stack: Stack) -> None:
        """Those that a revision ran; what is gone is fetched again. UserError image-missing, Temporary agent-away …"""
        there = {image["id"] for image in await streams.call(self._agent, "images")}
        wanted = wants(stack, stack.images, "missing")
        gone = {name: wanted[name] for name, lock in stack.images.items() if name in wanted and lock.id not in there}
        for name, lock in (await self._ensure(gone, lambda _: None, {})).items():
            if lock.id != stack.images[name].id:
                raise UserError(
                    f"cannot go back to {name} as it was: that image is gone, and the name means another one now",
                    code="image-missing",
                    hint="gorae up with an image that is there",
                )


def _before(record: StackRecord, kept: Sequence[int]) -> int | None:
    if record.rollout is not None and record.rollout.back is not None:
        return record.rollout.back
    return max((number for number in kept if number < record.revision), default=None)


def _locks(record: StackRecord | None) -> dict[str, LockedImage]:
    return Stack.model_validate(record.model).images if record is not None else {}


def _order(record: StackRecord) -> tuple[str, ...]:
    return order(Stack.model_validate(record.model).services)


def _scaled(record: StackRecord, replicas: Mapping[str, int]) -> Stack:
    model = Stack.model_validate(record.model)
    services = dict(model.services)
    for service, count in replicas.items():
        services[service] = services[service].model_copy(update={"replicas": count})
    return model.model_copy(update={"services": services})
