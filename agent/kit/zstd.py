"""zstd(1), for bytes that images, containers and users wrote: as nobody, and gone when we are."""

from __future__ import annotations

COMMAND = (
    "setpriv",
    "--reuid=65534",
    "--regid=65534",
    "--clear-groups",
    "--no-new-privs",
    "--pdeathsig=KILL",
    "zstd",
    "-qc",
)
