"""The time that training steps take."""

from __future__ import annotations

import time


class StepTimer:
    """A stopwatch for the steps of one epoch; the first step is left out of the mean, because it may compile."""

    def __init__(self) -> None:
        self._last_lap = self._first_step = time.perf_counter()
        self._steps = 0

    def count_step(self) -> None:
        """Count a step that has been dispatched."""
        if not self._steps:
            self._first_step = time.perf_counter()
        self._steps += 1

    def lap(self) -> float:
        """Seconds since the last call, or since the timer was made."""
        before, self._last_lap = self._last_lap, time.perf_counter()
        return self._last_lap - before

    def seconds_per_step(self) -> float:
        """Mean seconds of a step so far."""
        return max(time.perf_counter() - self._first_step, 1e-9) / max(1, self._steps - 1)
