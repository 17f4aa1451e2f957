"""Printing, as all commands do it: results, notices, and the last line of a terminal."""

from __future__ import annotations

import sys
from typing import Annotated, Any

import typer

from .streams import harmless, to_json, write_error

PLAIN: dict[str, Any] = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}
"""Settings of every Typer app: errors are one line, and help is plain text that does not need rich."""

JSON = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
CLEAR_LINE = "\r\x1b[K"


def say(message: object, text: str = "") -> None:
    """Print a notice, warning or error: one line on stderr that starts with the program's name.

    Args:
        message: the line; line feeds in it are shown as `\\n`.
        text: lines to print below it as they are.
    """
    line = f"charedge: {message}".replace("\n", "\\n")
    print_above(f"{line}\n{text}" if text else line)


def shown_loss(nats: float) -> str:
    """A loss as every command prints it, from nats per character."""
    from .runtime.scoring import to_bits

    return f"{nats:.4f} nats per character ({to_bits(nats):.4f} bits per character)"


def print_json(fields: dict[str, Any]) -> None:
    """Print a result as JSON."""
    print(to_json(fields, indent=2))


_last_line = ""  # a progress bar, without a newline at its end


def show_last_line(line: str) -> None:
    """Replace the last line of a terminal, which stays below all that is printed to stderr; an empty line removes it."""
    global _last_line
    _last_line = line
    sys.stderr.write(CLEAR_LINE + harmless(line))
    sys.stderr.flush()


def print_above(text: str) -> None:
    """Print to stderr, above the terminal's last line if there is one."""
    bar = _last_line
    if bar:
        show_last_line("")
    write_error(text)
    if bar:
        show_last_line(bar)
