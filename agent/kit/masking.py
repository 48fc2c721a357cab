"""What a document shows of values that look like secrets: nothing. By the names of variables, and passwords in URLs.

It is for documents that are printed, copied into tickets and read by others; whoever may ask for them could read the
values elsewhere. It is no protection.
"""

from __future__ import annotations

import re
from typing import Any

HIDDEN = "•••"
_SECRET = re.compile(
    r"PASSWORD|PASSWD|PASSPHRASE|(?<![A-Z])PASS(?![A-Z])|SECRET|TOKEN|CREDENTIAL|(API|ACCESS|PRIVATE|ENCRYPTION|SIGNING|AUTH)_?KEY|_PW$|^PW$",
    re.IGNORECASE,
)
_IN_URL = re.compile(r"(?<=://)([^/@\s:]*):[^/@\s]+@")
_NAME = re.compile(r"[\w.-]+")
# Under these keys: {NAME: value}, or ["NAME=value"].
_VARIABLES = ("environment", "env", "args", "command", "entrypoint", "test")


def masked(document: Any) -> Any:
    """A JSON document with the values of such variables, and such passwords, hidden. Paths to files with secrets
    (NAME_FILE) stay."""
    if isinstance(document, dict):
        return {key: _variables(value) if key in _VARIABLES else masked(value) for key, value in document.items()}
    if isinstance(document, list | tuple):
        return [masked(one) for one in document]
    return _IN_URL.sub(rf"\1:{HIDDEN}@", document) if isinstance(document, str) else document


def _variables(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: HIDDEN if value and secret(name) else masked(value) for name, value in values.items()}
    if isinstance(values, list | tuple):
        return [_pair(one) if isinstance(one, str) else masked(one) for one in values]
    return masked(values)


def _pair(text: str) -> str:
    name, sign, value = text.partition("=")
    hidden = sign and value and _NAME.fullmatch(name) and secret(name)
    return f"{name}={HIDDEN}" if hidden else str(masked(text))


def secret(name: str) -> bool:
    return not name.upper().endswith("_FILE") and _SECRET.search(name) is not None
