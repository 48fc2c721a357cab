"""The sample web program: counts visits in redis, over plain sockets, with the modules of python3-minimal only.

    GET /        one more visit; who served it, and the count        503 when redis is away
    GET /health  200 when redis answers PING, else 503
SIGTERM: what has been accepted is served, then it ends with 0. `app.py health` asks the running server, exits 0 or 1.
"""

import os
import select
import signal
import socket
import sys
import threading

PORT = int(os.environ.get("PORT", "8000"))
REDIS = (os.environ.get("REDIS_HOST", "redis"), int(os.environ.get("REDIS_PORT", "6379")))
HOSTNAME = socket.gethostname()
PATIENCE = 5.0  # seconds for redis, and for a client between two requests
CONNECTIONS = 128  # at once
REQUEST_LIMIT = 16384  # bytes


class Redis:
    """One connection, kept; made anew when it was lost. Raises OSError when redis is away or refuses."""

    def __init__(self):
        self._socket = None

    def ask(self, *words):
        """One command, one reply that fits a line: the text after its type character."""
        kept = self._socket is not None
        try:
            return self._ask(words)
        except ConnectionError:
            self.close()
            if not kept:
                raise
        return self._ask(words)

    def _ask(self, words):
        if self._socket is None:
            self._socket = socket.create_connection(REDIS, timeout=PATIENCE)
        command = b"*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(word), word) for word in words)
        try:
            self._socket.sendall(command)
            reply = b""
            while not reply.endswith(b"\r\n"):
                piece = self._socket.recv(4096)
                if not piece:
                    raise ConnectionResetError("redis closed the connection")
                reply += piece
        except OSError:
            self.close()  # a late reply must not answer the next question
            raise
        if reply[:1] == b"-":
            raise OSError(reply[1:].decode("latin-1").strip())
        return reply[1:-2].decode("latin-1")

    def close(self):
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class Server:
    def __init__(self):
        self._stopping = threading.Event()
        self._wake, self._woken = socket.socketpair()
        self._free = threading.BoundedSemaphore(CONNECTIONS)
        self._idle = set()  # sockets that wait for their next request
        self._lock = threading.Lock()
        self._workers = set()

    def run(self):
        listener = socket.create_server(("", PORT), backlog=512)
        listener.setblocking(False)
        self._wake.setblocking(False)
        signal.set_wakeup_fd(self._wake.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._stopping.set())
        print(f"listening on port {PORT}, redis at {REDIS[0]}:{REDIS[1]}", flush=True)
        poll = select.poll()
        poll.register(listener, select.POLLIN)
        poll.register(self._woken, select.POLLIN)
        while not self._stopping.is_set():
            poll.poll()
            self._accept(listener)
        self._accept(listener)  # connections the kernel had already completed
        listener.close()
        with self._lock:
            for connection in self._idle:
                connection.shutdown(socket.SHUT_RD)
        for worker in list(self._workers):
            worker.join()
        print("stopped: every request was answered", flush=True)

    def _accept(self, listener):
        while True:
            try:
                connection, _ = listener.accept()
            except BlockingIOError:
                return
            except OSError as error:
                print(f"cannot accept: {error}", file=sys.stderr, flush=True)
                return
            self._free.acquire()
            worker = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            self._workers.add(worker)
            worker.start()

    def _serve(self, connection):
        redis = Redis()
        try:
            connection.settimeout(PATIENCE)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while self._request(connection, redis):
                pass
        except OSError:
            pass  # the client went away or is too slow: its own loss
        finally:
            redis.close()
            connection.close()
            self._free.release()
            self._workers.discard(threading.current_thread())

    def _request(self, connection, redis):
        """Serve one request; whether another may follow on this connection."""
        with self._lock:
            self._idle.add(connection)
        try:
            head = b""
            while b"\r\n\r\n" not in head:
                piece = connection.recv(4096)
                if not piece or len(head) > REQUEST_LIMIT:
                    return False
                head += piece
        finally:
            with self._lock:
                self._idle.discard(connection)
        line, _, fields = head.partition(b"\r\n")
        status, body = answer(line.split(b" "), redis)
        keep = line.endswith(b"HTTP/1.1") and b"connection: close" not in fields.lower() and not self._stopping.is_set()
        connection.sendall(
            f"HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
            f"Connection: {'keep-alive' if keep else 'close'}\r\n\r\n".encode()
            + (b"" if line.startswith(b"HEAD ") else body)
        )
        return keep


def answer(words, redis):
    """(status, body) for a request line's words."""
    if len(words) != 3:
        return "400 Bad Request", b"cannot read the request\n"
    if words[0] not in (b"GET", b"HEAD"):
        return "405 Method Not Allowed", b"only GET and HEAD\n"
    path = words[1].partition(b"?")[0]
    try:
        if path == b"/":
            return "200 OK", f"{HOSTNAME}: visit number {redis.ask(b'INCR', b'visits')}\n".encode()
        if path == b"/health":
            return "200 OK", f"{redis.ask(b'PING')}\n".encode()
    except OSError as error:
        return "503 Service Unavailable", f"cannot reach redis at {REDIS[0]}:{REDIS[1]}: {error}\n".encode()
    return "404 Not Found", b"nothing here; try /\n"


def health():
    with socket.create_connection(("127.0.0.1", PORT), timeout=PATIENCE) as connection:
        connection.sendall(b"GET /health HTTP/1.0\r\n\r\n")
        return 0 if connection.recv(64).startswith(b"HTTP/1.1 200 ") else 1


if __name__ == "__main__":
    threading.stack_size(256 * 1024)
    if sys.argv[1:] == ["health"]:
        try:
            sys.exit(health())
        except OSError as error:
            sys.exit(f"cannot reach the server: {error}")
    Server().run()
