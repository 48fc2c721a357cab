"""06-networks.md, and networks and network_mode of 05-services.md: what the model has of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from agent.wire.messages import NETWORKS

from .support import loaded, problems


def network(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, **more}


@pytest.mark.parametrize(
    ("keys", "top", "uses", "networks"),
    [
        pytest.param("networks: [default]", "", {}, {}, id="the default network"),
        pytest.param("networks: [default]", "{default: {driver: bridge, attachable: true}}", {}, {}, id="the same, said"),
        pytest.param("user: u", "{default: {internal: true}}", {}, {"default": network("p_default", internal=True)}, id="internal"),
        pytest.param("user: u", "{default: {name: shared}}", {}, {"default": network("shared")}, id="another name"),
        pytest.param("networks: [n]", "{n: }", {"n": {}}, {"n": network("p_n")}, id="one"),
        pytest.param(
            "networks: {n: {aliases: [x, y, x], priority: 3}, default: }",
            "{n: }",
            {"n": {"aliases": ("x", "y")}, "default": {}},
            {"n": network("p_n")},
            id="aliases",
        ),
        pytest.param("networks: [n]", "{n: {external: true}}", {"n": {}}, {"n": network("n", external=True)}, id="external"),
        pytest.param(
            "networks: [n]", "{n: {external: {name: web}}}", {"n": {}}, {"n": network("web", external=True)}, id="external, the old way"
        ),
        pytest.param("user: u", "{n: }", {}, {}, id="of no service"),
        pytest.param("network_mode: bridge", "", {}, {}, id="bridge"),
    ],
)  # fmt: skip
def test_networks(tmp_path: Path, keys: str, top: str, uses: dict[str, Any], networks: dict[str, Any]) -> None:
    text = f"services:\n  a:\n    image: x\n    {keys}\n" + (f"networks: {top}\n" if top else "")
    found = loaded(tmp_path, text).stack.model_dump(exclude_defaults=True)
    assert (found["services"]["a"].get("networks", {}), found.get("networks", {})) == (uses, networks)


def test_none(tmp_path: Path) -> None:
    found = loaded(tmp_path, "services: {a: {image: x, network_mode: none}}\n").stack
    assert found.services["a"].network_mode == "none"


MANY = ", ".join(f"n{number}" for number in range(NETWORKS + 1))


@pytest.mark.parametrize(
    ("keys", "top", "message"),
    [
        pytest.param("network_mode: none\n    ports: ['80:80']", "{}", "5:5: cannot publish ports of a: its network_mode is none", id="ports of nothing"),
        pytest.param("network_mode: host", "{}", "4:19: cannot use services.a.network_mode: 'host': a container has a user namespace of its own", id="host"),
        pytest.param("network_mode: 'service:b'", "{}", "services.a.network_mode: 'service:b'", id="of another"),
        pytest.param("networks: {n: {aliases: ['a b']}}", "{n: }", "an alias is a host name", id="an alias"),
        pytest.param("networks: [n]", "{n: {name: host}}", "it is Docker's name for what `network_mode` says", id="the host's"),
        pytest.param("networks: [n]", "{n: {name: 'a b'}}", "a network's name has letters", id="a name"),
        pytest.param("networks: [n]", "{n: {driver: overlay}}", "cannot use networks.n.driver: 'overlay': gorae routes", id="a driver"),
        pytest.param("networks: [n]", "{n: {enable_ipv6: true}}", "containers have no IPv6 yet", id="IPv6"),
        pytest.param(f"networks: [{MANY}]", "{" + MANY + "}", "4:15: cannot put a on 13 networks: 12 at most", id="too many"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, keys: str, top: str, message: str) -> None:
    found = problems(tmp_path, f"services:\n  b: {{image: x}}\n  a:\n    {keys}\n    image: x\nnetworks: {top}\n")
    assert any(message in one for one in found), found
