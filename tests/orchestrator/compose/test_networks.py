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


def test_addresses(tmp_path: Path) -> None:
    text = """services:
  a:
    image: x
    networks: {n: {ipv4_address: 172.28.0.10, ipv6_address: "2001:DB8::A", mac_address: 02-42-AC-11-00-02}}
networks:
  n:
    enable_ipv6: true
    driver_opts: {com.docker.network.driver.mtu: "1400", com.docker.network.bridge.name: br0}
    ipam:
      driver: default
      config:
        - {subnet: 172.28.0.0/16, ip_range: 172.28.5.0/24, gateway: 172.28.0.1, aux_addresses: {printer: 172.28.5.9}}
        - {subnet: "2001:db8::/64"}
"""
    done = loaded(tmp_path, text)
    found = done.stack.model_dump(exclude_defaults=True)
    assert found["services"]["a"]["networks"] == {"n": {"addresses": ("172.28.0.10", "2001:db8::a")}}
    assert found["services"]["a"]["mac_address"] == "02:42:ac:11:00:02"
    subnets = (
        {"subnet": "172.28.0.0/16", "among": "172.28.5.0/24", "reserved": ("172.28.0.1", "172.28.5.9")},
        {"subnet": "2001:db8::/64"},
    )
    assert found["networks"] == {"n": network("p_n", ipv6=True, subnets=subnets, mtu=1400)}
    (warning,) = done.warnings
    assert "driver_opts.com.docker.network.bridge.name is ignored: gorae has no bridges to set up" in warning


def test_a_subnet_of_ipv6_is_enough(tmp_path: Path) -> None:
    text = 'services: {a: {image: x, networks: [n]}}\nnetworks: {n: {ipam: {config: [{subnet: "2001:db8::/64"}]}}}\n'
    assert loaded(tmp_path, text).stack.networks["n"].ipv6


@pytest.mark.parametrize(
    ("keys", "top", "mode"),
    [
        pytest.param("network_mode: none", "{}", "none", id="none"),
        pytest.param("network_mode: host", "{}", "host", id="host"),
        pytest.param("network_mode: 'service:b'", "{}", "service:b", id="service"),
        pytest.param("network_mode: 'container:other'", "{}", "container:other", id="container"),
        pytest.param("networks: [n]", "{n: {external: true, name: host}}", "host", id="Docker's network host"),
        pytest.param("networks: [n]", "{n: {external: true, name: none}}", "none", id="Docker's network none"),
        pytest.param("networks: [n]", "{n: {driver: host}}", "host", id="the driver host"),
        pytest.param("networks: [n]", "{n: {driver: none}}", "none", id="the driver none"),
    ],
)
def test_network_mode(tmp_path: Path, keys: str, top: str, mode: str) -> None:
    text = f"services:\n  b: {{image: x}}\n  a:\n    {keys}\n    image: x\nnetworks: {top}\n"
    found = loaded(tmp_path, text)
    assert (found.stack.services["a"].network_mode, found.stack.services["a"].networks, found.stack.networks) == (
        mode,
        {},
        {},
    )
    assert any("4:" in one and "a is in the host's own network: what it opens" in one for one in found.warnings) == (
        mode == "host"
    )
    assert ("b" in found.stack.services["a"].depends_on) == (mode == "service:b")


def test_ports_in_the_network_of_the_host(tmp_path: Path) -> None:
    found = loaded(tmp_path, "services:\n  a:\n    image: x\n    network_mode: host\n    ports: ['80:80']\n")
    assert found.stack.services["a"].ports == ()
    assert any("5:5: ports of a are ignored: its network_mode is host" in one for one in found.warnings)


MANY = ", ".join(f"n{number}" for number in range(NETWORKS + 1))


@pytest.mark.parametrize(
    ("keys", "top", "message"),
    [
        pytest.param("network_mode: none\n    ports: ['80:80']", "{}", "6:5: cannot publish ports of a: its network_mode is none", id="ports of nothing"),
        pytest.param("network_mode: 'service:b'\n    ports: ['80:80']", "{}", "6:5: cannot publish ports of a: its network_mode is service:b", id="ports of another's"),
        pytest.param("network_mode: 'service:c'", "{}", "5:5: cannot start a after c: there is no service c", id="of nobody"),
        pytest.param("network_mode: 'service:h'", "{}", "cannot share the network of h with a: the network_mode of h is host", id="of one in the host's"),
        pytest.param("network_mode: 'service:b'\n    dns: 192.0.2.1", "{}", "6:5: cannot use dns in a: its network_mode is service:b", id="servers of another's"),
        pytest.param("network_mode: 'container:b'\n    extra_hosts: ['h=host-gateway']", "{}", "cannot open the host to a: its network_mode is container:b", id="the host to another's"),
        pytest.param("network_mode: host\n    mac_address: 02:42:ac:11:00:02", "{}", "6:5: cannot use mac_address in a: its network_mode is host", id="a link of the host's"),
        pytest.param("networks: {n: {aliases: [x]}}", "{n: {driver: host}}", "cannot use aliases in a: its network n is network_mode host", id="aliases of the host's"),
        pytest.param("network_mode: macvlan", "{}", "5:19: cannot use 'macvlan' as services.a.network_mode: it is one of none, host, bridge,", id="a mode"),
        pytest.param("networks: [n, default]", "{n: {external: true, name: host}}", "cannot put a on n, which is network_mode host, and on other networks", id="the host's and others"),
        pytest.param("networks: {n: {aliases: ['a b']}}", "{n: }", "an alias is a host name", id="an alias"),
        pytest.param("networks: [n]", "{n: {name: host}}", "it is Docker's name for what `network_mode` says", id="the host's"),
        pytest.param("networks: [n]", "{n: {name: 'a b'}}", "a network's name has letters", id="a name"),
        pytest.param("networks: [n]", "{n: {driver: overlay}}", "cannot use networks.n.driver: 'overlay': gorae routes", id="a driver"),
        pytest.param("networks: [n]", "{n: {driver: macvlan}}", "cannot use networks.n.driver: 'macvlan': gorae routes between", id="driver"),
        pytest.param("networks: [n, m]", "{n: {driver: none}, m: }", "cannot put a on n, which is network_mode none, and on other networks", id="none and others"),
        pytest.param("networks: [n]", "{n: {ipam: {config: [{subnet: x}]}}}", "a range is written like 172.28.0.0/16", id="no subnet"),
        pytest.param("networks: [n]", "{n: {ipam: {config: [{subnet: 172.28.0.0/16, gateway: 172.29.0.1}]}}}", "it is not in 172.28.0.0/16", id="gateway"),
        pytest.param("networks: [n]", "{n: {ipam: {config: [{ip_range: 172.28.0.0/24}]}}}", "it needs a subnet beside it", id="a part of nothing"),
        pytest.param(
            "networks: {n: {ipv4_address: 10.9.0.2}}\n    deploy: {update_config: {order: start-first}}",
            "{n: }",
            "cannot start a new container of a first: it has a chosen address",
            id="start first",
        ),
        pytest.param("networks: {n: {ipv4_address: 'fd00::1'}}", "{n: }", "that is no IPv4 address", id="family"),
        pytest.param("networks: {n: {ipv6_address: 'x'}}", "{n: }", "that is no address", id="no address"),
        pytest.param("mac_address: 03:42:ac:11:00:02", "{}", "its first byte even", id="mac of a group"),
        pytest.param("networks: [n]", "{n: {driver_opts: {com.docker.network.driver.mtu: 12}}}", "from 576 to 65535", id="mtu"),
        pytest.param("networks: [n]", "{n: {enable_ipv6: true, driver_opts: {com.docker.network.driver.mtu: 1279}}}", "its MTU is 1279, and IPv6 needs 1280", id="too small for IPv6"),
        pytest.param(f"networks: [{MANY}]", "{" + MANY + "}", "5:15: cannot put a on 13 networks: 12 at most", id="too many"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path: Path, keys: str, top: str, message: str) -> None:
    found = problems(
        tmp_path,
        f"services:\n  b: {{image: x}}\n  h: {{image: x, network_mode: host}}\n  a:\n    {keys}\n    image: x\nnetworks: {top}\n",
    )
    assert any(message in one for one in found), found
