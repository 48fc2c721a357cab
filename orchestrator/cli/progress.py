"""Progress of pulls and loads: one line per image, drawn again on a terminal; first and last steps elsewhere."""

from __future__ import annotations

from typing import Any

from orchestrator.cli.client import Stream, Unreachable
from orchestrator.cli.render import Screen, cut, size


class Progress:
    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._latest: dict[str, dict[str, Any]] = {}

    def result(self, stream: Stream) -> Any:
        """Consume an answer of {progress}*, {result}; its errors are raised by the stream."""
        try:
            with stream:
                for document in stream:
                    if "result" in document:
                        return document["result"]
                    if isinstance(document.get("progress"), dict):
                        self._show(document["progress"])
        finally:
            self._screen.erase()
        raise Unreachable(
            "cannot tell how it ended: the daemon ended the connection", code="daemon-away", hint="gorae status"
        )

    def _show(self, step: dict[str, Any]) -> None:
        name = str(step.get("image") or "")
        before = self._latest.get(name, {})
        self._latest[name] = step
        if self._screen.live:
            self._screen.draw(
                [cut(f"  {text(image, last)}", self._screen.width) for image, last in self._latest.items()]
            )
        elif before.get("step") != step.get("step"):
            self._screen.line(f"{name}  {step.get('step', '')}".strip())
            self._screen.stream.flush()


def text(image: str, step: dict[str, Any]) -> str:
    done, total = step.get("done"), step.get("total")
    amount = ""
    if isinstance(done, int | float) and isinstance(total, int | float) and total:
        counts = total < 1000  # layers; otherwise bytes
        amount = f"{done:g} of {total:g}" if counts else f"{size(done)} of {size(total)}"
    elif isinstance(done, int | float) and done:
        amount = size(done)
    return f"{image}  {step.get('step', '')}  {amount}".rstrip()
