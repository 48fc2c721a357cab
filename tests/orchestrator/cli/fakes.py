"""A daemon that says what a test wants: answers by method and path, on a real unix socket; and documents to say."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections import deque
from pathlib import Path
from typing import Any

Answer = Any  # a document, or a list of documents (NDJSON; bytes as they are), or (status, document); or a deque of these, one a request


class FakeDaemon:
    """Serves one request per connection. `asked` holds (method, target, body)."""

    def __init__(self, root: Path, answers: dict[tuple[str, str], Answer] | None = None) -> None:
        self.root = root
        self.answers = answers or {}
        self.asked: list[tuple[str, str, Any]] = []
        self.held = threading.Event()  # set: streams that end with HOLD go on
        path = root / "run" / "api" / "gorae.sock"
        path.parent.mkdir(parents=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen()
        self._talks = list[threading.Thread]()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def close(self) -> None:
        self.held.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        for thread in (self._thread, *self._talks):
            thread.join()
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._talks.append(threading.Thread(target=self._talk, args=(connection,)))
            self._talks[-1].start()

    def _talk(self, connection: socket.socket) -> None:
        # The client may leave, also before what was written is flushed at the end.
        with contextlib.suppress(ConnectionError), connection, connection.makefile("rwb") as file:
            self._answer(file)

    def _answer(self, file: Any) -> None:
        words = file.readline().decode().split()
        if not words:
            return  # the client has left without a word
        method, target, _ = words
        length = 0
        while (line := file.readline().strip()) != b"":
            name, _, value = line.partition(b":")
            if name.lower() == b"content-length":
                length = int(value)
        body = json.loads(file.read(length)) if length else None
        self.asked.append((method, target, body))
        answer = self.answers.get((method, target.partition("?")[0]))
        status = 200
        if isinstance(answer, deque):
            answer = answer.popleft()
        if answer is None:
            status, answer = 404, error(f"cannot find {target}", code="path-unknown")
        elif isinstance(answer, tuple):
            status, answer = answer
        if answer is CUT:
            file.write(b'HTTP/1.1 200 X\r\nContent-Length: 99\r\n\r\n{"stacks": [')
            return
        file.write(b"HTTP/1.1 %d X\r\nconnection: close\r\n\r\n" % status)
        for document in answer if isinstance(answer, list) else [answer]:
            if document is HOLD:
                file.flush()
                self.held.wait(10)
            else:
                file.write(document if isinstance(document, bytes) else json.dumps(document).encode() + b"\n")
                file.flush()


HOLD = object()
CUT = object()  # the daemon is killed while it answers


def error(message: str, *, code: str = "some-code", hint: str = "", kind: str = "user") -> dict[str, Any]:
    return {"error": {"kind": kind, "code": code, "message": message, "hint": hint, "evidence": {}}}


def task(slot: int = 1, **more: Any) -> dict[str, Any]:
    return {
        **{"id": f"t{slot:011}", "slot": slot, "state": "running", "health": "none", "attempt": 1, "restarts": 0},
        **{"since": 940.0, "started_at": 940.0, "pid": 4711, "address": "10.181.0.16", "exit_code": None},
        **{"oom": False, "reason": "", "message": "", "evidence": {}, "next_at": None, "ports": []},
        **more,
    }


def service(name: str, *tasks: dict[str, Any], **more: Any) -> dict[str, Any]:
    tasks = tasks or (task(),)
    ready = sum(t["state"] == "running" and t["health"] in ("none", "healthy") for t in tasks)
    return {
        **{"name": name, "replicas": len(tasks), "ready": ready, "state": tasks[0]["state"]},
        **{"health": tasks[0]["health"], "since": 940.0, "reason": tasks[0]["reason"], "message": tasks[0]["message"]},
        **{"ports": [], "image": "redis:7", "failed": False, "tasks": list(tasks)},
        **more,
    }


def stack(name: str, *services: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        **{"name": name, "generation": 3, "observed_generation": 3, "revision": 2, "converged": True},
        **{"state": "running", "services": list(services)},
        **more,
    }


def document(*stacks: dict[str, Any], online: bool = True, at: float = 1000.0) -> dict[str, Any]:
    return {"version": 1, "at": at, "agent": {"online": online, "since": 900.0}, "stacks": list(stacks)}
