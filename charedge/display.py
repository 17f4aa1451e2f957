"""Display of progress reports: a bar for each stage on a terminal, plain lines elsewhere, and a JSON log."""

from __future__ import annotations

import json
import math
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from .console import say, show_last_line
from .runtime.errors import CharedgeError
from .runtime.progress import Report

LINE_SECONDS = 15.0
"""Time between two lines about a stage where there is no bar, and between two entries of the log."""
DRAW_SECONDS = 0.1
"""Time between two drawings of a bar."""
FEWEST_CELLS = 10
"""Minimum width of a bar; figures that leave less room are not shown."""


class Display:
    """Shows the reports of a command; a context manager that removes the bar at its end."""

    def __init__(self, quiet: bool = False, json_log: Path | None = None) -> None:
        """
        Args:
            quiet: do not show reports.
            json_log: a file to which the figures of the reports are appended, one JSON object per line.

        Raises:
            CharedgeError: the log cannot be written.
        """
        self._quiet, self._log = quiet, json_log
        self._has_bar = not quiet and sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
        self._stage, self._last_line, self._last_drawing = "", 0.0, 0.0
        if json_log:
            try:
                is_new = not os.path.lexists(json_log)
                _append(json_log, "")
                if is_new:  # it may be in a folder that is to be empty
                    json_log.unlink()
            except OSError as error:
                raise CharedgeError(f"`json_log` {json_log} cannot be written ({error.strerror}): choose another file.") from None

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *error: object) -> None:
        self._end_stage()

    def __call__(self, report: Report) -> None:
        if report.message:
            if report.stage == self._stage:
                self._end_stage()
            self.say(report.message)
            self._record(report)
            return
        if report.stage != self._stage:
            self._begin_stage(report)
        if self._has_bar:
            self._draw(report)
        if time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            if not self._has_bar:
                self.say(_line(report))
            self._record(report)

    def say(self, message: str) -> None:
        """Print a notice above the bar; the lines below its first are a text, and are printed as they are."""
        if not self._quiet:
            notice, _, text = message.partition("\n")
            say(notice, text)

    def _begin_stage(self, report: Report) -> None:
        self._end_stage()
        self._stage, self._last_line, self._last_drawing = report.stage, time.monotonic(), 0.0
        if not (self._has_bar or report.figures):  # a training prints its own lines
            self.say(f"{report.stage} over {report.total:,} {report.unit}")

    def _end_stage(self) -> None:
        if self._has_bar and self._stage:
            with suppress(OSError, ValueError):
                show_last_line("")
        self._stage = ""

    def _draw(self, report: Report) -> None:
        if report.done < report.total and time.monotonic() - self._last_drawing < DRAW_SECONDS:
            return
        self._last_drawing = time.monotonic()
        try:
            show_last_line(_bar(report, _columns()))
        except (OSError, ValueError):  # the terminal is gone
            self._has_bar = False

    def _record(self, report: Report) -> None:
        """Append a report's figures to the log, if it has any; a full disk ends the log, not the training."""
        if not self._log or not report.figures:
            return
        try:
            _append(self._log, json.dumps({name: _finite(value) for name, value in report.figures.items()}) + "\n")
        except OSError as error:
            say(f"warning: {self._log} can no longer be written ({error.strerror}); the training continues without the log.")
            self._log = None


def _append(path: Path, line: str) -> None:
    """Append a line; the file is opened each time, so that it may be moved or emptied between two lines."""
    with path.open("a", encoding="utf-8") as file:
        file.write(line)


def _finite(value: Any) -> Any:
    """The value, or None for NaN and infinity, which JSON does not have."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _columns() -> int:
    """The width of the terminal on stderr, in characters."""
    with suppress(OSError, ValueError):
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    return 80


def _bar(report: Report, columns: int) -> str:
    """A bar and its figures, narrower than the terminal so that the line does not wrap."""
    share = min(1.0, report.done / report.total) if report.total else 1.0
    head, figures = f"{report.stage}  [", _figures(report)
    while True:
        tail = "  ".join([f"]  {share:4.0%}", *figures])
        cells = columns - 1 - len(head) - len(tail)
        if cells >= FEWEST_CELLS or not figures:
            break
        figures.pop(min(1, len(figures) - 1))  # the speed first, the loss last
    cells = max(cells, FEWEST_CELLS)
    filled = int(cells * share)
    return f"{head}{'#' * filled}{'-' * (cells - filled)}{tail}"[: columns - 1]


def _line(report: Report) -> str:
    figures = _figures(report) or [f"{report.done / max(report.total, 1):.0%}"]
    return "  ".join([report.stage, f"{report.done:,} of {report.total:,} {report.unit}", *figures])


def _figures(report: Report) -> list[str]:
    """The loss, the speed and the remaining time of a training; no figures for other work."""
    if not report.figures:
        return []
    nats, speed, left = (report.figures[name] for name in ("nats_per_character", "characters_per_second", "seconds_left"))
    return [f"{nats:.4f} nats/char", f"{speed / 1000:,.1f} k chars/s", f"{_clock(left)} left"]


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
