"""A resolver in memory: who is served, and what it would have been told."""

from __future__ import annotations

from collections.abc import Callable


class FakeResolver:
    """`failures`: method → the error its next call raises."""

    def __init__(self) -> None:
        self.served: set[str] = set()
        self.failures: dict[str, Exception] = {}
        self._zone: Callable[[], str] = lambda: "{}"

    @property
    def zone(self) -> str:
        return self._zone()

    def tell(self, zone: Callable[[], str]) -> None:
        self._zone = zone

    async def serve(self, task: str) -> None:
        if error := self.failures.pop("serve", None):
            raise error
        self.served.add(task)

    async def drop(self, task: str) -> None:
        self.served.discard(task)
