"""Compiled seccomp filters, kept in memory: libseccomp takes 15 ms to compile the default profile, more than all the
rest of a start.

crun leaves the filter it compiled beside its state; from then on the same profile travels with that filter in the
annotation run.oci.seccomp_bpf_data (crun(1)). The profile stays in the config: a crun that no longer knows the
annotation compiles it as before, so this can make a start faster but never a container weaker.
"""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

ANNOTATION = "run.oci.seccomp_bpf_data"


class Filters:
    """Lives as long as the process: a new crun or libseccomp comes with a new start or is the same for us."""

    def __init__(self) -> None:
        self._compiled: dict[str, str] = {}  # the profile as JSON → base64

    def annotate(self, config: dict[str, Any]) -> dict[str, Any]:
        """`config`, with its compiled filter if that is known."""
        known = self._compiled.get(_key(config))
        if known is None:
            return config
        return config | {"annotations": {**config.get("annotations", {}), ANNOTATION: known}}

    def learn(self, config: dict[str, Any], state: Path) -> None:
        """After a successful `crun create`; `state`: crun's directory of the container, which only root can write."""
        key = _key(config)
        if not key or key in self._compiled:
            return
        try:
            fd = os.open(state / "seccomp.bpf", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:  # a version of crun that keeps it elsewhere
            return
        with os.fdopen(fd, "rb") as file:
            code = file.read()
        if code and len(code) % 8 == 0:  # struct sock_filter
            self._compiled[key] = base64.b64encode(code).decode()


def _key(config: dict[str, Any]) -> str:
    profile = config["linux"].get("seccomp")
    return "" if profile is None else json.dumps(profile)
