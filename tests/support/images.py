"""Images for tests: the sample ones, built once per machine, and hostile or odd ones written byte by byte.

GORAE_TEST_CACHE: where built images are kept (default /var/cache/gorae/images).
"""

from __future__ import annotations

import base64
import contextlib
import gzip
import hashlib
import io
import json
import os
import shutil
import socket
import ssl
import subprocess
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from agent.images.config import ARCHITECTURES

BUILD = Path(__file__).resolve().parents[2] / "deploy/images/build"
ARCHITECTURE = ARCHITECTURES.get(os.uname().machine, os.uname().machine)

# Sample images ---------------------------------------------------------------------------------------------------------


def sample(
    kind: Literal["redis", "postgres", "web", "busybox"], cache: Path | None = None
) -> tuple[Path, dict[str, Any]]:
    """(root file system tar, config) of a sample image."""
    cache = cache or Path(os.environ.get("GORAE_TEST_CACHE", "/var/cache/gorae/images"))
    tar = cache / f"{kind}.tar"
    cache.mkdir(parents=True, exist_ok=True)
    subprocess.run([str(BUILD), kind, str(tar), "--cache", str(cache)], check=True, capture_output=True, timeout=300)
    return tar, json.loads(tar.with_name(tar.name + ".json").read_text())


def busybox_tar(cache: Path | None = None) -> Path:
    return sample("busybox", cache)[0]


def redis_tar(cache: Path | None = None) -> Path:
    return sample("redis", cache)[0]


def web_tar(cache: Path | None = None) -> Path:
    return sample("web", cache)[0]


# Layers ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Item:
    """One tar entry; `content` of a file, `link` of a symlink or hard link."""

    name: str
    kind: bytes = tarfile.REGTYPE
    content: bytes = b""
    link: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime: float = 1_600_000_000
    device: tuple[int, int] = (0, 0)
    pax: Mapping[str, str] = field(default_factory=dict)


def file(name: str, content: str = "", **more: Any) -> Item:
    return Item(name, content=content.encode(), **more)


def directory(name: str, mode: int = 0o755, **more: Any) -> Item:
    return Item(name, tarfile.DIRTYPE, mode=mode, **more)


def symlink(name: str, target: str, **more: Any) -> Item:
    return Item(name, tarfile.SYMTYPE, link=target, mode=0o777, **more)


def hardlink(name: str, target: str) -> Item:
    return Item(name, tarfile.LNKTYPE, link=target)


def layer(*items: Item, form: int = tarfile.PAX_FORMAT) -> bytes:
    """A layer's tar, uncompressed."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=form, encoding="utf-8", errors="surrogateescape") as tar:
        for item in items:
            info = tarfile.TarInfo(item.name)
            info.type, info.linkname, info.mode = item.kind, item.link, item.mode
            info.uid, info.gid, info.mtime, info.size = item.uid, item.gid, item.mtime, len(item.content)
            info.devmajor, info.devminor = item.device
            info.pax_headers = dict(item.pax)
            tar.addfile(info, io.BytesIO(item.content))
    return out.getvalue()


def sha(raw: bytes) -> str:
    return "sha256:" + hashlib.sha256(raw).hexdigest()


def compress(raw: bytes, how: str) -> bytes:
    if how == "gzip":
        return gzip.compress(raw, mtime=0)
    if how == "zstd":
        return subprocess.run(["zstd", "-qc"], input=raw, capture_output=True, check=True).stdout
    return raw


# Whole images ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MadeImage:
    config: bytes
    layers: tuple[bytes, ...]  # as stored: compressed or not
    manifest: bytes
    media: str

    @property
    def id(self) -> str:
        return sha(self.config)

    @property
    def digest(self) -> str:
        return sha(self.manifest)

    @property
    def blobs(self) -> dict[str, bytes]:
        return {sha(raw): raw for raw in (self.config, self.manifest, *self.layers)}


def image(
    *layers: bytes,
    config: Mapping[str, Any] | None = None,
    docker: bool = False,
    compression: str = "gzip",
    diff_ids: Sequence[str] | None = None,
    history: bool = False,
) -> MadeImage:
    """A Docker (schema 2) or OCI image; `diff_ids` to lie about the layers."""
    document = {
        "architecture": ARCHITECTURE,
        "os": "linux",
        "created": "2024-01-02T03:04:05Z",
        "config": dict(config or {"Cmd": ["sh"]}),
        "rootfs": {"type": "layers", "diff_ids": list(diff_ids or map(sha, layers))},
    }
    if history:
        document["history"] = [{"created": document["created"], "created_by": "a test"} for _ in layers]
    raw_config = json.dumps(document).encode()
    kind = "application/vnd.docker." if docker else "application/vnd.oci."
    suffix = "" if compression == "plain" else ("." if docker else "+") + compression
    layer_media = kind + ("image.rootfs.diff.tar" if docker else "image.layer.v1.tar") + suffix
    media = kind + ("distribution.manifest.v2+json" if docker else "image.manifest.v1+json")
    stored = tuple(compress(raw, compression) for raw in layers)
    manifest = {
        "schemaVersion": 2,
        "mediaType": media,
        "config": {
            "mediaType": kind + ("container.image.v1+json" if docker else "image.config.v1+json"),
            "digest": sha(raw_config),
            "size": len(raw_config),
        },
        "layers": [{"mediaType": layer_media, "digest": sha(raw), "size": len(raw)} for raw in stored],
    }
    # not the bytes another writer would produce: whoever parses and writes it again changes the digest
    return MadeImage(raw_config, stored, json.dumps(manifest, indent=3).encode(), media)


def write_tar(path: Path, members: Mapping[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, raw in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(raw)
            tar.addfile(info, io.BytesIO(raw))
    return path


def docker_archive(path: Path, images: Sequence[tuple[MadeImage, Sequence[str]]]) -> Path:
    """As `docker save` writes it: layers uncompressed (make the images with compression="plain")."""
    members: dict[str, bytes] = {}
    table = []
    for made, tags in images:
        names = []
        for raw in made.layers:
            names.append(f"{sha(raw)[7:]}/layer.tar")
            members[names[-1]] = raw
        members[f"{made.id[7:]}.json"] = made.config
        table.append({"Config": f"{made.id[7:]}.json", "RepoTags": list(tags), "Layers": names})
    return write_tar(path, {**members, "manifest.json": json.dumps(table).encode()})


def oci_members(images: Sequence[tuple[MadeImage, str | None]]) -> dict[str, bytes]:
    members = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}'}
    entries = []
    for made, ref in images:
        members |= {f"blobs/sha256/{digest[7:]}": raw for digest, raw in made.blobs.items()}
        entry: dict[str, Any] = {"mediaType": made.media, "digest": made.digest, "size": len(made.manifest)}
        if ref is not None:
            entry["annotations"] = {"org.opencontainers.image.ref.name": ref}
        entries.append(entry)
    members["index.json"] = json.dumps({"schemaVersion": 2, "manifests": entries}).encode()
    return members


def oci_archive(path: Path, images: Sequence[tuple[MadeImage, str | None]]) -> Path:
    return write_tar(path, oci_members(images))


def oci_layout(path: Path, images: Sequence[tuple[MadeImage, str | None]]) -> Path:
    for name, raw in oci_members(images).items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(raw)
    return path


# A registry on loopback ------------------------------------------------------------------------------------------------


@dataclass
class Registry:
    """Debian's docker-registry, on a port of its own. `user`, `password`: what it asks for. `certificate`: the one it
    shows, for the name registry.test and 127.0.0.1; then it speaks TLS."""

    host: str  # "127.0.0.1:PORT"
    user: str = ""
    password: str = ""
    certificate: Path | None = None

    def push(self, repository: str, tag: str, made: MadeImage) -> str:
        """Put the image's bytes as they are; the full name."""
        for digest, raw in made.blobs.items():
            if digest != made.digest:
                self._blob(repository, digest, raw)
        self._send("PUT", f"/v2/{repository}/manifests/{tag}", made.manifest, made.media)
        return f"{self.host}/{repository}:{tag}"

    def push_index(self, repository: str, tag: str, platforms: Mapping[str, MadeImage]) -> bytes:
        """architecture → image; the index's bytes."""
        entries = []
        for architecture, made in platforms.items():
            self.push(repository, f"{tag}-{architecture}", made)
            place = {"os": "linux", "architecture": architecture}
            size = len(made.manifest)
            entries.append({"mediaType": made.media, "digest": made.digest, "size": size, "platform": place})
        media = "application/vnd.oci.image.index.v1+json"
        raw = json.dumps({"schemaVersion": 2, "mediaType": media, "manifests": entries}, indent=2).encode()
        self._send("PUT", f"/v2/{repository}/manifests/{tag}", raw, media)
        return raw

    def _blob(self, repository: str, digest: str, raw: bytes) -> None:
        place = self._send("POST", f"/v2/{repository}/blobs/uploads/", b"", "")
        joint = "&" if "?" in place else "?"
        self._send("PUT", f"{place}{joint}digest={digest}", raw, "application/octet-stream")

    def _send(self, method: str, where: str, raw: bytes, media: str) -> str:
        url = where if where.startswith("http") else f"{'https' if self.certificate else 'http'}://{self.host}{where}"
        headers = {"Content-Type": media} if media else {}
        if self.user:
            headers["Authorization"] = "Basic " + base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        request = urllib.request.Request(url, data=raw, method=method, headers=headers)
        trust = ssl.create_default_context(cafile=self.certificate) if self.certificate else None
        with urllib.request.urlopen(request, timeout=10, context=trust) as answer:
            return str(answer.headers.get("Location", ""))


@contextlib.contextmanager
def registry(user: str = "", password: str = "", tls: bool = False) -> Iterator[Registry]:
    program = shutil.which("docker-registry")
    assert program, "docker-registry is not installed: deploy/setup installs the test packages"
    with tempfile.TemporaryDirectory(prefix="g-registry-") as place, socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
        probe.close()
        config = Path(place) / "config.yml"
        config.write_text(
            f"version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {place}/data}}}}\n"
            f"http:\n  addr: 127.0.0.1:{port}\n"
        )
        made = Registry(f"127.0.0.1:{port}", user, password)
        with config.open("a") as more:
            if tls:
                made.certificate = certificate(Path(place))
                more.write(f"  tls: {{certificate: {made.certificate}, key: {place}/key.pem}}\n")
            if user:
                (Path(place) / "htpasswd").write_text(f"{user}:{bcrypt(password)}\n")
                more.write(f"auth: {{htpasswd: {{realm: test, path: {place}/htpasswd}}}}\n")
        with (Path(place) / "log").open("wb") as log:
            process = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
        try:
            _until_it_answers(process, made, Path(place) / "log")
            yield made
        finally:
            process.kill()
            process.wait()


def certificate(place: Path) -> Path:
    """cert.pem and key.pem there: self-signed, so that it is its own authority."""
    names = "subjectAltName=DNS:registry.test,DNS:localhost,IP:127.0.0.1"
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=registry.test"]
    files = ["-addext", names, "-keyout", str(place / "key.pem"), "-out", str(place / "cert.pem")]
    subprocess.run([*command, *files], check=True, capture_output=True)
    return place / "cert.pem"


def bcrypt(password: str) -> str:
    """The only form docker-registry takes; libcrypt makes it, Python's own crypt is on its way out."""
    program = ["perl", "-e", "print crypt($ARGV[0], q($2y$05$abcdefghijklmnopqrstuu))", password]
    return subprocess.run(program, check=True, capture_output=True, text=True).stdout


def _until_it_answers(process: subprocess.Popen[bytes], made: Registry, log: Path) -> None:
    trust = ssl.create_default_context(cafile=made.certificate) if made.certificate else None
    url = f"{'https' if trust else 'http'}://{made.host}/v2/"
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(url, timeout=1, context=trust).close()
            return
        except urllib.error.HTTPError as error:
            if error.code == 401:
                return
            raise
        except urllib.error.URLError as error:
            if process.poll() is not None or time.monotonic() > deadline:
                raise AssertionError(f"the registry does not answer: {log.read_text()}") from error
            time.sleep(0.02)  # it says nowhere that it is ready
