"""What the models of the canonical form share: the base, the scalars, and the pieces that occur in several places.

The canonical form is what `docker compose config --format json` prints. A value is as it is there, never converted, so
that a document comes back as it went in: `model_dump(by_alias=True, exclude_unset=True, mode="json")`. Hence strict
numbers and truths. A field has the default the Specification gives it, so absent and default read the same; None is
also "the file does not say". A closed set of words is a Literal only where the Specification's schema has an enum:
elsewhere Compose takes any text, and who honours a key judges it.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StrictFloat, StrictInt

Bool = StrictBool
Int = StrictInt
Number = StrictInt | StrictFloat  # 3 stays 3, 0.5 stays 0.5
Size = Annotated[str, Field(pattern=r"^-?[0-9]+$")]  # bytes
Duration = Annotated[str, Field(pattern=r"^-?([0-9]+(\.[0-9]+)?(h|ms|m|s|us|µs|ns))+$")]  # as Go prints it: 1m30s, 1.5s
Mode = Annotated[str, Field(pattern=r"^0[0-7]*$")]  # permission bits in octal: 0440
Name = Annotated[str, Field(pattern=r"^[a-zA-Z0-9._-]+$")]  # key of a service, network, volume, secret, config, model

Words = tuple[str, ...]
Texts = dict[str, str]
Environment = dict[str, str | None]  # None: not set in the container, not even by env_file


class Model(BaseModel):
    # Building a validator per class would double the time of the import; only the outermost one is ever needed.
    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True, protected_namespaces=())


class FileReference(Model):
    """05-services.md, secrets and configs; build.md, secrets: a top-level one, given to a container as a file.

    `target`: a path; relative, it is under /run/secrets. None: /SOURCE (configs), /run/secrets/SOURCE (secrets).
    """

    source: str
    target: str | None = None
    uid: str | None = None
    gid: str | None = None
    mode: Mode | None = None


class Ulimit(Model):
    """05-services.md, ulimits. -1: unlimited. A limit whose two values are the same may be a plain number instead."""

    soft: Int = 0
    hard: Int = 0


class DeviceRequest(Model):
    """deploy.md, resources.reservations.devices; 05-services.md, gpus. `count` -1: all there are."""

    capabilities: Words = ()
    driver: str | None = None
    count: Int | None = None
    device_ids: Words = ()
    options: Texts = {}


class Hook(Model):
    """05-services.md, post_start and pre_stop; develop.md, exec: a command run in the service's container."""

    command: Words | None = None
    user: str | None = None
    privileged: Bool = False
    working_dir: str | None = None
    environment: Environment = {}


Ulimits = dict[str, Int | Ulimit]
