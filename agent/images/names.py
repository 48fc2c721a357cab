"""Image names as Docker reads and shows them. Pure.

Grammar: [DOMAIN[:PORT]/]PATH[:TAG][@DIGEST], https://pkg.go.dev/github.com/distribution/reference.
A first component is a domain only if it holds "." or ":", is "localhost", or has an upper-case letter; otherwise the
name is of docker.io, and there a path of one component is under library/.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from agent.images.errors import bad_name

DEFAULT_DOMAIN = "docker.io"
_LIBRARY = "library/"

_DOMAIN = re.compile(
    r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
    r"(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
)
_PATH = re.compile(r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[a-f0-9]{64}")
_ID = re.compile(r"[a-f0-9]{64}")


@dataclass(frozen=True, slots=True)
class Reference:
    """Exactly one of tag and digest counts; where both were written the digest does, and the tag is kept for show."""

    domain: str
    path: str
    tag: str | None
    digest: str | None

    @property
    def repository(self) -> str:
        return f"{self.domain}/{self.path}"

    @property
    def full(self) -> str:
        """The store's key: docker.io/library/redis:7, or …@sha256:… (without the tag)."""
        return f"{self.repository}@{self.digest}" if self.digest else f"{self.repository}:{self.tag}"

    @property
    def familiar(self) -> str:
        """As Docker shows it: redis:7."""
        path = self.path
        if self.domain != DEFAULT_DOMAIN:
            path = f"{self.domain}/{path}"
        elif path.startswith(_LIBRARY) and not _looks_like_domain(path.removeprefix(_LIBRARY)):
            path = path.removeprefix(_LIBRARY)
        return f"{path}@{self.digest}" if self.digest else f"{path}:{self.tag}"


def parse(name: str) -> Reference:
    """UserError bad-image-name, with the reason."""
    rest, at, digest = name.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        raise bad_name(name, "a digest is sha256: and 64 hexadecimal digits")
    domain, path = _split_domain(rest)
    path, colon, tag = path.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise bad_name(name, "a tag is up to 128 letters, digits, dots, dashes and underscores")
    if _ID.fullmatch(rest):
        raise bad_name(name, "64 hexadecimal digits are an image id, not a name")
    if not _PATH.fullmatch(path):
        raise bad_name(name, "it must be lower case" if path.lower() != path else "it is not well formed")
    if not _DOMAIN.fullmatch(domain):
        raise bad_name(name, f'"{domain}" is not a host name')
    if len(domain) + 1 + len(path) > 255:
        raise bad_name(name, "it is longer than 255 characters")
    return Reference(domain, path, tag or (None if digest else "latest"), digest or None)


def insecure(domain: str) -> bool:
    """Registries on loopback may speak plain HTTP, as with Docker."""
    host = domain[1 : domain.index("]")] if domain.startswith("[") else domain.partition(":")[0]
    return host in ("localhost", "::1") or re.fullmatch(r"127(\.\d{1,3}){3}", host) is not None


def _split_domain(rest: str) -> tuple[str, str]:
    first, slash, others = rest.partition("/")
    if not slash or not _looks_like_domain(first):
        domain, path = DEFAULT_DOMAIN, rest
    else:
        domain, path = first, others
    if domain == "index.docker.io":
        domain = DEFAULT_DOMAIN
    if domain == DEFAULT_DOMAIN and "/" not in path:
        path = _LIBRARY + path
    return domain, path


def _looks_like_domain(component: str) -> bool:
    first = component.partition("/")[0]
    return "." in first or ":" in first or first == "localhost" or first.lower() != first
