"""Write the program's own help texts into command-line.md, and the server's fields into serve.md: python docs/update_help.py"""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path

from charedge.runtime.server.protocol import completion_fields
from charedge.runtime.server.schema import expected
from charedge.runtime.server.settings import Settings

from charedge.program import run

PAGE = Path(__file__).parent / "command-line.md"
SERVER_PAGE = Path(__file__).parent / "serve.md"
FIELDS = re.compile(r"<!-- fields -->\n(?:\n(?:\|.*\n)+)?")
BLOCK = re.compile(r"<!-- help: (\w+) -->\n(?:\n```text\n.*?```\n)?", re.DOTALL)


def help_text(command: str) -> str:
    """What `charedge COMMAND --help` prints on a terminal of 100 columns."""
    os.environ["COLUMNS"] = "100"
    output = io.StringIO()
    with contextlib.redirect_stdout(output):
        run([command, "--help"])
    return output.getvalue()


def updated(page: str) -> str:
    """The page with every help text as it is now."""
    return BLOCK.sub(lambda match: f"<!-- help: {match[1]} -->\n\n```text\n{help_text(match[1])}```\n", page)


def field_table() -> str:
    """The fields of a completion as the server checks them, with its default limits."""
    fields = completion_fields(Settings())
    rows = [f"| `{field.name}` | {expected(field.schema).replace('|', '&#124;')} | {field.description} |" for field in fields]
    return "\n".join(["| field | value | meaning |", "|---|---|---|", *rows]) + "\n"


def with_fields(page: str) -> str:
    """The server's page with the fields as they are now."""
    return FIELDS.sub(lambda match: f"<!-- fields -->\n\n{field_table()}", page)


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    SERVER_PAGE.write_text(with_fields(SERVER_PAGE.read_text(encoding="utf-8")), encoding="utf-8")
