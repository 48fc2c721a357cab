"""Why something may not run on this host."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.kit.errors import UserError


@dataclass(frozen=True, slots=True)
class Refusal:
    """`code`: no-room, stack-too-large, bad-address, port-conflict, port-taken, port-in-use, address-taken,
    subnet-taken, memory-short, cpu-short."""

    code: str
    service: str
    message: str
    hint: str
    evidence: dict[str, object] = field(default_factory=dict)

    def error(self) -> UserError:
        return UserError(self.message, code=self.code, hint=self.hint, **self.evidence)
