"""A table on the terminal."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

Row = TypeVar("Row")
Columns = dict[str, Callable[[Row], str]]
"""The heading of each column, and a function from a row to its text."""


def table(columns: Columns[Row], rows: Sequence[Row]) -> str:
    """A line of headings and one per row; numbers are right-aligned."""
    lines = [list(columns), *([show(row) for show in columns.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    left = [any(not cell[:1].isdigit() for cell in column) for column in zip(*lines[1:], strict=True)]

    def aligned(line: list[str]) -> str:
        cells = zip(line, widths, left, strict=True)
        return "  ".join(cell.ljust(width) if text else cell.rjust(width) for cell, width, text in cells).rstrip()

    return "\n".join(map(aligned, lines))
