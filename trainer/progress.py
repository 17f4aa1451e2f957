"""What a person sees while a model trains: a bar on a terminal, plain lines elsewhere, all of it on stderr."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

from ..runtime.scoring import to_bits

LINE_SECONDS = 15.0


class Progress:
    """The state of one epoch, redrawn or printed again as it goes on."""

    def __init__(self, epochs: int, steps: int) -> None:
        self._epochs, self._steps = epochs, steps
        self._bar = _bar() if sys.stderr.isatty() else None
        self._task = None
        self._printed = 0.0

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def start_epoch(self, epoch: int, step: int) -> None:
        self._printed = time.monotonic()
        if self._bar:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(f"epoch {epoch}/{self._epochs}", total=self._steps, completed=step, figures="")

    def update(self, epoch: int, step: int, nats: float, characters_per_second: float, seconds_left: float) -> None:
        """Show the epoch's mean loss so far, the speed, and the time left for the whole training."""
        speed = f"{characters_per_second / 1000:,.1f} k chars/s"
        figures = f"{nats:.4f} nats  {to_bits(nats):.4f} bits/char  {speed}  {_clock(seconds_left)} left"
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=step, figures=figures)
        elif time.monotonic() - self._printed >= LINE_SECONDS:
            self._printed = time.monotonic()
            self.say(f"epoch {epoch}/{self._epochs}  batch {step}/{self._steps}  {figures}")

    def say(self, message: str) -> None:
        """A line that stays, above the bar if there is one."""
        if self._bar:
            self._bar.console.print(message, markup=False, highlight=False, soft_wrap=True)
        else:
            print(message, file=sys.stderr, flush=True)


def _bar() -> Any:
    """A bar by rich, which is imported only where there is a terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f} %  {task.fields[figures]}"),
    )
    return Progress(*columns, console=Console(stderr=True), transient=True)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
