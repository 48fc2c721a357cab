"""The store's refusals, worded in one place so that the real store and its fake say the same."""

from __future__ import annotations

from pathlib import Path

from agent.kit.errors import Permanent, Temporary, UserError


def image_missing(image: str) -> UserError:
    return UserError(
        f"cannot find image {image} on this host",
        code="image-missing",
        hint=f"gorae image ls, or gorae image pull {image}",
        image=image,
    )


def not_in_registry(image: str, said: str) -> UserError:
    """404, and 401/403 too: registries answer "denied" for what does not exist."""
    return UserError(
        f"cannot pull {image}: its registry has no such image, or keeps it private ({said})",
        code="image-missing",
        hint="check the name and the tag; gorae login for a private image; gorae image ls shows what is here",
        image=image,
    )


def registry_away(image: str, said: str) -> Temporary:
    return Temporary(
        f"cannot pull {image}: its registry is away ({said})",
        code="registry-away",
        hint="check the network and the registry; what is here already still runs",
        image=image,
    )


def wrong_platform(image: str, said: str) -> UserError:
    return UserError(
        f"cannot pull {image}: it was not built for this machine ({said})",
        code="wrong-platform",
        hint="choose an image for this architecture",
        image=image,
    )


def pull_failed(image: str, said: str) -> Permanent:
    return Permanent(f"cannot pull {image}: {said}", code="pull-failed", hint="gorae doctor", image=image)


def bad_name(name: str, why: str) -> UserError:
    return UserError(
        f'cannot use "{name}" as an image name: {why}',
        code="bad-image-name",
        hint="a name looks like redis:7 or registry.example.com/team/app:1.2",
    )


def bad_login(registry: str, why: str, *, away: bool = False) -> Temporary | UserError:
    kind = Temporary if away else UserError
    return kind(
        f"cannot log in to {registry}: {why}",
        code="registry-away" if away else "bad-login",
        hint="check the network and the registry" if away else "check the user name and the password",
    )


def not_logged_in(registry: str) -> UserError:
    return UserError(
        f"cannot log out of {registry}: gorae has no password for it",
        code="not-logged-in",
        hint="gorae login --list; passwords of docker and podman are forgotten by docker or podman logout",
    )


def bad_config(why: str) -> UserError:
    return UserError(f"cannot use the image config: {why}", code="bad-image-config", hint="write it as Docker does")


def bad_image(image: str, why: str) -> Permanent:
    return Permanent(
        f"cannot read image {image}: {why}", code="bad-image", hint=f"gorae image rm {image}, then pull or load again"
    )


def bad_archive(archive: Path, why: str) -> UserError:
    return UserError(
        f"cannot load {archive}: {why}",
        code="bad-archive",
        hint="give a file written by docker save, or an OCI archive or layout",
    )


def bad_layer(layer: str, why: str) -> Permanent:
    return Permanent(
        f"cannot unpack layer {layer[:19]}: {why}", code="bad-layer", hint="the image is broken or hostile; use another"
    )


def too_big(layer: str, why: str) -> UserError:
    return UserError(
        f"cannot unpack layer {layer[:19]}: {why}",
        code="layer-too-big",
        hint="use a smaller image, or raise the limit in gorae.toml",
    )


def no_space(what: str, needed: int, free: int) -> UserError:
    """`needed` and `free` in bytes; needed may be an estimate."""
    return UserError(
        f"cannot store {what}: it needs about {_mib(needed)}, {_mib(free)} are free",
        code="no-space",
        hint="gorae image ls and gorae image rm, or make room on the disk",
        needed=needed,
        free=free,
    )


def image_in_use(image: str, holder: str) -> UserError:
    return UserError(
        f"cannot remove image {image}: {holder} uses it",
        code="image-in-use",
        hint="take that down first",
        holder=holder,
    )


def _mib(size: int) -> str:
    return f"{size / 1048576:.1f} MiB"
