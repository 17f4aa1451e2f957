"""What the commands of all rooms share: how they print."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from .streams import to_json, write_error

PLAIN: dict[str, Any] = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}
"""How every part of the command line is set up: errors are one line, and help is plain text that needs no rich."""

JSON = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def say(message: object) -> None:
    """One line on stderr, where everything goes that is not the result."""
    write_error(f"charedge: {message}".replace("\n", "\\n"))


def print_json(fields: dict[str, Any]) -> None:
    """The result for a program."""
    print(to_json(fields, indent=2))
