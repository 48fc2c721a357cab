"""What those who come from docker compose say first → what to say here. Read only when a command is not understood."""

from __future__ import annotations

VERBS = {
    "ps": "gorae status",
    "port": "gorae ports",
    "create": "gorae up",
    "watch": "gorae up, again",
    "rm": "gorae down; gorae image rm; gorae volume rm",
    "pull": "gorae up --pull always; gorae image pull NAME",
    "images": "gorae image ls",
    "volumes": "gorae volume ls",
}
# The same of their options; a word that is no option is SERVICE.
OPTIONS = {
    "gorae up --scale": "gorae scale SERVICE=N",
    "gorae up --force-recreate": "gorae recreate",
    "gorae up --wait": "gorae up, which always waits",
    "gorae down --remove-orphans": "gorae down, which always removes the whole stack",
    "gorae down --rmi": "gorae down, then gorae image prune --all",
}
