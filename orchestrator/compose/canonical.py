"""A whole project in its canonical form: one type per key, short forms gone, variables, files and defaults put in.

It is the form `docker compose config --format json` (version 5) prints, and `specs/compose-canonical.schema.json` says.
`x-…` keys are not in it but for our own; networks, volumes, secrets and configs that no service uses are not either.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from orchestrator.compose.canonical_base import Bool, Int, Model, Name, Texts, Words
from orchestrator.compose.canonical_service import Service


class IpamPool(Model):
    """06-networks.md, ipam, config. Addresses in CIDR form, or alone."""

    subnet: str | None = None
    gateway: str | None = None
    ip_range: str | None = None
    aux_addresses: Texts = {}


class Ipam(Model):
    """06-networks.md, ipam."""

    driver: str | None = None
    config: tuple[IpamPool, ...] = ()
    options: Texts = {}


class Network(Model):
    """06-networks.md. `name`: as the host knows it, PROJECT_KEY unless given."""

    name: str
    driver: str | None = None
    driver_opts: Texts = {}
    ipam: Ipam = Field(default_factory=Ipam)
    external: Bool = False
    internal: Bool = False
    attachable: Bool = False
    labels: Texts = {}
    enable_ipv4: Bool = True
    enable_ipv6: Bool = False


class Volume(Model):
    """07-volumes.md. `name`: as the host knows it, PROJECT_KEY unless given. None: the key, if external."""

    name: str | None = None
    driver: str | None = None
    driver_opts: Texts = {}
    external: Bool = False
    labels: Texts = {}


class Config(Model):
    """08-configs.md. Where it comes from: one of `file` (absolute), `environment`, `content`, `external`."""

    name: str
    file: str | None = None
    environment: str | None = None
    content: str | None = None
    external: Bool = False
    labels: Texts = {}
    template_driver: str | None = None


class Secret(Model):
    """09-secrets.md. Where it comes from: one of `file` (absolute), `environment`, `external`."""

    name: str
    file: str | None = None
    environment: str | None = None
    external: Bool = False
    labels: Texts = {}
    driver: str | None = None
    driver_opts: Texts = {}
    template_driver: str | None = None


class LanguageModel(Model):
    """models.md, the top-level `models`."""

    model: str
    name: str | None = None
    context_size: Int | None = None
    runtime_flags: Words = ()


class Project(Model):
    """04-version-and-name.md, `name`; what is at the top of a Compose file, by the sections 05 to 09, and models.md."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]*$")]
    services: dict[Name, Service]
    networks: dict[Name, Network] = {}
    volumes: dict[Name, Volume] = {}
    secrets: dict[Name, Secret] = {}
    configs: dict[Name, Config] = {}
    models: dict[Name, LanguageModel] = {}
