"""The `charedge` program: the rooms' commands behind one name, the errors as sentences, the exit statuses."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

import typer
from typer.core import TyperGroup

COMMANDS = {
    "train": "trainer",
    "finetune": "trainer",
    "evaluate": "trainer",
    "convert": "converter",
    "demo": "converter",
    "generate": "runtime",
    "info": "runtime",
    "verify": "runtime",
    "score": "runtime",
    "bench": "runtime",
}
"""The room of each command, in whose `cli.py` it is."""
FIELD = re.compile(r"`([a-z][a-z0-9_]*)`")
"""An argument of the Python API in a message."""
ARGUMENTS = ("corpus", "run", "model", "file")
"""Those that have no option, since they are given by their place."""


class Commands(TyperGroup):
    """All commands, each imported when it is called; an error in any of them becomes a sentence on stderr and an exit status."""

    def list_commands(self, ctx: Any) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in COMMANDS:
            return None
        room = import_module(f".{COMMANDS[cmd_name]}.cli", __package__)
        return typer.main.get_group(room.app).commands[cmd_name]


def as_options(message: object) -> str:
    """A message of the Python API for the command line: its arguments, in backquotes, become options.

    >>> as_options("`top_k` -1 must be a whole number from 0 up.")
    '--top-k -1 must be a whole number from 0 up.'
    """

    def option(match: re.Match[str]) -> str:
        name = match[1]
        return name.upper() if name in ARGUMENTS else f"--{RENAMED.get(name, name).replace('_', '-')}"

    return FIELD.sub(option, str(message))


RENAMED = {"banned": "ban", "teachers": "teacher"}
"""Options that are called otherwise than their arguments."""
