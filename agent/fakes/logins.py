"""Passwords in memory; `accounts` is what the registries take."""

from __future__ import annotations

from collections.abc import Mapping

from agent.images.auth import checked
from agent.images.errors import bad_login, not_logged_in


class FakeLogins:
    def __init__(self) -> None:
        self.accounts: dict[str, tuple[str, str]] = {}  # registry → (user, password)
        self.kept: dict[str, str] = {}

    async def login(self, registry: str, user: str, password: str) -> None:
        host = checked(registry)
        if self.accounts.get(host) != (user, password):
            raise bad_login(host, "invalid username/password")
        self.kept[host] = user

    def logout(self, registry: str) -> None:
        host = checked(registry)
        if host not in self.kept:
            raise not_logged_in(host)
        del self.kept[host]

    def known(self) -> Mapping[str, str]:
        return dict(self.kept)
