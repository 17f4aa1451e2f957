"""Progress reports: the one callback type through which all long work is reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Report:
    """The progress of a stage, or a message."""

    stage: str
    """Name of the stage, for example `encoding` or `epoch 3/10`."""
    done: int = 0
    total: int = 0
    """Number of units in all; 0 for a report that is only a message."""
    unit: str = ""
    """What `done` and `total` count, in the plural."""
    message: str = ""
    """A line that stays on the screen."""
    figures: Mapping[str, Any] = field(default_factory=dict)
    """Loss, speed and remaining time of a training, by the names of the JSON log (docs/training.md)."""


Progress = Callable[[Report], object]


def no_progress(report: Report) -> None:
    """Ignore a report."""
