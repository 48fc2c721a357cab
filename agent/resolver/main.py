"""gorae-resolver: `python -m agent.resolver.main SOCKET`. Answers the tasks' look-ups; root parses nothing they send.

Started as root, it makes the socket the agent will call on, then gives up every privilege before it takes the first
packet. It keeps no state that the agent could not hand over again.
"""

from __future__ import annotations

import os
import pwd
import resource
import signal
import socket
import sys

from agent.kit import syscalls
from agent.resolver.cache import Cache
from agent.resolver.control import Control
from agent.resolver.forward import Forwarder
from agent.resolver.loop import Loop
from agent.resolver.server import Server
from agent.resolver.servers import Servers

USER, INSTEAD = "gorae-resolver", (65534, 65534)  # nobody, on a host without that user
DESCRIPTORS = 16384  # two per task, and what is under way


def main(path: str) -> int:
    parent = os.getppid()
    listener = listening(path)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, DESCRIPTORS)), hard))
    give_up_privileges()
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)  # only now: a change of uid clears it
    if os.getppid() != parent:
        return 0
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing to tidy up: the agent has the sockets too
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    loop = Loop()
    server = Server(loop, Forwarder(loop, Servers(), Cache()))
    Control(loop, listener, server, lambda text: print(f"gorae-resolver: {text}", file=sys.stderr, flush=True))
    while True:
        loop.run_once()


def listening(path: str) -> socket.socket:
    """The socket for the agent: root's alone. OSError."""
    if os.path.lexists(path):
        os.unlink(path)  # noqa: PTH108  (pathlib alone would cost memory)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    before = os.umask(0o177)
    try:
        listener.bind(path)
    finally:
        os.umask(before)
    listener.listen(4)
    return listener


def give_up_privileges() -> None:
    if os.geteuid() == 0:
        try:
            entry = pwd.getpwnam(USER)
            uid, gid = entry.pw_uid, entry.pw_gid
        except KeyError:
            uid, gid = INSTEAD
        os.setgroups([])
        os.setresgid(gid, gid, gid)
        os.setresuid(uid, uid, uid)
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
