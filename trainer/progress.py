"""What a person sees while a model trains, a bar on a terminal and plain lines elsewhere; and what a program reads of it."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from ..runtime.errors import CharedgeError
from ..runtime.scoring import to_bits
from ..runtime.streams import harmless, write_error
from .run import Epoch

LINE_SECONDS = 15.0


class Progress:
    """The state of one epoch, redrawn or printed again as it goes on: on stderr, and as JSON lines in a file."""

    def __init__(self, epochs: int, steps: int, quiet: bool = False, json_log: Path | None = None) -> None:
        """
        Args:
            epochs: how many the whole training has.
            steps: how many batches an epoch has.
            quiet: show warnings alone.
            json_log: a file that gets an object a line, for every epoch, and for its batches every `LINE_SECONDS`.

        Raises:
            CharedgeError: the log cannot be written.
        """
        self._epochs, self._steps, self._quiet, self._log = epochs, steps, quiet, json_log
        self._bar = _bar() if sys.stderr.isatty() and not quiet else None
        self._task = None
        self._told = 0.0
        if json_log:
            try:
                _append(json_log, "")
            except OSError as error:
                raise CharedgeError(f"the log {json_log} cannot be written ({error.strerror}): choose another file.") from None

    def __enter__(self) -> Progress:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def start_epoch(self, epoch: int, step: int) -> None:
        """Begin an epoch, counted from 1, of which some batches may be done."""
        self._told = time.monotonic()
        if self._bar:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task = self._bar.add_task(f"epoch {epoch}/{self._epochs}", total=self._steps, completed=step, figures="")

    def update(
        self,
        epoch: int,
        step: int,
        nats: float,
        characters_per_second: float,
        seconds_left: float,
        learning_rate: float | None = None,
    ) -> None:
        """Show the epoch's mean loss so far, the speed, and the time left for the whole training."""
        figures = f"{_loss(nats)}  {_speed(characters_per_second)}  {_clock(seconds_left)} left"
        if self._bar and self._task is not None:
            self._bar.update(self._task, completed=step, figures=figures)
        if time.monotonic() - self._told < LINE_SECONDS:
            return
        self._told = time.monotonic()
        if not self._bar:
            self.say(f"epoch {epoch}/{self._epochs}  batch {step}/{self._steps}  {figures}")
        self._record(
            event="batch",
            epoch=epoch,
            step=step,
            steps=self._steps,
            nats_per_character=nats,
            bits_per_character=to_bits(nats),
            characters_per_second=characters_per_second,
            seconds_left=seconds_left,
            learning_rate=learning_rate,
        )

    def end_epoch(self, epoch: Epoch, best: bool) -> None:
        """Show an epoch's figures; the time left is that of as many such epochs as are left."""
        validation = epoch.validation_nats_per_character
        self.say(
            f"epoch {epoch.epoch}/{self._epochs}  train {epoch.train_nats_per_character:.4f}  "
            f"validation {validation:.4f} nats ({to_bits(validation):.4f} bits)/char  "
            f"{_speed(epoch.characters_per_second)}  {epoch.seconds:.0f} s{'  (best so far)' if best else ''}"
        )
        self._record(
            event="epoch",
            epoch=epoch.epoch,
            step=self._steps,
            steps=self._steps,
            nats_per_character=epoch.train_nats_per_character,
            bits_per_character=to_bits(epoch.train_nats_per_character),
            characters_per_second=epoch.characters_per_second,
            seconds_left=epoch.seconds * (self._epochs - epoch.epoch),
            learning_rate=epoch.learning_rate,
            validation_nats_per_character=validation,
        )

    def say(self, message: str) -> None:
        """A line that stays, above the bar if there is one."""
        if not self._quiet:
            self._print(message)

    def warn(self, message: str) -> None:
        """A line that is shown to those who want quiet, too."""
        self._print(f"warning: {message}")

    def _print(self, message: str) -> None:
        if self._bar:
            self._bar.console.print(harmless(message), markup=False, highlight=False, soft_wrap=True)
        else:
            write_error(message)

    def _record(self, **fields: Any) -> None:
        """A line of the log, if there is one; a disk that is full ends the log and not the training."""
        if not self._log:
            return
        try:
            _append(self._log, json.dumps({name: _plain(value) for name, value in fields.items()}) + "\n")
        except OSError as error:
            self.warn(f"the log {self._log} cannot be written any more ({error.strerror}); training goes on without it.")
            self._log = None


def _append(path: Path, line: str) -> None:
    """Add a line as a whole; the file is opened each time, so that it may be read, moved or emptied between two lines."""
    with path.open("a", encoding="utf-8") as file:
        file.write(line)


def _plain(value: Any) -> Any:
    """JSON has no infinity and nothing that is no number."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


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


def _loss(nats: float) -> str:
    return f"{nats:.4f} nats  {to_bits(nats):.4f} bits/char"


def _speed(characters_per_second: float) -> str:
    return f"{characters_per_second / 1000:,.1f} k chars/s"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
