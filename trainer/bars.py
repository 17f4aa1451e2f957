"""What a person sees of work in stages: a bar for each on a terminal, a line for each elsewhere."""

from __future__ import annotations

import sys
from contextlib import ExitStack
from typing import Any

import typer

from ..runtime.cli import say


class Bars:
    """A bar for each stage of the work on a terminal, a line for each elsewhere."""

    def __init__(self, unit: str = "characters") -> None:
        self._unit = unit
        self._stage = ""
        self._open = ExitStack()
        self._bar: Any = None

    def __enter__(self) -> Bars:
        return self

    def __exit__(self, *error: object) -> None:
        self._open.close()

    def show(self, stage: str, done: int, total: int) -> None:
        """Say how many units of a stage are done, and of how many."""
        if stage != self._stage:
            self._open.close()
            if sys.stderr.isatty():
                self._bar = self._open.enter_context(typer.progressbar(length=total, label=stage, file=sys.stderr))
            else:
                say(f"{stage} over {total:,} {self._unit}")
            self._stage = stage
        if self._bar is not None:
            self._bar.update(done - self._bar.pos)
