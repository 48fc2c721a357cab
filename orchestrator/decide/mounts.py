"""The mounts of every service of a model, those it takes from other services (volumes_from) among them. Pure."""

from __future__ import annotations

from graphlib import CycleError, TopologicalSorter

from pydantic import ValidationError

from agent.kit.errors import UserError
from agent.wire import messages as wire
from agent.wire.messages import Mount
from orchestrator.compose.model import ServiceMount, Stack, Volume

MOST = 1000  # mounts of one service


class Mounts:
    """`of`: service → its mounts by target. `shares`: service → those whose images' VOLUMEs it takes, nearest last.

    UserError bad-model, bad-mount, volume-undefined, bad-volumes-from.
    """

    def __init__(self, stack: Stack) -> None:
        self.of: dict[str, dict[str, Mount]] = {}
        self.shares: dict[str, dict[str, wire.VolumesFrom]] = {}
        for name in _order(stack):
            self._take(stack, name)

    def _take(self, stack: Stack, name: str) -> None:
        """The service's own are above those it takes, the last service's above the first's."""
        service = stack.services[name]
        mounts: dict[str, Mount] = {}
        shares: dict[str, wire.VolumesFrom] = {}
        for share in service.volumes_from:
            more = (*self.shares[share.service].values(), wire.VolumesFrom(service=share.service))
            for other in more:
                shares.pop(other.service, None)
                read_only = other.read_only or share.read_only
                shares[other.service] = wire.VolumesFrom(service=other.service, read_only=read_only)
            for target, mount in self.of[share.service].items():
                if mount.kind != "tmpfs":
                    mounts[target] = _shared(mount, share.service, share.read_only)
        try:
            mounts |= {mount.target: _mount(stack, name, mount) for mount in service.mounts}
        except ValidationError as error:
            raise bad_model(f"{stack.name}/{name}", error) from error
        if len(mounts) > MOST:
            raise UserError(
                f"cannot start {stack.name}/{name}: it has {len(mounts)} mounts, more than {MOST}",
                code="bad-mount",
                hint="mount what is above them",
            )
        self.of[name], self.shares[name] = mounts, shares


def bad_model(what: str, error: ValidationError) -> UserError:
    first = error.errors()[0]
    where = ".".join((error.title.lower(), *map(str, first["loc"])))
    return UserError(f"cannot start {what}: {where}: {first['msg']}", code="bad-model", hint="correct that value")


def _order(stack: Stack) -> list[str]:
    """Each service after those it takes from."""
    graph = {name: [share.service for share in service.volumes_from] for name, service in stack.services.items()}
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        raise _bad(stack, f"{' → '.join(error.args[1][:20])} take volumes from one another") from error
    if strange := [name for name in order if name not in stack.services]:
        raise _bad(stack, f"volumes_from names {strange[0]}, which is no service of it")
    return order


def _bad(stack: Stack, why: str) -> UserError:
    return UserError(f"cannot start {stack.name}: {why}", code="bad-volumes-from", hint="name another service there")


def _shared(mount: Mount, service: str, read_only: bool) -> Mount:
    owner = mount.owner or (service if mount.kind == "volume" and mount.source is None else "")
    read_only = mount.read_only or read_only
    if (owner, read_only) == (mount.owner, mount.read_only):
        return mount
    return mount.model_copy(update={"owner": owner, "read_only": read_only})


def _mount(stack: Stack, service: str, mount: ServiceMount) -> Mount:
    source, volume = mount.source, Volume(name="")
    if mount.type == "volume" and source is not None:
        if source not in stack.volumes:
            raise UserError(
                f"cannot start {stack.name}/{service}: volume {source} is not defined",
                code="volume-undefined",
                hint=f"list {source} under the top-level volumes",
            )
        volume = stack.volumes[source]
        source = volume.name
    elif mount.type == "bind" and not (source or "").startswith("/"):
        raise UserError(
            f"cannot start {stack.name}/{service}: {source!r} for {mount.target} is no absolute path",
            code="bad-mount",
            hint="a bind begins at the root of the host",
        )
    return Mount(
        kind=mount.type,
        target=mount.target,
        source=source,
        read_only=mount.read_only,
        create_host_path=mount.create_host_path,
        no_copy=mount.nocopy,
        size=mount.size,
        mode=mount.mode,
        labels=volume.labels | mount.labels,
        options={} if volume.external else volume.driver_opts,
        external=volume.external,
        subpath=mount.subpath,
        propagation=mount.propagation,
    )
