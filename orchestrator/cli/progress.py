"""Progress of pulls and loads: on a terminal a line per image and per layer on its way, drawn again; elsewhere a line
per step of an image, and per layer that has come."""

from __future__ import annotations

from typing import Any

from orchestrator.cli.client import Stream, Unreachable
from orchestrator.cli.render import Screen, cut, safe, size


class Progress:
    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._latest: dict[tuple[str, str], dict[str, Any]] = {}  # by image, and layer or ""

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
        name, layer = str(step.get("image") or ""), str(step.get("layer") or "")
        if step.get("step") == "again":
            note = str(step.get("note", ""))
            self._note(note if name in note else f"{name}  {note}")
            return
        before = self._latest.get((name, layer), {})
        self._latest[name, layer] = step
        if step.get("step") == "done":  # a layer that is over takes no line
            self._latest = {
                key: last
                for key, last in self._latest.items()
                if not key[1] or key[0] != name or layer not in ("", key[1])
            }
        if self._screen.live:
            self._screen.draw([cut(_line(key, self._latest[key]), self._screen.width) for key in sorted(self._latest)])
        elif before.get("step") != step.get("step") and (not layer or step.get("step") == "done"):
            what = f"{name}  layer {layer}" if layer else name
            amount = f"  {size(step['total'])}" if layer else ""
            self._screen.line(safe(f"{what}  {step.get('step', '')}{amount}".strip()))
            self._screen.stream.flush()

    def _note(self, line: str) -> None:
        self._screen.erase()
        self._screen.paragraph(safe(line))
        self._screen.stream.flush()


def _line(key: tuple[str, str], step: dict[str, Any]) -> str:
    return safe(f"    {text(key[1], step)}" if key[1] else f"  {text(key[0], step)}")


def text(image: str, step: dict[str, Any]) -> str:
    done, total = step.get("done"), step.get("total")
    amount = ""
    if isinstance(done, int | float) and isinstance(total, int | float) and total:
        counts = total < 1000  # layers; otherwise bytes
        amount = f"{done:g} of {total:g}" if counts else f"{size(done)} of {size(total)}"
    elif isinstance(done, int | float) and done:
        amount = size(done)
    return f"{image}  {step.get('step', '')}  {amount}".rstrip()
