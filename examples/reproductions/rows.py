"""What the two reproductions share: running charedge, and printing a row of what came out."""

import subprocess
import sys


def row(name: str, figure: str) -> None:
    """A line of the table, as it is known."""
    print(f"{name:4} {figure}", flush=True)


def charedge(*arguments: object) -> tuple[str, str]:
    """Run a command line as one would type it; what it said on the way is shown, too.

    Returns:
        What it wrote to stdout and to stderr.
    """
    command = [str(argument) for argument in arguments]
    print("     $ charedge", *command, file=sys.stderr, flush=True)
    process = subprocess.Popen(
        [sys.executable, "-m", "charedge", *command], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = []
    for line in process.stderr:  # training takes long: show how it goes
        said.append(line)
        print(f"     {line}", end="", file=sys.stderr, flush=True)
    stdout, _ = process.communicate()
    if process.returncode:
        sys.exit(process.returncode)
    return stdout, "".join(said)
