"""Probes that need no process in the container: one GET, one connect, by the agent over the task's address."""

from __future__ import annotations

import asyncio
import re

from agent.ports import ProbeResult

_HEAD = 8 * 1024  # bytes of the status line, and of each header
_LINES = 100  # of headers
_BODY = 4 * 1024  # bytes kept of what a failing endpoint says


async def get(address: str, port: int, path: str, timeout: float) -> ProbeResult:
    """200-399 is well. Redirects are answers, not followed: a probe goes nowhere but to its task."""
    if not path.startswith("/") or any(ord(char) <= 32 or ord(char) > 126 for char in path):
        return ProbeResult(False, f"cannot ask for {path!r}: not a plain path")
    try:
        async with asyncio.timeout(timeout):
            return await _exchange(address, port, path)
    except TimeoutError:
        return ProbeResult(False, f"GET {path}: no answer within {timeout:g} s", timed_out=True)
    except (OSError, asyncio.LimitOverrunError) as error:
        return ProbeResult(False, f"GET {path}: {error}")


async def _exchange(address: str, port: int, path: str) -> ProbeResult:
    reader, writer = await asyncio.open_connection(address, port, limit=_HEAD)
    try:
        head = (f"GET {path} HTTP/1.1", f"Host: {address}:{port}", "User-Agent: gorae", "Connection: close", "", "")
        writer.write("\r\n".join(head).encode("ascii"))
        line = (await reader.readline()).split(None, 2)
        if len(line) < 2 or not line[0].startswith(b"HTTP/") or not re.fullmatch(rb"\d{3}", line[1]):
            return ProbeResult(False, f"GET {path}: the answer is not HTTP")
        code = int(line[1])
        said = f"GET {path} → {code}"
        if 200 <= code < 400:
            return ProbeResult(True, said, code)
        for _ in range(_LINES):  # headers
            if not (await reader.readline()).strip():
                body = (await reader.read(_BODY)).decode(errors="replace").strip()
                return ProbeResult(False, f"{said}\n{body}".strip(), code)
        return ProbeResult(False, said, code)  # one that goes on without end would keep the agent busy
    except ValueError:  # a line longer than the limit
        return ProbeResult(False, f"GET {path}: the answer's head is longer than {_HEAD} bytes")
    finally:
        writer.transport.abort()


async def connect(address: str, port: int, timeout: float) -> ProbeResult:
    try:
        async with asyncio.timeout(timeout):
            _, writer = await asyncio.open_connection(address, port)
    except TimeoutError:
        return ProbeResult(False, f"connect to port {port}: no answer within {timeout:g} s", timed_out=True)
    except OSError as error:
        return ProbeResult(False, f"connect to port {port}: {error.strerror or error}")
    writer.transport.abort()
    return ProbeResult(True, f"port {port} is open")
