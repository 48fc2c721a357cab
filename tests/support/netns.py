"""Network namespaces for tests: a host of the test's own, tasks' rooms, other machines on its wire.

The main thread moves into a fresh namespace for the length of a test, so that neither sysctls nor tables of the
machine the tests run on are touched. A socket stays in the namespace it was made in, so servers and clients of every
namespace run in the test's own event loop.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from agent.kit import syscalls

PATIENCE = 5.0  # seconds, for what must come
SILENCE = 1.0  # seconds after which nothing is believed to come; the wires here take microseconds


class Namespace:
    """A network namespace, alive until close()."""

    def __init__(self) -> None:
        home = _here()
        syscalls.unshare(syscalls.CLONE_NEWNET)
        self.fd = _here()
        syscalls.setns(home, syscalls.CLONE_NEWNET)
        os.close(home)
        self.path = Path(f"/proc/{os.getpid()}/fd/{self.fd}")

    @contextmanager
    def inside(self) -> Iterator[None]:
        """This thread is in the namespace; never await within."""
        home = _here()
        syscalls.setns(self.fd, syscalls.CLONE_NEWNET)
        try:
            yield
        finally:
            syscalls.setns(home, syscalls.CLONE_NEWNET)
            os.close(home)

    def run(self, *command: str) -> str:
        with self.inside():
            return run(*command)

    def socket(self, kind: int = socket.SOCK_STREAM, family: int = socket.AF_INET) -> socket.socket:
        with self.inside():
            made = socket.socket(family, kind)
        made.setblocking(False)
        return made

    def close(self) -> None:
        os.close(self.fd)


def _here() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


@contextmanager
def moved() -> Iterator[Namespace]:
    """The calling thread lives in a fresh namespace with loopback up; threads and programs it starts do too."""
    home, space = _here(), Namespace()
    syscalls.setns(space.fd, syscalls.CLONE_NEWNET)
    try:
        run("ip", "link", "set", "lo", "up")
        Path("/proc/sys/net/ipv4/ip_forward").write_text("0")  # a new namespace inherits the machine's
        yield space
    finally:
        syscalls.setns(home, syscalls.CLONE_NEWNET)
        os.close(home)
        space.close()


def machine(host_address: str, address: str, link: str = "lan0") -> Namespace:
    """Another machine, on a wire of its own to the host: "192.0.2.1/24", "192.0.2.9/24". IPv6 works at once."""
    space = Namespace()
    run("ip", "link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", str(space.path))
    run("ip", "address", "add", host_address, "dev", link, *_at_once(host_address))
    run("ip", "link", "set", link, "up")
    for command in (
        " ".join((f"address add {address} dev eth0", *_at_once(address))),
        "link set eth0 up",
        "link set lo up",
    ):
        space.run("ip", *command.split())
    run("ip", "link", "show", link)  # asked for its state, the kernel first makes the end that came up before ready
    return space


def _at_once(address: str) -> tuple[str, ...]:
    return ("nodad",) if ":" in address else ()


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done.stdout


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


@asynccontextmanager
async def serving(space: Namespace, address: str, port: int, says: str) -> AsyncIterator[None]:
    """A TCP server: answers each line with "SAYS sees CLIENT" until an empty one."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while (await reader.readline()).strip():
            writer.write(f"{says} sees {writer.get_extra_info('peername')[0]}\n".encode())
        writer.close()

    listener = space.socket(family=_family(address))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if listener.family == socket.AF_INET6:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    listener.bind((address, port))
    server = await asyncio.start_server(answer, sock=listener)
    async with server:
        yield


class Talk:
    """One TCP connection of a client in `space`."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    @classmethod
    async def open(cls, space: Namespace, address: str, port: int, source: str | None = None) -> Talk:
        client = space.socket(family=_family(address))
        if source:
            client.bind((source, 0))
        try:
            await asyncio.wait_for(asyncio.get_running_loop().sock_connect(client, (address, port)), PATIENCE)
        except BaseException:
            client.close()
            raise
        return cls(*await asyncio.open_connection(sock=client))

    async def ask(self) -> str:
        self._writer.write(b"hello\n")
        return (await asyncio.wait_for(self._reader.readline(), PATIENCE)).decode().strip()

    async def close(self) -> None:
        self._writer.close()
        await self._writer.wait_closed()


async def ask(space: Namespace, address: str, port: int, source: str | None = None) -> str:
    """One question over TCP. OSError when refused or unreachable, TimeoutError when nobody answers."""
    talk = await Talk.open(space, address, port, source)
    try:
        return await talk.ask()
    finally:
        await talk.close()


async def outcome(
    space: Namespace, address: str, port: int, source: str | None = None, patience: float = SILENCE
) -> str:
    """The answer, or "refused", "unreachable", "silence"."""
    try:
        return await asyncio.wait_for(ask(space, address, port, source), patience)
    except ConnectionRefusedError:
        return "refused"
    except TimeoutError:
        return "silence"
    except OSError:
        return "unreachable"
