"""What else of this host has a say in our packets: other firewalls, routes, sysctls. For `doctor` and `ports`. It only
looks, and blocks while it does."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from agent.decide import firewall
from agent.decide.firewall import Trouble
from agent.kit.errors import GoraeError
from agent.network import nft, routes
from agent.network.forwarding import Forwarding
from agent.ports import Surroundings


def look(pools: Sequence[str], link: str, forwards: Sequence[Forwarding]) -> Surroundings:
    """`pools`: where tasks have addresses from. `link`: a name as their links have."""
    document = json.loads(nft.run(["nft", "-j", "-t", "list", "ruleset"]))
    uplink = next(iter(routes.uplinks()), "")
    return Surroundings(
        troubles=(
            *firewall.troubles(document, pools, link, uplink),
            *_legacy(pools[0]),
            *(Trouble(text, "choose another pool, or remove that route") for text in routes.overlaps(pools[0])),
        ),
        firewalls=firewall.foreign(document),
        sysctls=tuple(line for one in forwards for line in one.changes()),
    )


def _legacy(pool: str) -> Iterator[Trouble]:
    """Tables of iptables-legacy, which nft cannot see."""
    try:
        rules = nft.run(["iptables-legacy", "-S", "FORWARD"])
    except GoraeError:
        return  # not there
    if "-P FORWARD DROP" in rules and not all(f"-A FORWARD -{way} {pool} -j ACCEPT" in rules for way in "sd"):
        add = "iptables-legacy -I FORWARD"
        yield Trouble(
            "the chain FORWARD of iptables-legacy drops what containers send and get",
            f"{add} -s {pool} -j ACCEPT; {add} -d {pool} -j ACCEPT",
        )
