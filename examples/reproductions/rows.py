"""Functions of the two reproductions: run charedge, print a row."""

import subprocess
import sys
from collections.abc import Callable

from charedge import CharedgeError


def row(name: str, figure: str) -> None:
    """Print a line of the table at once."""
    print(f"{name:4} {figure}", flush=True)


def charedge(*arguments: object) -> tuple[str, str]:
    """Run a command of charedge, and show its stderr while it runs.

    Returns:
        Its stdout and its stderr.
    """
    command = [str(argument) for argument in arguments]
    print("     $ charedge", *command, file=sys.stderr, flush=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "charedge", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:  # training takes long: show its progress
        said.append(line)
        print(f"     {line}", end="", file=sys.stderr, flush=True)
    stdout, _ = process.communicate()
    if process.returncode:
        sys.exit(process.returncode)
    return stdout, "".join(said)


def run_program(main: Callable[[], None]) -> None:
    """Run a program; an error that its user can cause is a sentence on stderr."""
    try:
        main()
    except (CharedgeError, OSError) as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
