"""What a person sees of long work: a bar for each stage on a terminal, plain lines elsewhere; and what a program reads of it."""

from __future__ import annotations

import json
import math
import sys
import time
from pathlib import Path
from typing import Any

import typer

from .console import say
from .runtime.errors import CharedgeError
from .runtime.progress import Report

LINE_SECONDS = 15.0
"""Between two lines about one stage, where there is no bar, and between two entries of the log."""


class Display:
    """Shows the reports of a command; a context, after which no bar is left on the screen."""

    def __init__(self, quiet: bool = False, json_log: Path | None = None) -> None:
        """
        Args:
            quiet: show no reports.
            json_log: a file that gets the figures of the reports, a JSON object a line.

        Raises:
            CharedgeError: the log cannot be written.
        """
        self._quiet, self._log = quiet, json_log
        self._bar: Any = None
        self._stage, self._last_line, self._last_entry = "", 0.0, 0.0
        if json_log:
            try:
                _append(json_log, "")
            except OSError as error:
                raise CharedgeError(f"`json_log` {json_log} cannot be written ({error.strerror}): choose another file.") from None

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *error: object) -> None:
        self._end_bar()

    def __call__(self, report: Report) -> None:
        if report.message:
            self.say(report.message)
        elif not self._quiet:
            self._show(report)
        if report.figures:
            self._record(report)

    def say(self, message: str) -> None:
        """A line that stays, above the bar if there is one."""
        if self._quiet:
            return
        if self._bar is not None:
            print("\r\x1b[K", end="", file=sys.stderr)
        print(message, file=sys.stderr, flush=True)
        if self._bar is not None:
            self._bar.render_progress()

    def _show(self, report: Report) -> None:
        """Draw the bar of a stage, or print a line when it begins and every `LINE_SECONDS`."""
        details = _details(report)
        if report.stage != self._stage:
            self._end_bar()
            self._stage, self._last_line = report.stage, time.monotonic()
            if sys.stderr.isatty():
                self._bar = typer.progressbar(
                    length=report.total, label=report.stage, file=sys.stderr, width=0, show_eta=False, item_show_func=str
                )
                self._bar.__enter__()
            elif not report.figures:
                say(f"{report.stage} ({report.total:,} {report.unit})")
        if self._bar is not None:
            self._bar.update(report.done - self._bar.pos, details)
        elif time.monotonic() - self._last_line >= LINE_SECONDS:
            self._last_line = time.monotonic()
            say(f"{report.stage}: {report.done:,} of {report.total:,} {report.unit}  {details}".rstrip())

    def _end_bar(self) -> None:
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None

    def _record(self, report: Report) -> None:
        """An entry of the log, if there is one: every message's figures, and others now and then; a full disk ends the log."""
        if not self._log or (not report.message and time.monotonic() - self._last_entry < LINE_SECONDS):
            return
        self._last_entry = time.monotonic()
        try:
            _append(self._log, json.dumps({name: _finite(value) for name, value in report.figures.items()}) + "\n")
        except OSError as error:
            say(f"warning: {self._log} can no longer be written ({error.strerror}); the training continues without the log.")
            self._log = None


def _append(path: Path, line: str) -> None:
    """Add a line as a whole; the file is opened each time, so that it may be read, moved or emptied between two lines."""
    with path.open("a", encoding="utf-8") as file:
        file.write(line)


def _finite(value: Any) -> Any:
    """JSON has neither NaN nor infinity."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _details(report: Report) -> str:
    """The loss, the speed and the time that is left, of a training."""
    figures = report.figures
    if not figures:
        return ""
    speed, left = figures["characters_per_second"] / 1000, _clock(figures["seconds_left"])
    return f"{figures['nats_per_character']:.4f} nats/char  {speed:,.1f} k chars/s  {left} left"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
