"""A pace: characters at even times, with the processor asleep in between."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from numbers import Real
from typing import Any

from .errors import InvalidOption

LOWEST, HIGHEST = 1e-3, 1e6  # characters per second
MAX_LATE_SECONDS = 1.0
"""After a longer delay the schedule starts again, so that at most the characters of this time are written at once."""


class Pace:
    """The times at which the pieces of a text are due, counted from the first one, so that short delays do not add up."""

    def __init__(self, characters_per_second: float, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            characters_per_second: from `LOWEST` to `HIGHEST`.
            clock: returns the time in seconds.

        Raises:
            InvalidOption: the pace is out of these bounds.
        """
        rate: Any = characters_per_second
        if not isinstance(characters_per_second, Real) or not LOWEST <= rate <= HIGHEST:  # NaN is not, either
            raise InvalidOption("characters_per_second", f"{rate!r} must be from {LOWEST:g} to {HIGHEST:,.0f}.")
        self._seconds, self._clock = 1 / float(rate), clock
        self._due: float | None = None

    def wait(self, characters: int, sleep: Callable[[float], object] = time.sleep) -> None:
        """Wait until a piece is due: at once for the first one, then for as long as the pieces before it take.

        Args:
            characters: the length of the piece.
            sleep: waits for a number of seconds, or less to end the waiting early.
        """
        now = self._clock()
        if self._due is None:
            self._due = now
        if self._due > now:
            sleep(self._due - now)
        self._due = max(self._due, now - MAX_LATE_SECONDS) + characters * self._seconds


def paced(pieces: Iterable[str], pace: Pace | None, sleep: Callable[[float], object] = time.sleep) -> Iterator[str]:
    """The pieces of a text, each when it is due.

    Args:
        pieces: of the text; a string is taken as its characters.
        pace: says when; None does not wait.
        sleep: as for `Pace.wait`.
    """
    for piece in pieces:
        if pace is not None:
            pace.wait(len(piece), sleep)
        yield piece
