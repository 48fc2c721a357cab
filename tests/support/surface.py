"""What a host is to others: its links, addresses, routes, sysctls and packet filter rules. For "as before" in tests.

Code of its own on purpose, as in leaks.py. What is gorae's own is left out.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

_OURS = re.compile(r"\bg[0-9a-f]{8}[0-9a-z]+\b|\b10\.181\.|fd67:6f72:6165")
_COUNTED = re.compile(
    r"counter packets \d+ bytes \d+|\[\d+:\d+\]|^#.*$|valid_lft \S+|preferred_lft \S+|expires \S+", re.M
)


def surface() -> dict[str, str]:
    """Sections of sorted lines, of the network namespace of the calling thread. Compare two with ==."""
    found = {
        "links": _said("ip", "-o", "-d", "link"),
        "addresses": _said("ip", "-o", "address"),
        "rules": _said("ip", "rule") + _said("ip", "-6", "rule"),
        "routes": _said("ip", "route", "show", "table", "all") + _said("ip", "-6", "route", "show", "table", "all"),
        "legacy": _said("iptables-legacy-save") + _said("ip6tables-legacy-save"),
        "sysctls": _sysctls(),
    }
    tables = [line.split()[1:] for line in _said("nft", "list", "tables") if " gorae_" not in line]
    found["nftables"] = [line for table in tables for line in _said("nft", "list", "table", *table)]
    return {name: "\n".join(line for line in lines if not _OURS.search(line)) for name, lines in found.items()}


def _said(*command: str) -> list[str]:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return _COUNTED.sub("", done.stdout).splitlines()


def _sysctls() -> list[str]:
    lines = []
    for path in sorted(Path("/proc/sys/net").rglob("*")):
        if path.is_file() and not path.name.startswith("nf_conntrack_count"):
            try:
                lines.append(f"{path} {path.read_text(errors='replace').strip()}")
            except OSError:
                continue  # may only be written
    return lines
