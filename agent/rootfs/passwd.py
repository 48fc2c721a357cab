"""Which numeric ids a `user:` setting means, from the text of an image's passwd(5) and group(5). Pure.

The files come from an image: any byte may be in them, lines may be malformed, ids absurd. Those lines are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent.kit.errors import Permanent
from agent.ports import UID_RANGE, UserIds

MAX_GROUPS = 1024  # supplementary groups taken over; more would only be an attack


def resolve(user: str, passwd: str, group: str) -> UserIds:
    """Ids for "", "uid", "name", each with an optional ":gid" or ":group"; Permanent bad-user when there are none.

    As Docker reads it: an entry matches by name or by id, the first one wins; an id that passwd does not know has group
    0 and home "/"; a group that is given excludes the supplementary ones.
    """
    name, _, group_name = user.partition(":")
    entry = next((e for e in _passwd(passwd) if (e[1] == 0 if not name else e[0] == name or str(e[1]) == name)), None)
    if entry is None:
        account, uid, gid, home = "", number(name or "0"), 0, "/"
        if uid is None:
            raise _unknown(user, f"/etc/passwd of the image has no {name!r}")
    else:
        account, uid, gid, home = entry
    groups: tuple[int, ...] = ()
    if group_name:
        found = next((g for n, g, _ in _groups(group) if n == group_name or str(g) == group_name), None)
        chosen = number(group_name) if found is None else found
        if chosen is None:
            raise _unknown(user, f"/etc/group of the image has no {group_name!r}")
        gid = chosen
    elif account:
        members = {g for _, g, names in _groups(group) if account in names and 0 <= g < UID_RANGE and g != gid}
        groups = tuple(sorted(members)[:MAX_GROUPS])
    if not (0 <= uid < UID_RANGE and 0 <= gid < UID_RANGE):
        raise _unknown(user, f"{uid}:{gid} is outside the {UID_RANGE} ids a task has")
    return UserIds(uid, gid, groups, home if home.startswith("/") else "/")


def _unknown(user: str, why: str) -> Permanent:
    return Permanent(
        f"cannot run as user {user!r}: {why}",
        code="bad-user",
        hint="set `user:` to a user of the image or to numbers, as in 1000:1000",
        user=user,
    )


def number(text: str) -> int | None:
    """A decimal id, or None. ASCII digits only: int() would take "１" and "1_0" as well."""
    return int(text) if text.isascii() and text.isdigit() and len(text) <= 10 else None


def _passwd(text: str) -> Iterator[tuple[str, int, int, str]]:
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= 4 and fields[0] and not line.startswith("#"):
            uid, gid = number(fields[2]), number(fields[3])
            if uid is not None and gid is not None:
                yield fields[0], uid, gid, fields[5] if len(fields) > 5 else "/"


def _groups(text: str) -> Iterator[tuple[str, int, frozenset[str]]]:
    for line in text.splitlines():
        fields = line.split(":")
        if len(fields) >= 3 and fields[0] and not line.startswith("#"):
            gid = number(fields[2])
            if gid is not None:
                yield fields[0], gid, frozenset(fields[3].split(",") if len(fields) > 3 else ())
