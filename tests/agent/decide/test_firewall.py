"""The rules of others, walked with packets of ours. Against the real programs: tests/agent/network/test_surroundings."""

from __future__ import annotations

from typing import Any

import pytest

from agent.decide.firewall import foreign, troubles

POOL = "10.181.0.0/16"
OUT, IN, BETWEEN = "what containers send outside", "what comes to published ports", "what containers say to each other"
ALL = f"{OUT}, {IN} and {BETWEEN}"
DROP: dict[str, Any] = {"drop": None}
ACCEPT: dict[str, Any] = {"accept": None}


def match(left: str, right: Any, op: str = "==") -> dict[str, Any]:
    kind, _, key = left.partition(" ")
    side = {kind: {"key": key}} if kind in ("meta", "ct") else {"payload": {"protocol": kind, "field": key}}
    return {"match": {"op": op, "left": side, "right": right}}


def jump(target: str, how: str = "jump") -> dict[str, Any]:
    return {how: {"target": target}}


def document(
    *rules: list[dict[str, Any]], policy: str = "accept", family: str = "inet", table: str = "t", **chains: Any
) -> dict[str, Any]:
    """A base chain of the forward hook with these rules, and other chains."""
    base = {"family": family, "table": table, "name": "base", "hook": "forward", "policy": policy}
    found: list[dict[str, Any]] = [{"metainfo": {}}, {"chain": base}]
    for name, lines in {"base": rules, **chains}.items():
        found += [{"chain": {"family": family, "table": table, "name": name}}] if name != "base" else []
        found += [{"rule": {"family": family, "table": table, "chain": name, "expr": line}} for line in lines]
    return {"nftables": found}


@pytest.mark.parametrize(
    ("rules", "lost"),
    [
        pytest.param(document(), "", id="nothing"),
        pytest.param(document(policy="drop"), ALL, id="its policy"),
        pytest.param(document(policy="drop", table="gorae_0badcafe"), "", id="another gorae"),
        pytest.param(document(policy="drop", family="ip6"), "", id="another family"),
        pytest.param(document([DROP]), ALL, id="a drop"),
        pytest.param(document([{"counter": {"packets": 1, "bytes": 1}}, {"reject": None}]), ALL, id="a reject"),
        pytest.param(document([ACCEPT], [DROP]), "", id="the first that decides"),
        pytest.param(document([match("meta iifname", "eth0"), DROP]), IN, id="a link"),
        pytest.param(document([match("meta iifname", "g*", "!="), DROP]), IN, id="not ours"),
        pytest.param(document([match("meta iifname", "lo"), DROP]), "", id="another link"),
        pytest.param(document([match("ct status", "dnat", "!="), DROP]), f"{OUT} and {BETWEEN}", id="no translation"),
        pytest.param(document([match("ct state", ["established", "related"]), ACCEPT], [DROP]), ALL, id="what is new"),
        pytest.param(
            document([match("ip saddr", {"prefix": {"addr": "10.0.0.0", "len": 8}}), ACCEPT], policy="drop"),
            IN,
            id="a prefix",
        ),
        pytest.param(
            document([match("ip saddr", {"range": ["10.181.0.0", "10.181.255.255"]}), ACCEPT], policy="drop"),
            IN,
            id="a range",
        ),
        pytest.param(
            document([match("ip saddr", {"set": [{"prefix": {"addr": "10.181.0.0", "len": 16}}]}), ACCEPT], [DROP]),
            IN,
            id="a set",
        ),
        pytest.param(document([match("ip saddr", "@some"), DROP], [ACCEPT], policy="drop"), "", id="a set by name"),
        pytest.param(document([match("tcp dport", 22), ACCEPT], policy="drop"), ALL, id="what is not decided"),
        pytest.param(document([match("meta l4proto", {"range": [6, 17]}), DROP]), "", id="a range of something else"),
        pytest.param(document([jump("a")], [DROP], a=[[ACCEPT]]), "", id="a jump that decides"),
        pytest.param(document([jump("a")], [DROP], a=[[{"return": None}], [ACCEPT]]), ALL, id="a jump that returns"),
        pytest.param(document([jump("a", "goto")], [DROP], a=[]), "", id="a goto that does not come back"),
        pytest.param(document([jump("a")], a=[[jump("b")]], b=[[jump("a")]]), "", id="a circle"),
        pytest.param(
            document([{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["new", DROP]]}}}]), ALL, id="a vmap"
        ),
        pytest.param(
            document([{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["invalid", DROP]]}}}]),
            "",
            id="a vmap of other states",
        ),
        pytest.param(document([{"xt": {"type": "match", "name": "addrtype"}}, DROP]), "", id="a match of iptables"),
        pytest.param(document([{"xt": None}, DROP]), "", id="a match that nft does not name"),
        pytest.param(document([{"xt": {"type": "target", "name": "LOG"}}], [DROP]), ALL, id="a target that goes on"),
        pytest.param(document([{"xt": {"type": "target", "name": "REJECT"}}]), ALL, id="iptables' reject"),
    ],
)
def test_what_is_lost(rules: dict[str, Any], lost: str) -> None:
    found = [trouble.text for trouble in troubles(rules, [POOL], "g0badcafe0", "eth0")]
    assert found == ([f"the nftables chain inet t base drops {lost}"] if lost else [])


def test_each_family_for_itself() -> None:
    rules = document(policy="drop", family="ip6", table="filter")
    assert list(troubles(rules, [POOL], "g0", "eth0")) == []
    (found,) = troubles(rules, [POOL, "fd00::/48"], "g0", "eth0")
    assert found.cure.startswith("nft insert rule ip6 filter base ip6 saddr fd00::/48 accept; ")


def test_who_is_told_what_to_let_in() -> None:
    assert foreign(document()) == ()
    assert foreign(document(table="firewalld")) == ("firewalld",)
    ufw = {"chain": {"family": "ip", "table": "filter", "name": "ufw-user-input"}}
    assert foreign({"nftables": [ufw]}) == ("ufw",)
