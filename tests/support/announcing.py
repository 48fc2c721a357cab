"""An HTTP/1.1 server that keeps connections open and announces its end: from SIGTERM on each answer says that it is the
last one of its connection, and the server ends when none is left. Runs in the sample image, whose Python is small."""

import os
import signal
import socket
import threading
import time

closing = threading.Event()
BODY = os.environ.get("WHAT", "").encode()


def serve(connection: socket.socket) -> None:
    data = b""
    with connection:
        while True:
            while b"\r\n\r\n" not in data:
                got = connection.recv(65536)
                if not got:
                    return
                data += got
            head, _, data = data.partition(b"\r\n\r\n")
            last = closing.is_set() or b"connection: close" in head.lower()
            how = b"close" if last else b"keep-alive"
            connection.sendall(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: %b\r\n\r\n" % (len(BODY), how) + BODY
            )
            if last:
                return


def leave() -> None:
    while threading.active_count() > 2:  # the main thread and this one
        time.sleep(0.01)
    os._exit(0)


def end(*_: object) -> None:
    closing.set()
    threading.Thread(target=leave).start()


def main() -> None:
    signal.signal(signal.SIGTERM, end)
    listener = socket.create_server(("", 8000), backlog=128)
    while True:
        connection, _ = listener.accept()
        threading.Thread(target=serve, args=(connection,)).start()


if __name__ == "__main__":
    main()
