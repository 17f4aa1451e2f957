"""How every command prints: the result to stdout, all else to stderr, nothing to a terminal that could harm it."""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

import typer

PLAIN: dict[str, Any] = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}
"""How every part of the command line is set up: errors are one line, and help is plain text that needs no rich."""

JSON = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


def say(message: object) -> None:
    """One line on stderr, where everything goes that is not the result."""
    print(f"charedge: {message}", file=sys.stderr, flush=True)


def print_json(fields: dict[str, Any]) -> None:
    print(json.dumps(fields, ensure_ascii=False, indent=2))
