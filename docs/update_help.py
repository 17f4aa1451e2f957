"""Write the program's own help texts into command-line.md: python docs/update_help.py"""

from __future__ import annotations

import contextlib
import io
import os
import re
from pathlib import Path

from charedge.program import run

PAGE = Path(__file__).parent / "command-line.md"
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


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
