"""The table's text, and that a change always ends where a new table would."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.decide.nft_rules import (
    Backend,
    Member,
    Policy,
    Served,
    backends_from,
    check,
    chosen,
    network_id,
    ruleset,
    served_from,
)
from agent.decide.nft_text import delta, whole
from agent.kit.pools import Slice
from agent.network import nft
from tests.support.netns import Namespace, run

ONE, TWO, THREE = "10.181.8.16", "10.181.8.17", "10.181.8.18"
ONE_6, TWO_6 = (Slice(1).twin(address) for address in (ONE, TWO))
VIP, OTHER = "10.181.12.16", "10.181.12.17"
VIP_6 = Slice(1).twin(VIP)


def ids(*names: str) -> frozenset[str]:
    return frozenset(map(network_id, names))


def policy(
    members: list[tuple[str, str]] | None = None,  # (address, networks apart by blanks, "!" after them: internal)
    served: list[Served] | None = None,
    *,
    backends: tuple[Backend, ...] = (),
    router: bool = False,
) -> Policy:
    places = frozenset(
        Member(f"gabcd1234{address[-2:]}", address, ids(*words.strip("!").split()), not words.endswith("!"))
        for address, words in members or []
    )
    return Policy(
        "abcd1234",
        Slice(1),
        router=router,
        members=places,
        served=frozenset(served or []),
        backends=frozenset(backends),
    )


def web(address: str, published: int = 8080, host_ip: str = "0.0.0.0", protocol: str = "tcp") -> Served:
    return Served(protocol, published, host_ip, address, 80)


VISITS, SHOP, BACK = (f"net_{network_id(name)}" for name in ("visits", "shop", "back"))
BOTH = f"nets_{network_id(' '.join(sorted((SHOP, BACK))))}"
BUSY = policy(
    [(ONE, "visits"), (TWO, "visits"), (THREE, "shop back!")],
    [web(ONE), web(TWO), web(THREE, 53, "127.0.0.1", "udp")],
    backends=(Backend(VIP, ONE, True), Backend(VIP, TWO, True), Backend(OTHER, THREE, False)),
)


def test_what_depends_on_tasks_as_text() -> None:
    text = whole(ruleset(BUSY))
    lines = [line.replace(" inet gorae_abcd1234", "") for line in text.splitlines()]
    assert lines[:3] == ["add table", "delete table", "add table"]
    assert [line for line in lines if line.startswith("add element")] == [
        f"add element backends {{ {VIP} . {ONE} . 1, {VIP} . {TWO} . 1, {OTHER} . {THREE} . 0 }}",
        f"add element inside {{ {THREE} }}",
        f"add element {BACK} {{ {THREE} }}",
        f"add element {SHOP} {{ {THREE} }}",
        f"add element {VISITS} {{ {ONE}, {TWO} }}",
        "add element published { tcp . 8080 : goto tcp_8080 }",
        "add element published_at { 127.0.0.1 . udp . 53 : goto udp_53_127.0.0.1 }",
        f"add element selves {{ {ONE} . {ONE}, {TWO} . {TWO}, {THREE} . {THREE} }}",
        f"add element senders {{ {ONE} : goto {VISITS}, {TWO} : goto {VISITS}, {THREE} : goto {BOTH} }}",
        f"add element served {{ {ONE} . tcp . 8080 . 0.0.0.0 . 80, {TWO} . tcp . 8080 . 0.0.0.0 . 80, "
        f"{THREE} . udp . 53 . 127.0.0.1 . 80 }}",
        f'add element sources {{ "gabcd123416" . {ONE}, "gabcd123417" . {TWO}, "gabcd123418" . {THREE} }}',
        f"add element virtual {{ {VIP} : goto vip_{VIP}, {OTHER} : goto vip_{OTHER} }}",
    ]
    assert [line for line in lines if re.match(r"add rule (nets?|tcp|udp|vip)_", line)] == [
        f"add rule {VISITS} ip daddr @{VISITS} accept",
        f"add rule {VISITS} goto refuse",
        f"add rule {BOTH} ip daddr @{BACK} accept",
        f"add rule {BOTH} ip daddr @{SHOP} accept",
        f"add rule {BOTH} goto refuse",
        f"add rule tcp_8080 meta l4proto tcp dnat ip to numgen inc mod 2 map {{ 0 : {ONE} . 80, 1 : {TWO} . 80 }}",
        f"add rule tcp_8080 meta l4proto tcp dnat ip to {ONE}:80",
        f"add rule udp_53_127.0.0.1 meta l4proto udp dnat ip to {THREE}:80",
        f"add rule vip_{VIP} dnat ip to numgen inc mod 2 map {{ 0 : {ONE}, 1 : {TWO} }}",
        f"add rule vip_{VIP} dnat ip to {ONE}",
        f"add rule vip_{OTHER} dnat ip to {THREE}",
    ]


DUAL = policy(
    [(ONE, "visits shop"), (ONE_6, "visits"), (TWO, "visits"), (TWO_6, "visits!")],
    [web(ONE), web(ONE_6, host_ip="::"), web(TWO_6, 53, "2001:db8::1", "udp")],
    backends=(Backend(VIP, ONE, True), Backend(VIP_6, ONE_6, True), Backend(VIP_6, TWO_6, True)),
)


def test_ipv6_has_groups_and_chains_of_its_own() -> None:
    lines = [line.replace(" inet gorae_abcd1234", "") for line in whole(ruleset(DUAL)).splitlines()]
    visits = VISITS.replace("net_", "net6_")
    vip = f"vip_{VIP_6.replace(':', '_')}"
    assert [line for line in lines if line.startswith("add element") and "fd67" in line] == [
        f"add element backends6 {{ {VIP_6} . {ONE_6} . 1, {VIP_6} . {TWO_6} . 1 }}",
        f"add element inside6 {{ {TWO_6} }}",
        f"add element {visits} {{ {ONE_6}, {TWO_6} }}",
        f"add element selves6 {{ {ONE_6} . {ONE_6}, {TWO_6} . {TWO_6} }}",
        f"add element senders6 {{ {ONE_6} : goto {visits}, {TWO_6} : goto {visits} }}",
        f"add element served6 {{ {ONE_6} . tcp . 8080 . :: . 80, {TWO_6} . udp . 53 . 2001:db8::1 . 80 }}",
        f'add element sources6 {{ "gabcd123410" . {ONE_6}, "gabcd123411" . {TWO_6} }}',
        f"add element virtual6 {{ {VIP_6} : goto {vip} }}",
    ]
    assert [line for line in lines if re.match(r"add rule (nets?6|tcp6|udp6|vip_fd67)_", line)] == [
        f"add rule {visits} ip6 daddr @{visits} accept",
        f"add rule {visits} goto refuse",
        f"add rule tcp6_8080 meta l4proto tcp dnat ip6 to [{ONE_6}]:80",
        f"add rule udp6_53_2001_db8__1 meta l4proto udp dnat ip6 to [{TWO_6}]:80",
        f"add rule {vip} dnat ip6 to numgen inc mod 2 map {{ 0 : {ONE_6}, 1 : {TWO_6} }}",
        f"add rule {vip} dnat ip6 to {ONE_6}",
    ]
    assert "add element published6 { tcp . 8080 : goto tcp6_8080 }" in lines
    assert "add element published6_at { 2001:db8::1 . udp . 53 : goto udp6_53_2001_db8__1 }" in lines


def test_one_endpoint_more_is_two_small_changes() -> None:
    before, after = policy([(ONE, "v"), (TWO, "v")], [web(ONE)]), policy([(ONE, "v"), (TWO, "v")], [web(ONE), web(TWO)])
    assert delta(ruleset(before), ruleset(after)).replace(" inet gorae_abcd1234", "").splitlines() == [
        "flush chain tcp_8080",
        f"add rule tcp_8080 meta l4proto tcp dnat ip to numgen inc mod 2 map {{ 0 : {ONE} . 80, 1 : {TWO} . 80 }}",
        f"add rule tcp_8080 meta l4proto tcp dnat ip to {ONE}:80",
        f"add element served {{ {TWO} . tcp . 8080 . 0.0.0.0 . 80 }}",
    ]


def test_the_last_task_of_a_network_takes_its_chain_along() -> None:
    change = delta(ruleset(policy([(ONE, "v"), (TWO, "w")])), ruleset(policy([(ONE, "v")])))
    assert change.replace(" inet gorae_abcd1234", "").splitlines() == [
        f"delete element selves {{ {TWO} . {TWO} }}",
        f"delete element senders {{ {TWO} }}",
        f'delete element sources {{ "gabcd123417" . {TWO} }}',
        f"flush chain net_{network_id('w')}",
        f"delete chain net_{network_id('w')}",
        f"delete set net_{network_id('w')}",
    ]


def test_no_change_is_no_text() -> None:
    assert delta(ruleset(BUSY), ruleset(BUSY)) == ""


def test_per_task_rules_do_not_exist() -> None:
    def rules(count: int) -> int:
        text = whole(ruleset(policy([(f"10.181.9.{n}", "v") for n in range(10, 10 + count)])))
        return text.count("add rule")

    assert rules(1) == rules(90)


@pytest.mark.parametrize("router", [True, False], ids=["router", "not-a-router"])
def test_strangers_are_dropped_only_where_nothing_was_forwarded_before(router: bool) -> None:
    assert ("forward meta nfproto ipv4 drop" in whole(ruleset(policy(router=router)))) is not router


@pytest.mark.parametrize("network", ["x; flush ruleset", "", "net", "0123456789a", "ABCDEF0123", "0123456789\n"])
def test_what_is_no_id_of_a_network_is_refused(network: str) -> None:
    member = Member("gabcd12340", ONE, frozenset({network}))
    with pytest.raises(ValueError, match="not a network's id"):
        ruleset(Policy("abcd1234", Slice(1), members=frozenset({member})))


@pytest.mark.parametrize(
    "served",
    [
        web("not an address"),
        web("fd00::1"),
        web(ONE, host_ip="::"),
        web(ONE_6),
        web("fd00::1%0 accept", host_ip="::"),
        web(ONE, host_ip="0.0.0.0 accept"),
        web(ONE, 0),
        web(ONE, 65536),
        web(ONE, protocol="sctp"),
    ],
    ids=repr,
)
def test_what_is_no_rule_is_refused(served: Served) -> None:
    with pytest.raises(ValueError, match=r"not|families"):
        check(served)
    with pytest.raises(ValueError, match=r"not|families"):
        ruleset(policy(served=[served]))


@pytest.mark.parametrize("link", ['g"x', "eth0", "g" * 20, "", "g1 }"])
def test_a_link_name_that_is_not_ours_is_refused(link: str) -> None:
    with pytest.raises(ValueError, match="not a link name"):
        ruleset(Policy("abcd1234", Slice(1), members=frozenset({Member(link, ONE, ids("v"))})))


def test_the_record_is_read_back() -> None:
    elements = [{"concat": [ONE, "tcp", 8080, "0.0.0.0", 80]}, {"concat": [TWO, "udp", 53, "127.0.0.1", 53]}, "?"]
    document = {"nftables": [{"metainfo": {}}, {"set": {"name": "served", "elem": elements}}]}
    assert served_from(document) == {web(ONE), Served("udp", 53, "127.0.0.1", TWO, 53)}
    assert served_from({"nftables": [{"set": {"name": "served"}}]}) == frozenset()
    assert served_from([]) == frozenset()


def test_ready_tasks_answer_at_a_virtual_address_else_those_that_run() -> None:
    ill, well = Backend(VIP, ONE, False), Backend(VIP, TWO, True)
    assert chosen([ill, Backend(VIP, THREE, False), Backend(OTHER, TWO, True)]) == {VIP: (ONE, THREE), OTHER: (TWO,)}
    assert chosen([ill, well]) == {VIP: (TWO,)}
    assert chosen([]) == {}


def test_one_that_leaves_its_virtual_address_is_one_small_change() -> None:
    members = [(ONE, "v"), (TWO, "v")]
    before = policy(members, backends=(Backend(VIP, ONE, True), Backend(VIP, TWO, True)))
    after, nobody = policy(members, backends=(Backend(VIP, TWO, True),)), policy(members)
    assert delta(ruleset(before), ruleset(after)).replace(" inet gorae_abcd1234", "").splitlines() == [
        f"flush chain vip_{VIP}",
        f"add rule vip_{VIP} dnat ip to {TWO}",
        f"delete element backends {{ {VIP} . {ONE} . 1 }}",
    ]
    assert delta(ruleset(after), ruleset(nobody)).replace(" inet gorae_abcd1234", "").splitlines() == [
        f"delete element backends {{ {VIP} . {TWO} . 1 }}",
        f"delete element virtual {{ {VIP} }}",
        f"flush chain vip_{VIP}",
        f"delete chain vip_{VIP}",
    ]


def test_the_record_of_backends_is_read_back() -> None:
    elements = [{"concat": [VIP, ONE, 1]}, {"concat": [VIP, TWO, 0]}, {"concat": [VIP, TWO]}, "?"]
    document = {"nftables": [{"set": {"name": "backends", "elem": elements}}]}
    assert backends_from(document) == {Backend(VIP, ONE, True), Backend(VIP, TWO, False)}


# A model of the kernel: applies text, refuses what the kernel would refuse
# ----------------------------------------------


class Model:
    def __init__(self) -> None:
        self.groups: dict[str, dict[str, str]] = {}
        self.chains: dict[str, list[str]] = {}

    def apply(self, text: str) -> Model:
        for line in text.splitlines():
            match = re.fullmatch(r"(\w+) (\w+) inet gorae_abcd1234 ?(.*)", line)
            assert match, line
            verb, kind, rest = match.groups()
            name, _, body = rest.partition(" ")
            getattr(self, f"{verb}_{kind}")(name, body)
        return self

    def add_table(self, name: str, body: str) -> None: ...

    def delete_table(self, name: str, body: str) -> None:
        self.groups, self.chains = {}, {}

    def add_set(self, name: str, body: str) -> None:
        assert name not in self.groups
        self.groups[name] = {}

    add_map = add_set

    def delete_set(self, name: str, body: str) -> None:
        assert not any(f"@{name} " in f"{rule} " for rules in self.chains.values() for rule in rules), "in use"
        del self.groups[name]

    def add_chain(self, name: str, body: str) -> None:
        assert name not in self.chains
        self.chains[name] = []

    def flush_chain(self, name: str, body: str) -> None:
        self.chains[name].clear()

    def delete_chain(self, name: str, body: str) -> None:
        assert not self.chains[name]
        values = [value for group in self.groups.values() for value in group.values()]
        assert not any(rule.endswith(f"goto {name}") for rules in [*self.chains.values(), values] for rule in rules)
        del self.chains[name]

    def add_rule(self, name: str, body: str) -> None:
        for used in re.findall(r"@(\S+)", body):
            assert used in self.groups
        for target in re.findall(r"goto (\S+)", body):
            assert target in self.chains
        self.chains[name].append(body)

    def add_element(self, name: str, body: str) -> None:
        for element in body.strip("{} ").split(", "):
            key, _, value = element.partition(" : ")
            assert key not in self.groups[name]
            assert not value or value.removeprefix("goto ") in self.chains
            self.groups[name][key] = value

    def delete_element(self, name: str, body: str) -> None:
        for key in body.strip("{} ").split(", "):
            del self.groups[name][key]

    def state(self) -> tuple[dict[str, dict[str, str]], dict[str, list[str]]]:
        return self.groups, self.chains


_addresses = st.integers(10, 99).flatmap(lambda n: st.sampled_from([f"10.181.8.{n}", f"fd67:6f72:6165:1::{n}"]))
_policies = st.builds(
    policy,
    st.dictionaries(
        _addresses, st.sampled_from(["visits", "shop", "visits shop", "back!", "shop back!"]), max_size=6
    ).map(lambda d: list(d.items())),
    st.lists(
        st.builds(
            lambda address, port, here, protocol: web(
                address,
                port,
                {"0.0.0.0": "::", "127.0.0.1": "::1"}[here] if ":" in address else here,
                protocol,
            ),
            _addresses,
            st.integers(80, 84),
            st.sampled_from(["0.0.0.0", "127.0.0.1"]),
            st.sampled_from(["tcp", "udp"]),
        ),
        max_size=6,
    ),
    backends=st.lists(
        st.builds(
            lambda virtual, address, ready: Backend(VIP_6 if ":" in address else virtual, address, ready),
            st.sampled_from([VIP, OTHER]),
            _addresses,
            st.booleans(),
        ),
        max_size=4,
    ).map(lambda them: tuple({one.address: one for one in them}.values())),
    router=st.booleans(),
)


@given(_policies, _policies)
@settings(max_examples=200, deadline=None)
def test_a_change_ends_where_a_new_table_would(before: Policy, after: Policy) -> None:
    old, new = ruleset(before), ruleset(after)
    changed = Model().apply(whole(old)).apply(delta(old, new))
    assert changed.state() == Model().apply(whole(new)).state()


@pytest.mark.host
@pytest.mark.parametrize(
    "example", [policy(), BUSY, DUAL, policy(router=True)], ids=["empty", "busy", "dual", "router"]
)
def test_nft_takes_the_table(example: Policy) -> None:
    _check_with_nft(whole(ruleset(example)))


STEPS = [
    ruleset(step)
    for step in (
        policy([(ONE, "v")]),
        policy([(ONE, "v"), (TWO, "w")], [web(ONE)]),
        policy([(ONE, "w"), (TWO, "v")], [web(TWO), web(ONE, 53, "127.0.0.1", "udp")]),
        policy([(ONE, "w"), (THREE, "w x!")], [web(ONE)]),
        policy([(ONE, "w"), (THREE, "w x!")], backends=(Backend(VIP, ONE, True), Backend(VIP, THREE, True))),
        policy([(ONE, "w"), (THREE, "w x!")], backends=(Backend(VIP, ONE, False), Backend(OTHER, THREE, False))),
        DUAL,
        policy([(ONE, "x!"), (THREE, "w x")], [web(THREE), web(THREE, 8081)], router=True),
        policy(),
    )
]


@pytest.mark.host
def test_the_kernel_takes_every_change() -> None:
    """In a namespace of its own: a walk through policies, each change committed onto the last."""
    script = [whole(STEPS[0]), *(delta(before, after) for before, after in pairwise(STEPS))]
    shell = "set -e\n" + "".join(f"nft -f - <<'END'\n{text}END\n" for text in script)
    done = subprocess.run(["unshare", "-n", "sh", "-c", shell], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.host
def test_from_what_stands_to_what_is_wanted_in_place(netns: Namespace) -> None:
    with netns.inside():
        nft.commit(whole(STEPS[0]))
        for wanted in STEPS:
            found = nft.standing(wanted)
            assert found is not None
            first, there = found
            nft.commit(delta(there, wanted, first))
            assert nft.standing(wanted) == ([], wanted), "and knows what it did"
            assert delta(wanted, wanted, []) == ""
        assert run("nft", "list", "tables") == f"table inet {STEPS[0].table}\n"


@pytest.mark.host
@pytest.mark.parametrize(
    ("meddling", "rest"),
    [
        ("add rule inet gorae_abcd1234 forward drop", "flush chain"),
        ("flush chain inet gorae_abcd1234 refuse", "flush chain"),
        ("add element inet gorae_abcd1234 inside { 10.181.8.99 }", "flush set"),
        ("delete element inet gorae_abcd1234 published { tcp . 8080 }", "flush map"),
        ("add chain inet gorae_abcd1234 theirs", "delete chain"),
        ("add set inet gorae_abcd1234 theirs { type mark; }", "delete set"),
    ],
    ids=["rule", "no-rules", "element", "no-element", "chain", "set"],
)
def test_what_others_changed_alone_is_put_back(netns: Namespace, meddling: str, rest: str) -> None:
    wanted = ruleset(BUSY)
    with netns.inside():
        nft.commit(whole(wanted))
        nft.commit(f"{meddling}\n")
        found = nft.standing(wanted)
        assert found is not None
        change = delta(found[1], wanted, found[0])
        assert {line.split()[0] for line in change.splitlines()} <= {"flush", "add", "delete"}
        assert rest in change and len(change.splitlines()) < 30
        nft.commit(change)
        assert nft.standing(wanted) == ([], wanted)


@pytest.mark.host
@pytest.mark.parametrize(
    "other",
    [
        "add chain inet gorae_abcd1234 forward { type filter hook forward priority 7; }",
        "add set inet gorae_abcd1234 inside { type mark; }",
    ],
    ids=["hook", "type"],
)
def test_what_cannot_be_changed_in_place_is_said(netns: Namespace, other: str) -> None:
    with netns.inside():
        assert nft.standing(ruleset(BUSY)) is None, "no table"
        nft.commit(f"add table inet gorae_abcd1234\n{other}\n")
        assert nft.standing(ruleset(BUSY)) is None


@pytest.mark.host
def test_a_table_that_sleeps_is_replaced(netns: Namespace) -> None:
    wanted = ruleset(BUSY)
    with netns.inside():
        nft.commit(f"add table inet {wanted.table} {{ flags dormant; }}\n")  # nft 1.0.6 lists it as half a JSON
        assert nft.standing(wanted) is None
        nft.commit(whole(wanted))
        nft.commit(f"add table inet {wanted.table} {{ flags dormant; }}\n")
        assert nft.standing(wanted) is None
        nft.commit(whole(wanted))
        assert nft.standing(wanted) == ([], wanted)


@pytest.fixture
def netns() -> Iterator[Namespace]:
    space = Namespace()
    yield space
    space.close()


def _check_with_nft(text: str) -> None:
    done = subprocess.run(
        ["unshare", "-n", "nft", "-c", "-f", "-"], input=text, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
