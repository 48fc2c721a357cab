"""The table of keys is whole, honest and documented."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from orchestrator.compose.keys import ROOT, TABLE, Branch
from orchestrator.compose.validate import _WORDS

# Every property of the schemas in the Compose Specification, by the place where it may stand.
SPECIFIED = {
    "": "configs include models name networks secrets services version volumes",
    "services.*": "annotations attach blkio_config build cap_add cap_drop cgroup cgroup_parent command configs "
    "container_name cpu_count cpu_percent cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares cpus cpuset "
    "credential_spec depends_on deploy develop device_cgroup_rules devices dns dns_opt dns_search domainname entrypoint "
    "env_file environment expose extends external_links extra_hosts gpus group_add healthcheck hostname image init ipc "
    "isolation label_file labels links logging mac_address mem_limit mem_reservation mem_swappiness memswap_limit models "
    "network_mode networks oom_kill_disable oom_score_adj pid pids_limit platform ports post_start pre_start pre_stop "
    "privileged profiles provider pull_policy pull_refresh_after read_only restart runtime scale secrets security_opt "
    "shm_size stdin_open stop_grace_period stop_signal storage_opt sysctls tmpfs tty ulimits use_api_socket user "
    "userns_mode uts volumes volumes_from working_dir",
    "services.*.deploy": "endpoint_mode labels mode placement replicas resources restart_policy rollback_config "
    "update_config",
    "services.*.deploy.resources.limits": "cpus memory pids",
    "services.*.deploy.resources.reservations": "cpus devices generic_resources memory",
    "services.*.deploy.restart_policy": "condition delay max_attempts window",
    "services.*.healthcheck": "disable interval retries start_interval start_period test timeout",
    "services.*.env_file.[]": "format path required",
    "services.*.ports.[]": "app_protocol host_ip mode name protocol published target",
    "services.*.volumes.[]": "bind consistency image read_only source target tmpfs type volume",
    "services.*.volumes.[].bind": "create_host_path propagation recursive selinux",
    "services.*.volumes.[].volume": "labels nocopy subpath",
    "services.*.volumes.[].tmpfs": "mode size",
    "services.*.depends_on.*": "condition required restart",
    "services.*.networks.default": "aliases driver_opts gw_priority interface_name ipv4_address ipv6_address "
    "link_local_ips mac_address priority",
    "networks.default": "attachable driver driver_opts enable_ipv4 enable_ipv6 external internal ipam labels name",
    "volumes.*": "driver driver_opts external labels name",
}


def branch(path: str) -> Branch:
    found = ROOT
    for part in path.split(".") if path else ():
        found = found.children[part]
    return found


@pytest.mark.parametrize("path", SPECIFIED)
def test_every_key_of_the_specification_has_its_row(path: str) -> None:
    known = {name for name in branch(path).names() if not name.startswith("x-")}
    assert known == set(SPECIFIED[path].split())


@pytest.mark.parametrize("path", TABLE)
def test_a_row_is_complete(path: str) -> None:
    rule = TABLE[path]
    assert (rule.verdict == "supported") == bool(rule.kinds)
    assert (rule.verdict != "supported" or bool(rule.only)) == bool(rule.why)
    assert set(rule.kinds) <= set(_WORDS)


@pytest.mark.parametrize("path", TABLE)
def test_a_row_stands_below_a_supported_one(path: str) -> None:
    parent = path.rpartition(".")[0]
    if parent:
        assert TABLE[parent].verdict == "supported"
        kinds = TABLE[parent].kinds
        assert ("list" if path.endswith("[]") else "map") in kinds


def test_the_page_names_every_key_of_a_service() -> None:
    page = (Path(__file__).parents[3] / "docs/compose.md").read_text()
    words = set(re.findall(r"[a-z_-]+", page))
    missing = [name for name in branch("services.*").names() if name not in words]
    assert missing == []
