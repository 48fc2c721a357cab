"""Volumes with real containers: whose data stays, whose goes, and what holds a container back."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.host.conftest import import_images, sample_tars, service
from tests.support.host import Host, until

pytestmark = pytest.mark.host


COUNT = "echo x >> /data/x; wc -l < /data/x; sleep 3600"


def said(host: Host, stack: str, text: str) -> None:
    until(
        lambda: text in host.cli("logs", stack).stdout,
        f"{stack} to say {text!r}",
        tell=lambda: host.cli("logs", stack).stdout,
    )


def volumes(host: Host) -> dict[str, Path]:
    return {path.name: path / "_data" for path in (host.root / "state/volumes").glob("*")}


def made(host: Host, before: dict[str, Path]) -> Path:
    (name,) = volumes(host).keys() - before.keys()
    return volumes(host)[name]


def test_an_anonymous_volume_lives_as_long_as_its_slot(shared: Host) -> None:
    before = volumes(shared)
    text = service(COUNT, "volumes: [/data]")
    shared.up("anon", text)
    data = made(shared, before)
    said(shared, "anon", "1\n")
    shared.cli("restart", "anon")
    said(shared, "anon", "2\n")
    shared.cli("recreate", "anon")
    said(shared, "anon", "3\n")
    shared.up("anon", text + "    environment: {A: b}\n")
    said(shared, "anon", "4\n")
    assert volumes(shared).keys() - before.keys() == {data.parent.name}
    shared.down("anon")
    assert (data / "x").read_text() == "x\n" * 4, "down keeps data"
    shared.up("anon", text)
    assert len(volumes(shared).keys() - before.keys()) == 2, "a stack made anew begins with empty ones, as docker's"
    shared.down("anon", "--volumes")
    assert volumes(shared).keys() == before.keys()


def test_an_image_s_volume_is_filled_and_kept(shared: Host, tars: dict[str, Path], tmp_path: Path) -> None:
    config: dict[str, Any] = json.loads(Path(f"{tars['busybox']}.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "Volumes": {"/bin": {}, "/data": {}}}))
    shared.cli("image", "import", str(tars["busybox"]), "--config", str(tmp_path / "config.json"), "gorae/volumes:1")
    before = volumes(shared)
    shared.up("imgvol", service(COUNT).replace("busybox:1", "volumes:1"))
    new = [volumes(shared)[name] for name in volumes(shared).keys() - before.keys()]
    assert sorted(path.exists() for data in new for path in [data / "busybox"]) == [False, True]
    shared.cli("recreate", "imgvol")
    said(shared, "imgvol", "2\n")
    shared.down("imgvol", "--volumes")
    assert volumes(shared).keys() == before.keys()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A mount of the host that passes on what is mounted below it."""
    path = tmp_path / "disk"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "disk", str(path)], check=True)
    subprocess.run(["mount", "--make-shared", str(path)], check=True)
    (path / "usb").mkdir()
    yield path
    subprocess.run(["umount", "-R", "-l", str(path)], check=True)


@pytest.mark.parametrize("propagation", ["rslave", "rshared"])
def test_a_mount_of_the_host_appears_in_the_container(shared: Host, disk: Path, propagation: str) -> None:
    wait = "until test -e /disk/usb/file; do sleep 0.05; done; echo seen; sleep 3600"
    shared.up(f"prop-{propagation}", service(wait, f"volumes: ['{disk}:/disk:{propagation}']"))
    try:
        subprocess.run(["mount", "-t", "tmpfs", "usb", str(disk / "usb")], check=True)
        (disk / "usb/file").touch()
        said(shared, f"prop-{propagation}", "seen")
    finally:
        shared.down(f"prop-{propagation}")


def test_without_propagation_it_does_not(shared: Host, disk: Path) -> None:
    shared.up("prop", service("sleep 3600", f"volumes: ['{disk}:/disk']"))
    (pid,) = shared.pids("prop").values()
    subprocess.run(["mount", "-t", "tmpfs", "usb", str(disk / "usb")], check=True)
    (disk / "usb/file").touch()
    assert not Path(f"/proc/{pid}/root/disk/usb/file").exists()
    shared.down("prop")


def test_a_service_takes_the_volumes_of_another(shared: Host) -> None:
    text = """
services:
  one:
    image: gorae/busybox:1
    command: ["sh", "-c", "echo named > /named/x; echo anon > /anon/x; sleep 3600"]
    stop_grace_period: 100ms
    volumes: ["data:/named", "/anon"]
  two:
    image: gorae/busybox:1
    command: ["sh", "-c", "until cat /named/x /anon/x; do sleep 0.05; done; touch /anon/y || echo refused; sleep 3600"]
    stop_grace_period: 100ms
    volumes_from: ["one:ro"]
volumes: {data: {}}
"""
    shared.up("from", text)
    said(shared, "from", "refused")
    assert {"named", "anon"} <= set(shared.cli("logs", "from/two").stdout.replace("|", " ").split())
    shared.down("from", "--volumes")


def test_volumes_on_a_folder_in_memory_and_in_part(shared: Host, tmp_path: Path) -> None:
    (tmp_path / "device").mkdir()
    (tmp_path / "device/part").mkdir()
    command = "touch /all/a /part/b /memory/c; df -k /memory | tail -1; sleep 3600"
    text = service(
        command,
        'volumes: ["folder:/all", "memory:/memory", {type: volume, source: folder, target: /part, volume: {subpath: part}}]',
    )
    text += f"""volumes:
  folder: {{driver: local, driver_opts: {{type: none, o: bind, device: "{tmp_path / "device"}"}}}}
  memory: {{driver_opts: {{type: tmpfs, device: tmpfs, o: "size=1m"}}}}
"""
    shared.up("kinds", text)
    until(
        lambda: (tmp_path / "device/part/b").exists(),
        "the container to write",
        tell=lambda: shared.cli("logs", "kinds").stdout,
    )
    assert (tmp_path / "device/a").exists()
    said(shared, "kinds", " 1024 ")
    refused = shared.up("kinds", text.replace("type: none, o: bind", "type: none, o: 'bind,ro'"), check=False)
    assert (
        refused.returncode == 1
        and "cannot start kinds: the volume kinds_folder was made with other driver_opts" in refused.stderr
    )
    shared.down("kinds", "--volumes")
    assert (tmp_path / "device/a").exists(), "a folder of the host is not gorae's to delete"
    assert "kinds_memory" not in volumes(shared)


def test_an_external_volume_that_is_not_there(shared: Host) -> None:
    text = service("sleep 3600", "volumes: ['data:/data']") + "volumes: {data: {external: true, name: mine}}\n"
    refused = shared.up("ext", text, check=False)
    assert (
        refused.returncode == 1
        and "cannot start ext: the volume mine is external, and does not exist" in refused.stderr
    )
    assert "gorae volume create mine" in refused.stderr
    assert "ext" not in shared.cli("ls").stdout


# By name ---------------------------------------------------------------------------------------------------------------


def test_volumes_by_name(shared: Host) -> None:
    shared.cli("volume", "create", "mine", "--label", "tier=gold")
    text = (
        service("sleep 3600", "volumes: ['data:/data', 'own:/own', /anon]")
        + "volumes: {data: {external: true, name: mine}, own: }\n"
    )
    shared.up("byname", text)
    rows = {line.split()[0]: line.split()[1:3] for line in shared.cli("volume", "ls").stdout.splitlines()}
    assert rows["mine"] == ["-", "byname/app"] and rows["byname_own"] == ["byname", "byname/app"]
    assert ["byname/app.1", "byname/app"] in rows.values()
    refused = shared.cli("volume", "rm", "mine", check=False)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert refused.stderr.startswith("cannot remove volume mine: byname/app uses it\ntry  gorae down byname")
    shared.cli("stop", "byname")
    assert shared.cli("volume", "prune", "--all").returncode == 0
    assert {"mine", "byname_own"} <= volumes(shared).keys(), "a stopped stack uses its volumes"
    shared.down("byname", "--volumes")
    assert "byname_own" not in volumes(shared) and "mine" in volumes(shared), "what is external is not the stack's"
    assert "tier=gold" in shared.cli("volume", "inspect", "mine").stdout
    shared.cli("volume", "rm", "mine")
    assert "mine" not in volumes(shared)


def test_prune_takes_what_nobody_can_reach_any_more(shared: Host) -> None:
    before = volumes(shared).keys()
    shared.up("prune", service("sleep 3600", "volumes: [/anon, 'data:/data']") + "volumes: {data: }\n")
    shared.down("prune")
    said = shared.cli("volume", "prune").stdout
    assert volumes(shared).keys() - before == {"prune_data"} and "gorae volume prune --all" in said
    shared.cli("volume", "prune", "--all")
    assert "prune_data" not in volumes(shared)


REDIS = """
services:
  db:
    image: gorae/redis:7
    volumes: ["data:/data"]
    healthcheck: {test: ["CMD", "redis-cli", "ping"], interval: 200ms, timeout: 5s, retries: 50}
volumes: {data: {}}
"""


def inside(host: Host, *words: str) -> str:
    """What a program says in the container of the stack keep."""
    (pid,) = host.pids("keep").values()
    done = subprocess.run(
        ["nsenter", "-t", str(pid), "-a", *words], capture_output=True, text=True, check=True, timeout=30
    )
    return done.stdout.strip()


def redis(host: Host, *words: str) -> str:
    return inside(host, "redis-cli", *words)


def test_redis_keeps_its_data_over_restart_recreate_backup_and_restore(
    own: Host, tars: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "keep.tar.zst"
    own.up("keep", REDIS)
    assert redis(own, "SET", "colour", "blue") == "OK"
    assert redis(own, "SAVE") == "OK"
    running = own.cli("volume", "backup", "keep_data", str(tmp_path / "running"))
    assert "warning: keep/db ran on it" in running.stderr and "try  gorae stop keep/db" in running.stderr
    for verb in ("restart", "recreate"):
        own.cli(verb, "keep")
        assert redis(own, "GET", "colour") == "blue"
    own.cli("stop", "keep")
    assert own.cli("volume", "backup", "keep_data", str(file)).stderr == ""
    own.cli("start", "keep")
    assert redis(own, "SET", "colour", "red") == "OK" and redis(own, "SAVE") == "OK"
    refused = own.cli("volume", "restore", str(file), "--force", check=False)
    assert refused.stderr == "cannot restore volume keep_data: keep/db runs on it\ntry  gorae stop keep/db\n"
    own.cli("stop", "keep")
    assert own.cli("volume", "restore", str(file), check=False).returncode == 1
    own.cli("volume", "restore", str(file), "--force")
    own.cli("start", "keep")
    assert redis(own, "GET", "colour") == "blue", "the container that was stopped has the restored data"
    with Host() as other:
        import_images(other, tars, "redis")
        assert other.cli("volume", "restore", str(file)).stdout.count("restored keep_data: ")
        other.up("keep", REDIS)
        assert redis(other, "GET", "colour") == "blue"


POSTGRES = """
services:
  db:
    image: gorae/postgres:1
    restart: always
    volumes: ["data:/var/lib/postgresql"]
    healthcheck: {test: ["CMD", "psql", "-U", "postgres", "-qc", "SELECT 1"], interval: 200ms, timeout: 10s, retries: 300}
    stop_grace_period: 1m
volumes: {data: {}}
"""


def sql(host: Host, statement: str) -> str:
    return inside(host, "psql", "-U", "postgres", "-Atqc", statement)


def test_postgresql_keeps_its_data_over_kill_restart_recreate_backup_and_restore(own: Host, tmp_path: Path) -> None:
    large = sample_tars("postgres")
    import_images(own, large, "postgres")
    file, colours = tmp_path / "keep.tar.zst", "SELECT string_agg(name, ' ' ORDER BY id) FROM colours"
    own.up("keep", POSTGRES)
    sql(own, "CREATE TABLE colours (id serial PRIMARY KEY, name text UNIQUE)")
    sql(own, "INSERT INTO colours (name) VALUES ('blue')")
    (task,) = own.tasks("keep")
    os.kill(task["pid"], signal.SIGKILL)
    own.wait_task("keep", "db", lambda t: t["pid"] not in (None, task["pid"]) and t["health"] == "healthy", "recovery")
    assert sql(own, colours) == "blue", "what was committed is there"
    for number, verb in enumerate(("restart", "recreate")):
        own.cli(verb, "keep")
        own.wait_task("keep", "db", lambda t: t["health"] == "healthy", f"postgresql after {verb}")
        sql(own, f"INSERT INTO colours (name) VALUES ('{number}')")
    running = own.cli("volume", "backup", "keep_data", str(tmp_path / "running"))
    assert "warning: keep/db ran on it" in running.stderr
    own.cli("stop", "keep")
    assert own.cli("volume", "backup", "keep_data", str(file)).stderr == ""
    own.up("keep", POSTGRES)
    assert sql(own, colours) == "blue 0 1"
    sql(own, "DROP TABLE colours")
    own.cli("stop", "keep")
    own.cli("volume", "restore", str(file), "--force")
    own.up("keep", POSTGRES)
    assert sql(own, colours) == "blue 0 1"
    with Host() as other:
        import_images(other, large, "postgres")
        assert other.cli("volume", "restore", str(file)).stdout.count("restored keep_data: ")
        other.up("keep", POSTGRES)
        assert sql(other, colours) == "blue 0 1"
        assert "starting" in other.cli("logs", "keep").stdout and "initdb" not in other.cli("logs", "keep").stdout


def test_bad_backups_are_refused_in_one_paragraph(shared: Host, tmp_path: Path) -> None:
    (tmp_path / "text").write_text("no backup")
    for words, says in (
        (["restore", str(tmp_path / "text")], f"cannot restore {tmp_path}/text: it is no backup of a volume\ntry  "),
        (["restore", str(tmp_path / "none")], f"cannot read {tmp_path}/none: No such file or directory\ntry  "),
        (["backup", "none", str(tmp_path / "f")], "cannot find volume none\ntry  gorae volume ls"),
        (["create", "../x"], "cannot use volume '../x': a name begins with a letter or digit"),
        (["create", "x", "-o", "type=nfs"], "cannot use volume x: gorae mounts folders"),
        (["inspect", "none"], "cannot find volume none\ntry  gorae volume ls"),
    ):
        done = shared.cli("volume", *words, check=False)
        assert (done.returncode, done.stdout) == (1, "") and done.stderr.startswith(says), done.stderr


# A disk that is away ----------------------------------------------------------------------------------------------------


def test_a_container_waits_for_its_disk(own: Host, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()

    def mount() -> None:
        subprocess.run(["mount", "--bind", str(tmp_path / "real"), str(disk)], check=True)

    (tmp_path / "real/data").mkdir(parents=True)
    mount()
    try:
        text = service("echo x >> /data/x; sleep 3600", f"volumes: ['{disk}/data:/data']", "restart: always")
        own.up("gate", text)
        until(lambda: (tmp_path / "real/data/x").exists(), "the container to write")
        (task,) = own.tasks("gate")
        subprocess.run(["umount", "-l", str(disk)], check=True)
        own.stop()
        os.kill(task["pid"], signal.SIGKILL)
        own.start()
        found = own.wait_task("gate", "app", lambda t: t["reason"] == "mount-missing", "the container to wait")
        assert found["message"].startswith(f"mount missing: {disk}, where {disk}/data was at up")
        assert "mount missing" in own.cli("status").stdout
        refused = own.up("gate", text + "    environment: {A: b}\n", "--timeout", "3", check=False)
        assert refused.returncode == 1 and "mount missing" in refused.stderr
        assert list(disk.iterdir()) == [], "nothing is written into the directory below"
        mount()
        own.wait_task("gate", "app", lambda t: t["state"] == "running", "the container to start by itself")
        until(lambda: (tmp_path / "real/data/x").read_text() == "x\nx\n", "the container to write again")
        assert any(e["kind"] == "task.waiting" and e["reason"] == "mount-missing" for e in own.events("gate"))
        own.down("gate")
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=False)
