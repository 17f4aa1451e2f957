"""Stop strings: the end of a text before its length, even if the string comes piece by piece."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import InvalidOption


class StopStrings:
    """Passes a text on up to the first stop string, and holds back only what can still become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        """
        Raises:
            InvalidOption: a stop string is empty.
        """
        if not all(stops):
            raise InvalidOption("stop", "must not be empty: leave it out, or give a text.")
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def feed(self, piece: str) -> str:
        """Add a piece; returns the text that can be passed on, and sets `found` if a stop string ends it."""
        if not self._stops:
            return piece
        text = self._held + piece
        places = [place for stop in self._stops if (place := text.find(stop)) >= 0]
        if places:
            self.found, self._held = True, ""
            return text[: min(places)]
        keep = max(_overlap(text, stop) for stop in self._stops)
        passed, self._held = text[: len(text) - keep], text[len(text) - keep :]
        return passed

    def rest(self) -> str:
        """The text that was held back, at the end of the text."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Number of characters at the end of the text that can be the start of the stop string."""
    return next(size for size in range(min(len(stop) - 1, len(text)), -1, -1) if text.endswith(stop[:size]))
