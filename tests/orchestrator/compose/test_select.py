"""15-profiles.md, and naming services."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from .support import composed, document, refusals

FILE = """\
services:
  web: {image: x, depends_on: [db], networks: [front]}
  db: {image: x, volumes: ['data:/d']}
  debug: {image: x, profiles: [debug], depends_on: [db]}
  tools: {image: x, profiles: [debug, tools], depends_on: {extra: {condition: service_started, required: false}}}
  extra: {image: x, profiles: [extra]}
networks: {front: }
volumes: {data: , unused: }
"""


@pytest.mark.parametrize(
    ("profiles", "services", "environ", "found"),
    [
        pytest.param([], [], {}, "db web", id="without a profile: always"),
        pytest.param(["debug"], [], {}, "db debug tools web", id="one profile"),
        pytest.param(["tools"], [], {}, "db tools web", id="any of several"),
        pytest.param(["tools", "extra"], [], {}, "db extra tools web", id="several profiles"),
        pytest.param(["*"], [], {}, "db debug extra tools web", id="all"),
        pytest.param(["nobody"], [], {}, "db web", id="a profile of no service"),
        pytest.param([], [], {"COMPOSE_PROFILES": "tools,extra"}, "db extra tools web", id="COMPOSE_PROFILES"),
        pytest.param([], ["web"], {}, "db web", id="a service with what it needs"),
        pytest.param([], ["db"], {}, "db", id="a service alone"),
        pytest.param([], ["extra"], {}, "extra", id="naming a service activates its profiles"),
        pytest.param([], ["debug"], {}, "db debug", id="and takes what it needs"),
        pytest.param([], ["tools"], {}, "tools", id="what is not required is not taken from another profile"),
        pytest.param(["extra"], ["tools"], {}, "extra tools", id="but is, when that profile is active"),
    ],
)
def test_selection(
    tmp_path: Path, profiles: list[str], services: list[str], environ: dict[str, str], found: str
) -> None:
    result = document(tmp_path, FILE, environ, profiles=profiles, services=services)
    assert " ".join(sorted(result["services"])) == found


@pytest.mark.parametrize(
    ("services", "networks", "volumes"),
    [([], {"default", "front"}, {"data"}), (["db"], {"default"}, {"data"}), (["extra"], {"default"}, set())],
)
def test_resources_are_those_of_the_chosen_services(
    tmp_path: Path, services: list[str], networks: set[str], volumes: set[str]
) -> None:
    found = document(tmp_path, FILE, services=services)
    assert (set(found["networks"]), set(found.get("volumes", {}))) == (networks, volumes)


def test_everything_keeps_all_services(tmp_path: Path) -> None:
    found = composed(tmp_path, FILE, services=["db"])
    services: Any = found.everything.value["services"].value  # type: ignore[index, union-attr]
    assert set(services) == {"web", "db", "debug", "tools", "extra"}


@pytest.mark.parametrize(
    ("services", "how", "message"),
    [
        pytest.param(
            "a: {image: x, depends_on: [b]}, b: {image: x, profiles: [p]}",
            {},
            "compose.yaml:1:39: cannot start a after b: b belongs to profiles that are not active "
            "(activate one with --profile, or write `required: false`)",
            id="an inactive dependency",
        ),
        pytest.param(
            "a: {image: x, depends_on: {b: {condition: service_started, required: false}}}",
            {},
            "compose.yaml:1:39: cannot start a after b: there is no service b",
            id="required: false forgives no unknown service",
        ),
        pytest.param(
            "a: {image: x}",
            {"services": ["b"]},
            "cannot find the service b: the files have none of that name (they have a)",
            id="no such service",
        ),
    ],
)
def test_refused(tmp_path: Path, services: str, how: dict[str, Any], message: str) -> None:
    assert refusals(tmp_path, f"services: {{{services}}}\n", **how) == [message]


def test_what_is_wrong_across_services_is_no_matter_in_an_inactive_one(tmp_path: Path) -> None:
    text = "services: {a: {image: x}, b: {image: x, profiles: [p], networks: [none], depends_on: [zz]}}\n"
    assert set(document(tmp_path, text)["services"]) == {"a"}
    assert len(refusals(tmp_path, text, profiles=["p"])) == 2


def test_a_service_that_is_not_there_is_guessed(tmp_path: Path) -> None:
    (told,) = refusals(tmp_path, FILE, services=["deubg"])
    assert told.startswith("cannot find the service deubg: the files have none of that name; did you mean debug?")


@pytest.mark.parametrize(
    ("profile", "warned"),
    [("debg", ["no service has the profile debg; did you mean debug?"]), ("production", []), ("debug", []), ("*", [])],
)
def test_a_near_miss_of_a_profile_is_warned_of(tmp_path: Path, profile: str, warned: list[str]) -> None:
    assert list(composed(tmp_path, FILE, profiles=[profile]).warnings) == warned
