"""The agent's word to the resolver. Only root reaches this socket; the latest connection is the agent's."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable

from agent.resolver import message
from agent.resolver.loop import Loop
from agent.resolver.server import Server
from agent.resolver.zone import Zone

_PATIENCE = 1.0  # seconds; the agent reads at once, so this ends a wait for one that is stopped


class Control:
    def __init__(self, loop: Loop, listener: socket.socket, server: Server, log: Callable[[str], None]) -> None:
        self._loop, self._listener, self._server, self._log = loop, listener, server, log
        self._agent: socket.socket | None = None
        listener.setblocking(False)
        loop.add(listener.fileno(), self._accept)

    def _accept(self, events: int) -> None:
        try:
            agent, _ = self._listener.accept()
        except OSError:
            return
        self._leave()
        agent.settimeout(_PATIENCE)
        try:
            for task, room in self._server.tasks.items():
                message.send(agent, {"task": task, "space": room.space}, (room.udp.fileno(), room.tcp.fileno()))
            message.send(agent, {"ready": True})
        except OSError as error:
            self._log(f"cannot tell the agent what is served: {error}")
            agent.close()
            return
        agent.setblocking(False)
        self._agent = agent
        self._loop.add(agent.fileno(), self._hear)

    def _leave(self) -> None:
        if self._agent is not None:
            self._loop.remove(self._agent.fileno())
            self._agent.close()
            self._agent = None

    def _hear(self, events: int) -> None:
        assert self._agent is not None
        try:
            received = message.receive(self._agent)
        except BlockingIOError:
            return
        except OSError as error:
            self._log(f"cannot hear the agent: {error}")
            received = None
        if received is None:
            self._leave()
            return
        self._obey(*received)

    def _obey(self, said: dict[str, object], descriptors: list[int]) -> None:
        if "task" in said and len(descriptors) == 2:
            udp, tcp = (socket.socket(fileno=descriptor) for descriptor in descriptors)
            self._server.serve(str(said["task"]), str(said["space"]), udp, tcp)
            return
        try:
            if "drop" in said:
                self._server.drop(str(said["drop"]))
            elif "zone" in said and len(descriptors) == 1:
                self._read(descriptors[0])
            else:
                self._log(f"the agent says what is not understood: {sorted(said)}")
        finally:
            for descriptor in descriptors:
                os.close(descriptor)

    def _read(self, descriptor: int) -> None:
        try:
            with os.fdopen(os.dup(descriptor)) as file:
                self._server.zone = Zone(file.read())
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            self._log(f"cannot read the names, those before go on: {error!r}")
