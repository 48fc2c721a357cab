"""Running nft(8), the only program this room starts, and asking the kernel for our table. It decides nothing.

Call from a thread that is in the host's network namespace; nft inherits it.
"""

from __future__ import annotations

import errno
import json
import os
import struct
import subprocess
from dataclasses import replace

from agent.decide import nft_rules, nft_standing, nft_text
from agent.decide.nft_text import Ruleset
from agent.kit.errors import Permanent, Temporary
from agent.network.netlink import NETFILTER, Netlink, attr

_INET = 1  # NFPROTO_INET
_GETTABLE = 10 << 8 | 1  # NFNL_SUBSYS_NFTABLES, NFT_MSG_GETTABLE
_TIMEOUT = 30.0  # seconds


def commit(text: str) -> None:
    """One transaction: all of it or nothing. Temporary nft-failed with nft's own words."""
    run(["nft", "-f", "-"], text)


def table_present(table: str) -> bool:
    """By netlink: a fork would cost more than the question."""
    body = struct.pack("=BBH", _INET, 0, 0) + attr(1, table)  # struct nfgenmsg, NFTA_TABLE_NAME
    with Netlink(NETFILTER) as netlink:
        try:
            return bool(list(netlink.query(_GETTABLE, body, f"table {table}")))
        except OSError as error:
            if error.errno == errno.ENOENT:
                return False
            raise


def standing(wanted: Ruleset) -> tuple[list[str], Ruleset] | None:
    """nft_standing.standing of our table; None when there is none, or no telling, too."""
    if not table_present(wanted.table):
        return None
    dormant = replace(wanted, table=shadow(wanted.table))
    commit(nft_text.dormant(dormant))
    try:
        now, then = (json.loads(run(["nft", "-j", "list", "table", "inet", t])) for t in (wanted.table, dormant.table))
    except ValueError:  # nft 1.0.6 tells a table's flags from memory it has given back: it may be no JSON
        return None
    finally:
        commit(f"delete table inet {dormant.table}\n")
    return nft_standing.standing(now, then, wanted)


def shadow(table: str) -> str:
    """The table that is there while another is compared to it; one left by a killed agent is replaced, or withdrawn."""
    return f"{table}_wanted"


def recorded(table: str) -> tuple[frozenset[nft_rules.Served], frozenset[nft_rules.Backend]]:
    """What the table has recorded; nothing when there is no table, or one of before there was such a record."""
    if not table_present(table):
        return frozenset(), frozenset()
    served, backends = ([_listed(table, f"{name}{suffix}") for suffix in ("", "6")] for name in ("served", "backends"))
    return (
        frozenset().union(*map(nft_rules.served_from, served)),
        frozenset().union(*map(nft_rules.backends_from, backends)),
    )


def _listed(table: str, name: str) -> object:
    try:
        return json.loads(run(["nft", "-j", "list", "set", "inet", table, name]))
    except Temporary as error:
        if os.strerror(errno.ENOENT) in error.message:
            return {}
        raise


def run(command: list[str], text: str = "") -> str:
    """Its output. Permanent nft-missing, Temporary nft-failed."""
    try:
        done = subprocess.run(command, input=text, text=True, capture_output=True, timeout=_TIMEOUT, check=False)
    except FileNotFoundError as error:
        raise Permanent(
            f"cannot run {command[0]}: it is not installed", code="nft-missing", hint="install the package nftables"
        ) from error
    except subprocess.TimeoutExpired as error:
        raise Temporary(f"cannot change the packet filter: {command[0]} hangs", code="nft-failed") from error
    if done.returncode:
        said = done.stderr.strip()
        raise Temporary(
            f"cannot change the packet filter: {said.splitlines()[0] if said else 'nft failed'}",
            code="nft-failed",
            hint="see `nft list ruleset`",
            stderr=said[-2000:],
        )
    return done.stdout
