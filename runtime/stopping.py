"""Where a text ends before its length: at a stop string, even one that comes piece by piece."""

from __future__ import annotations

from collections.abc import Sequence

from .errors import InvalidOption


class StopStrings:
    """Passes a text on up to the first stop string, holding back no more than could still become one."""

    def __init__(self, stops: Sequence[str]) -> None:
        """
        Raises:
            InvalidOption: a stop string is empty.
        """
        if not all(stops):
            raise InvalidOption("stop", "must not be empty: leave it out to stop nowhere.")
        self._stops = tuple(stops)
        self._held = ""
        self.found = False

    def feed(self, piece: str) -> str:
        """The text that can be passed on now that a piece has come; `found` is set where a stop string ends it."""
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
        """What was held back, once the text is over."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """How many characters at the end of the text could begin the stop string."""
    return next(size for size in range(min(len(stop) - 1, len(text)), -1, -1) if text.endswith(stop[:size]))
