"""The OpenAPI document, as specs/openapi.json holds it: `python -m orchestrator.api.openapi > specs/openapi.json`."""

from __future__ import annotations

import json

from fastapi import FastAPI

from orchestrator.api import upgrades
from orchestrator.api.app import ROUTERS


def document() -> str:
    """The routes alone, so that no store is needed; sorted, so that it changes only when the API does."""
    app = FastAPI(title="gorae")
    for router in ROUTERS:
        app.include_router(router)
    return json.dumps(upgrades.whole(app), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    print(document(), end="")
