"""A front before a test registry: counts what is fetched, and fails as real registries do."""

from __future__ import annotations

import contextlib
import threading
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Fault = Literal["429", "500", "503", "cut", "hang up", "other bytes"]


@dataclass
class Front:
    """`faults`: what the next GETs of blobs meet, first to last. `gate`: cleared, blobs of more than 1000 bytes
    stand still at half."""

    host: str
    fetched: Counter[str] = field(default_factory=Counter)  # digest → complete GETs of that blob
    faults: list[Fault] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    halfway: threading.Event = field(default_factory=threading.Event)  # a blob stands at half


@contextlib.contextmanager
def front(registry: str) -> Iterator[Front]:
    """For GET and HEAD, which is all a pull does. `registry`: HOST:PORT, plain HTTP."""

    class Handler(BaseHTTPRequestHandler):
        server_front: Front

        def do_GET(self) -> None:
            blob = self.path.rpartition("/blobs/")[2] if "/blobs/" in self.path else ""
            fault = self.server_front.faults.pop(0) if blob and self.server_front.faults else None
            if fault in ("429", "500", "503"):
                self.send_error(int(fault))
                return
            if fault == "hang up":
                self.close_connection = True
                self.connection.close()
                return
            names = {name.lower() for name in self.headers} - {"host"}
            headers = {name: ", ".join(self.headers.get_all(name) or ()) for name in names}
            request = urllib.request.Request(f"http://{registry}{self.path}", headers=headers, method=self.command)
            try:
                answer = urllib.request.urlopen(request, timeout=10)
            except urllib.error.HTTPError as error:
                answer = error
            with answer:
                body = answer.read()
                self.send_response(answer.status or 500)
                for key, value in answer.headers.items():
                    if key.lower() not in ("connection", "transfer-encoding"):
                        self.send_header(key, value)
                self.end_headers()
            if fault == "other bytes":
                body = bytes(byte ^ 1 for byte in body)
            half = len(body) // 2 if blob and self.command == "GET" else len(body)
            self.wfile.write(body[:half])
            if fault == "cut":
                self.close_connection = True
                return
            if half < len(body):
                self.wfile.flush()
                if len(body) > 1000 and not self.server_front.gate.is_set():
                    self.server_front.halfway.set()
                    self.server_front.gate.wait(30)
                self.wfile.write(body[half:])
            if blob and self.command == "GET":
                self.server_front.fetched[blob] += 1

        do_HEAD = do_GET

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, *_: object) -> None:
            pass  # a client that went away, as it may

    with Server(("127.0.0.1", 0), Handler) as server:
        made = Front(f"127.0.0.1:{server.server_address[1]}")
        made.gate.set()
        Handler.server_front = made
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield made
        finally:
            made.gate.set()
            server.shutdown()
            thread.join()
