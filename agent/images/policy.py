"""Which image a name means this time: the one a stack is locked to, the one that is here, or the registry's. Pure.

A lock holds for what came from a registry: `up` again, a restart or another stack's pull never change the image of a
stack. What somebody loaded, imported or tagged here under the name is that person's word, and counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from agent.images import names
from agent.images.index import Index
from agent.images.lookup import named
from agent.kit.errors import Permanent
from agent.ports import PullPolicy, Wanted


def choose(want: Wanted, index: Index, now: float) -> str | None:
    """The id of the image that is here and will do; None: it must be pulled, as source() says."""
    name = named(index, want.name)
    here = index.names[name] if name else None
    if here is not None and not suits(want.platform, index.images[here.id].platform):
        here = None
    if want.policy == "always" or (want.policy == "refresh" and (here is None or here.at + want.after <= now)):
        return None
    if want.digest and not (here is not None and not here.digest):
        return want.id if want.id in index.images else None
    if here is None:
        return index_id(index, want.name)
    return here.id


def source(want: Wanted) -> str:
    """The name to pull: by the locked digest, unless the policy is to move on."""
    if want.digest and want.policy in ("missing", "never"):
        reference = names.parse(want.name)
        return f"{reference.repository}@{want.digest}"
    return want.name


def index_id(index: Index, wanted: str) -> str | None:
    """Compose files may name an image by its id."""
    found = index.find(wanted)
    return found[0] if len(found) == 1 else None


def suits(wanted: str, own: str) -> bool:
    """Whether an image of platform `own` ("" unknown) may stand for `wanted` (OS/ARCH[/VARIANT], "" any)."""
    if not wanted or not own:
        return True
    return own == wanted or own.startswith(wanted + "/")


def wanted(name: str, document: Mapping[str, Any]) -> Wanted:
    """As it comes over the agent's socket (agent/wire/streams.py). Permanent bad-request."""
    policy = document.get("policy", "missing")
    after = document.get("after", 0)
    texts = [document.get(key, "") for key in ("id", "digest", "platform")]
    if policy not in get_args(PullPolicy) or not all(isinstance(text, str) for text in texts):
        raise Permanent(f"cannot ensure {name}: no such policy {policy!r}", code="bad-request")
    return Wanted(name, policy, float(after), *texts)
