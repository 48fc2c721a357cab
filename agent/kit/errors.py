"""The error tree.

    GoraeError            everything gorae raises on purpose
    ├── UserError         what was asked cannot be done; the user changes something and asks again
    ├── Temporary         may work later unchanged (a broker away, a registry busy): retried with backoff
    └── Permanent         will not work unchanged (no such command in the image): reported, not retried

Errors of libraries and of the system are wrapped once, at the port where they enter. A message begins "cannot …" and
names the object; `hint` is the next step for the person who reads it; `code` is a stable word for machines.
"""

from __future__ import annotations


class GoraeError(Exception):
    """`code`: stable kebab-case word. `hint`: next step, or "". `evidence`: JSON values that prove the message."""

    def __init__(self, message: str, *, code: str = "error", hint: str = "", **evidence: object) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint
        self.evidence = evidence

    def document(self) -> dict[str, object]:
        """The JSON form sent over sockets; `from_document` reads it."""
        kind = "user" if isinstance(self, UserError) else "temporary" if isinstance(self, Temporary) else "permanent"
        return {
            "kind": kind,
            "code": self.code,
            "message": self.message,
            "hint": self.hint,
            "evidence": self.evidence,
        }


class UserError(GoraeError):
    """What was asked cannot be done as asked."""


class Temporary(GoraeError):
    """May work later, unchanged."""


class Permanent(GoraeError):
    """Will not work, unchanged."""


def leaf(error: BaseException) -> BaseException:
    """The first error that task groups have wrapped."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error


def from_document(doc: dict[str, object]) -> GoraeError:
    """Rebuild an error that crossed a socket; anything malformed becomes Permanent."""
    kinds: dict[object, type[GoraeError]] = {"user": UserError, "temporary": Temporary}
    evidence = doc.get("evidence")
    return kinds.get(doc.get("kind"), Permanent)(
        str(doc.get("message", "cannot read the answer")),
        code=str(doc.get("code", "error")),
        hint=str(doc.get("hint", "")),
        **(evidence if isinstance(evidence, dict) else {}),
    )
