"""Every path gorae owns on the host, in one place. `--root DIR` (or GORAE_ROOT) moves all of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Layout:
    """state: survives reboots. run: tmpfs, gone at reboot. etc: configuration.

    Both state and run are 0711: the mapped root of a container must be able to pass through to its rootfs.
    Keep DIR short: unix socket paths end at 107 bytes.
    """

    state: Path
    run: Path
    etc: Path

    @classmethod
    def at(cls, root: str | Path | None = None) -> Layout:
        if root is None:
            root = os.environ.get("GORAE_ROOT") or None
        if root is None:
            return cls(Path("/var/lib/gorae"), Path("/run/gorae"), Path("/etc/gorae"))
        base = Path(root).absolute()
        return cls(base / "state", base / "run", base / "etc")

    @property
    def settings(self) -> Path:  # what the operator may set (settings.py)
        return self.etc / "gorae.toml"

    # state
    @property
    def instance_file(self) -> Path:
        return self.state / "instance"

    @property
    def orchestrator_dir(self) -> Path:  # owned by user gorae
        return self.state / "orchestrator"

    @property
    def database(self) -> Path:
        return self.orchestrator_dir / "orchestrator.db"

    @property
    def agent_dir(self) -> Path:  # root, 0700
        return self.state / "agent"

    @property
    def journal(self) -> Path:
        return self.agent_dir / "journal.db"

    @property
    def images(self) -> Path:  # blobs/, layers/
        return self.state / "images"

    @property
    def volumes(self) -> Path:
        return self.state / "volumes"

    @property
    def tasks(self) -> Path:  # TASK/upper, TASK/work: the writable layer
        return self.state / "tasks"

    @property
    def logs(self) -> Path:  # STACK/SERVICE/TASK.log
        return self.state / "logs"

    # etc
    @property
    def registry_logins(self) -> Path:  # of gorae login: containers-auth.json(5), root's alone
        return self.etc / "auth.json"

    # run
    @property
    def api_dir(self) -> Path:  # owned by user gorae
        return self.run / "api"

    @property
    def api_socket(self) -> Path:
        return self.api_dir / "gorae.sock"

    @property
    def agent_socket(self) -> Path:
        return self.run / "agent.sock"

    @property
    def bus_dir(self) -> Path:  # generated broker configuration, per-role credentials
        return self.run / "bus"

    @property
    def bus_socket(self) -> Path:
        return self.bus_dir / "bus.sock"

    @property
    def run_tasks(self) -> Path:  # TASK/{ns/user,ns/net,rootfs,hosts,resolv.conf}, TASK/ATTEMPT/ = OCI bundle
        return self.run / "tasks"

    @property
    def resolver_socket(self) -> Path:  # root's alone; the resolver listens, the agent calls
        return self.run / "resolver.sock"

    @property
    def zone(self) -> Path:  # what the resolver answers by itself
        return self.run / "zone.json"

    @property
    def exits(self) -> Path:  # conmon's exit files
        return self.run / "exits"

    @property
    def crun_root(self) -> Path:
        return self.run / "crun"

    @property
    def locks(self) -> Path:
        return self.run / "locks"
