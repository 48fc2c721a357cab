"""The canonical models take what docker compose prints, give it back unchanged, and know every key of the Specification."""

from __future__ import annotations

import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from pydantic import ValidationError

from orchestrator.compose.canonical import Project
from orchestrator.compose.canonical_base import Model
from orchestrator.compose.schema import schemas

CORPUS = Path(__file__).parents[2] / "corpus"
EXPECTED = sorted(CORPUS.glob("*/*/expected.json"))
SPECIFICATION = json.loads((CORPUS / "compose-spec.json").read_text())

VANISHED = {
    "version": "read and ignored",
    "include": "what it names is in the project",
    "services.*.extends": "what it names is in the service",
    "networks.*.external.name": "an old spelling of `name`",
    "volumes.*.external.name": "an old spelling of `name`",
    "secrets.*.external.name": "an old spelling of `name`",
    "configs.*.external.name": "an old spelling of `name`",
}
BEYOND = {
    "services.*.pre_start": "docker compose has it, the Specification's schema does not yet",
    "services.*.build.no_cache_filter": "docker compose has it, the Specification's schema does not yet",
    "services.*.x_gorae_healthcheck": "ours",
    "services.*.x_gorae_on_unhealthy": "ours",
    "services.*.x_gorae_drain": "ours",
}

# What docker compose 5.6.1 prints of keys that no case of the corpus has.
RARE = {
    "blkio_config": {
        "weight": 300,
        "weight_device": [{"Path": "/dev/a", "Weight": 10}],
        "device_read_bps": [{"Path": "/dev/a", "Rate": "1048576"}],
        "device_write_iops": [{"Path": "/dev/a", "Rate": "10"}],
    },
    "build": {"context": "/c", "entitlements": ["x"], "extra_hosts": ["a=1.1.1.1"], "isolation": "x"},
    "credential_spec": {"config": "c", "file": "./s", "registry": "r"},
    "gpus": [{"capabilities": ["gpu"], "count": 2, "options": {"a": "b"}}],
    "label_file": ["/c/labels"],
    "mem_swappiness": "10",
    "oom_kill_disable": True,
    "pull_policy": "refresh",
    "pull_refresh_after": "1h",
    "pre_start": [{"command": ["x"], "entrypoint": None, "env_file": [{"path": "/c/e.env"}], "image": "y"}],
    "stop_grace_period": "1µs",
    "volumes": [
        {"type": "tmpfs", "target": "/t", "consistency": "cached", "tmpfs": {"size": "1073741824", "mode": 511}},
        {"type": "bind", "source": "/c", "target": "/b", "bind": {"recursive": "enabled"}},
        {"type": "volume", "source": "v", "target": "/v", "volume": {"labels": {"a": "b"}}},
    ],
}
OURS = {
    "x-gorae-healthcheck": {"http": {"port": 80, "path": "/up"}, "interval": "5s"},
    "x-gorae-on-unhealthy": "recreate",
    "x-gorae-drain": "1m0s",
}


def project(**service: Any) -> dict[str, Any]:
    return {"name": "p", "services": {"a": {"image": "x", **service}}}


def printed(document: dict[str, Any]) -> Any:
    return Project.model_validate(document).model_dump(by_alias=True, exclude_unset=True, mode="json")


def text(value: Any) -> str:
    """Tells 3 from 3.0, 1 from true, and null from absent, as == does not."""
    return json.dumps(value, sort_keys=True)


@pytest.mark.parametrize("path", EXPECTED, ids=lambda path: path.parent.name)
def test_what_the_reference_prints_comes_back(path: Path) -> None:
    document = json.loads(path.read_text())
    assert text(printed(document)) == text(document)


@pytest.mark.parametrize("service", [pytest.param(RARE, id="rare keys"), pytest.param(OURS, id="our own key")])
def test_a_service_comes_back(service: dict[str, Any]) -> None:
    document = project(**service)
    assert text(printed(document)) == text(document)
    jsonschema.validate(document, json.loads(schemas()["compose-canonical.schema.json"]))


def test_the_corpus_is_there() -> None:
    assert len(EXPECTED) > 700


def test_what_the_reference_prints_fits_the_published_schema() -> None:
    validator = jsonschema.Draft202012Validator(json.loads(schemas()["compose-canonical.schema.json"]))
    for path in EXPECTED:
        found = [error.message for error in validator.iter_errors(json.loads(path.read_text()))]
        assert not found, path.parent.name


@pytest.mark.parametrize(
    ("service", "where"),
    [
        pytest.param({"helthcheck": {}}, "helthcheck", id="unknown key"),
        pytest.param({"x-mine": 1}, "x-mine", id="somebody's own key"),
        pytest.param({"ports": ["80:80"]}, "ports.0", id="short port"),
        pytest.param({"ports": [{"target": "80"}]}, "ports.0.target", id="number as text"),
        pytest.param({"ports": [{"target": 80, "published": 80}]}, "ports.0.published", id="text as number"),
        pytest.param({"volumes": ["a:/a"]}, "volumes.0", id="short mount"),
        pytest.param({"volumes": [{"type": "nfs", "target": "/a"}]}, "volumes.0.type", id="unknown mount"),
        pytest.param({"environment": ["A=b"]}, "environment", id="list of variables"),
        pytest.param({"environment": {"A": 1}}, "environment.A", id="variable as number"),
        pytest.param({"command": "a b"}, "command", id="command as text"),
        pytest.param({"tty": "yes"}, "tty", id="truth as text"),
        pytest.param({"privileged": 1}, "privileged", id="truth as number"),
        pytest.param({"mem_limit": "1g"}, "mem_limit", id="size with a unit"),
        pytest.param({"mem_limit": 1024}, "mem_limit", id="size as number"),
        pytest.param({"stop_grace_period": "90"}, "stop_grace_period", id="duration without a unit"),
        pytest.param({"healthcheck": {"interval": "1d"}}, "healthcheck.interval", id="duration in days"),
        pytest.param({"cpus": "0.5"}, "cpus.int", id="processors as text"),
        pytest.param({"secrets": [{"source": "s", "mode": "440"}]}, "secrets.0.mode", id="mode without its 0"),
        pytest.param({"secrets": [{"source": "s", "mode": 288}]}, "secrets.0.mode", id="mode as number"),
        pytest.param({"networks": ["n"]}, "networks", id="list of networks"),
        pytest.param({"depends_on": {"b": {}}}, "depends_on.b.condition", id="dependency without a condition"),
        pytest.param({"x-gorae-healthcheck": {"tcp": {"port": 0}}}, "x-gorae-healthcheck.tcp.port", id="port 0"),
    ],
)
def test_what_is_not_canonical_is_refused(service: dict[str, Any], where: str) -> None:
    with pytest.raises(ValidationError) as refusal:
        Project.model_validate(project(**service))
    assert ".".join(map(str, refusal.value.errors()[0]["loc"])) == f"services.a.{where}"


def test_a_project_cannot_be_changed() -> None:
    service = Project.model_validate(project()).services["a"]
    with pytest.raises(ValidationError, match="frozen"):
        service.image = "y"  # type: ignore[misc]


def test_every_property_of_the_specification_has_its_field() -> None:
    missing = {place for place, has_field in _properties(SPECIFICATION, Project, "") if not has_field}
    assert missing == VANISHED.keys()


def test_every_field_is_a_property_of_the_specification() -> None:
    known = {place for place, _ in _properties(SPECIFICATION, Project, "")}
    fields = set(_fields(Project, ""))
    beyond = {place for place in fields - known if not place.startswith(tuple(f"{root}." for root in BEYOND))}
    assert beyond == BEYOND.keys()


def _properties(schema: dict[str, Any], kind: Any, place: str) -> Iterator[tuple[str, bool]]:
    """Each property at and below a place, and whether the type found there has a field for it. `*`: any name."""
    if "$ref" in schema:
        schema = SPECIFICATION["definitions"][schema["$ref"].rpartition("/")[2]]
    for choice in schema.get("oneOf", ()):
        yield from _properties(choice, kind, place)
    if "items" in schema:
        yield from _properties(schema["items"], _inner(kind, tuple), place)
    for name, child in schema.get("patternProperties", {}).items():
        if name != "^x-":
            yield from _properties(child, _inner(kind, dict), f"{place}*.")
    model = _model(kind)
    for name, child in schema.get("properties", {}).items():
        field = model.model_fields.get(name) if model else None
        yield f"{place}{name}", field is not None
        if field is not None:
            yield from _properties(child, field.annotation, f"{place}{name}.")


def _fields(kind: Any, place: str) -> Iterator[str]:
    for model in _models(kind):
        for name, field in model.model_fields.items():
            yield f"{place}{name}"
            names = "*." if _inner(field.annotation, dict) else ""
            yield from _fields(field.annotation, f"{place}{name}.{names}")


def _members(kind: Any) -> Iterator[Any]:
    """The kind without None, without Annotated, each of a union by itself."""
    if typing.get_origin(kind) in (types.UnionType, typing.Union):
        for member in typing.get_args(kind):
            yield from _members(member)
    elif typing.get_origin(kind) is typing.Annotated:
        yield from _members(typing.get_args(kind)[0])
    elif kind is not types.NoneType:
        yield kind


def _inner(kind: Any, container: type) -> Any:
    """What the values of a dict or a tuple are; None if the kind is neither."""
    for member in _members(kind):
        if typing.get_origin(member) is container:
            return typing.get_args(member)[1 if container is dict else 0]
    return None


def _model(kind: Any) -> type[Model] | None:
    return next((member for member in _members(kind) if isinstance(member, type) and issubclass(member, Model)), None)


def _models(kind: Any) -> Iterator[type[Model]]:
    """The models in a kind: itself, or what it holds."""
    for held in (kind, _inner(kind, tuple), _inner(kind, dict)):
        if (model := _model(held)) is not None:
            yield model
