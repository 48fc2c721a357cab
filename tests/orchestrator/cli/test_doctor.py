"""The checks of the host, on trees that a test makes."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from agent.kit.errors import Permanent
from orchestrator.cli import checks, client
from orchestrator.cli.main import main


def make(tree: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = tree / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return tree


V1 = {"cpu/x": "", "memory/x": "", "pids/x": ""}


@pytest.mark.parametrize(
    ("files", "state", "text"),
    [
        pytest.param({"cgroup.controllers": "cpu memory pids\n"}, "ok", "v2", id="v2"),
        pytest.param({"cgroup.controllers": "cpu pids\n"}, "bad", "v2, without memory", id="v2 without memory"),
        pytest.param({**V1, "unified/cgroup.controllers": "\n"}, "ok", "v1 hybrid", id="hybrid"),
        pytest.param(
            {**V1, "unified/cgroup.controllers": "hugetlb\n"},
            "bad",
            "v1 hybrid with hugetlb on the unified tree: crun refuses that",
            id="the trap",
        ),
        pytest.param({"cpu/x": ""}, "bad", "v1, without memory, pids", id="v1 without memory"),
    ],
)
def test_cgroup(tmp_path: Path, files: dict[str, str], state: str, text: str) -> None:
    (finding,) = checks.cgroup(make(tmp_path, files))
    assert (finding.state, finding.text) == (state, text)
    assert (finding.cure != "") == (state == "bad")
    assert (finding.fix == "cgroups") == ("crun refuses" in text)


GIB = 1 << 30


@pytest.mark.parametrize(
    ("room", "inodes", "flags", "state", "text"),
    [
        pytest.param(GIB, 5, 0, "ok", "1.1 GB left at {state}", id="room"),
        pytest.param(GIB, 0, 0, "bad", "no inodes left at {state}", id="no inodes"),
        pytest.param(100 << 20, 5, 0, "note", "105 MB left at {state}", id="little"),
        pytest.param(0, 5, 0, "bad", "0 B left at {state}", id="full"),
        pytest.param(
            GIB, 5, os.ST_RDONLY, "bad", "{state} is on a file system that is read-only", id="not to be written"
        ),
    ],
)
def test_disks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, room: int, inodes: int, flags: int, state: str, text: str
) -> None:
    make(tmp_path, {"state/x": "", "run/x": ""})
    disk = (4096, 1, 10 * GIB, room, room, 10, inodes, inodes, flags, 255)
    monkeypatch.setattr(os, "statvfs", lambda path: os.statvfs_result(disk))
    (finding,) = checks.disks(str(tmp_path))
    assert (finding.state, finding.text) == (state, text.format(state=tmp_path / "state"))
    assert (finding.cure != "") == (state != "ok")


def test_fixing_mounts_each_trapped_controller(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = make(tmp_path, {"unified/cgroup.controllers": "hugetlb misc\n"})
    mounted = []
    monkeypatch.setattr("agent.kit.syscalls.mount", lambda *arguments: mounted.append(arguments))
    assert checks.fix_cgroups(tree) == [
        f"mounted the cgroup v1 hierarchy hugetlb at {tree}/hugetlb",
        f"mounted the cgroup v1 hierarchy misc at {tree}/misc",
    ]
    assert [(m[1], m[2], m[4]) for m in mounted] == [
        (tree / "hugetlb", "cgroup", "hugetlb"),
        (tree / "misc", "cgroup", "misc"),
    ]


def test_a_missing_program_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda name, path: None)
    cures = {finding.what: finding.cure for finding in checks.programs()}
    assert cures["nft"] == "apt-get install nftables"
    assert {finding.state for finding in checks.programs()} == {"bad"}


def test_a_socket_that_is_not_for_you_is_no_daemon_that_is_away(monkeypatch: pytest.MonkeyPatch, root: Path) -> None:
    class Refused(client.socket.socket):
        def connect(self, _: object) -> None:
            raise PermissionError

    monkeypatch.setattr(client.socket, "socket", Refused)
    api = next(finding for finding in checks.daemons(str(root)) if finding.what == "API")
    assert (api.state, api.cure) == ("bad", "join the group gorae, or use sudo")


@pytest.mark.parametrize(
    ("found", "forward", "said"),
    [
        pytest.param({}, "1", [], id="nothing"),
        pytest.param(
            {}, "0", ["ok sysctls: net.ipv4.ip_forward is 0, and will be 1 while containers run"], id="before"
        ),
        pytest.param(
            {"sysctls": ["net.ipv4.ip_forward: 0 → 1"]},
            "1",
            ["ok sysctls: net.ipv4.ip_forward: 0 → 1: put back after the last container"],
            id="changed",
        ),
        pytest.param(
            {
                "troubles": [{"text": "FORWARD drops all", "cure": "iptables -I FORWARD -j ACCEPT"}],
                "firewalls": ["ufw"],
            },
            "1",
            [
                "bad firewall: FORWARD drops all",
                "note firewall: ufw is not asked about published ports: gorae ports lists who reaches them",
            ],
            id="firewalls",
        ),
    ],
)
def test_what_has_a_say_in_packets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, found: dict[str, object], forward: str, said: list[str]
) -> None:
    (tmp_path / "forward").write_text(forward + "\n")
    answer = {"troubles": [], "firewalls": [], "sysctls": [], **found}
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(checks, "ask_agent", lambda root, op: iter([("result", answer)]))
    findings = list(checks.network(None, tmp_path / "forward"))
    assert [f"{one.state} {one.what}: {one.text}" for one in findings] == said
    assert all(one.cure for one in findings if one.state != "ok")


def test_a_packet_filter_that_cannot_be_read_is_bad(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(root: str | None, op: str) -> object:
        raise Permanent("cannot run nft: it is not installed", code="nft-missing", hint="install the package nftables")

    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr(checks, "ask_agent", fail)
    (finding,) = checks.network(None)
    assert (finding.state, finding.cure) == ("bad", "install the package nftables")


def test_no_daemon_is_bad_and_exit_code_1(root: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--root", str(root), "--json"]) == 1
    findings = json.loads(capsys.readouterr().out)["findings"]
    api = next(finding for finding in findings if finding["what"] == "API")
    assert (api["state"], api["cure"]) == ("bad", "gorae daemon --detach, as root")
    assert main(["doctor", "--root", str(root)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert any(line.startswith("bad   API") for line in lines)
    assert all(len(line) <= 80 or "/" in line for line in lines)
