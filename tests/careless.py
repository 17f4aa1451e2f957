"""Run the command line with many lists of arguments, each in a process of its own that starts at once, because it is forked.

Reads a JSON array of arrays of arguments from stdin and prints a JSON object for each, in their order: its exit status (None if it
was stopped after --seconds, negative for a signal), what it wrote to stdout, and what it wrote to stderr.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import tempfile
import traceback

from charedge.runtime import cli, model  # noqa: F401 - imported once for all processes

from charedge import program


def outcome(arguments: list[str], seconds: int) -> dict[str, object]:
    """The outcome of one call with an empty stdin."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        process = os.fork()
        if not process:
            signal.alarm(seconds)
            os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
            os.dup2(out.fileno(), 1)
            os.dup2(err.fileno(), 2)
            try:
                status = program.run(arguments)
                sys.stdout.flush()
            except BaseException:
                traceback.print_exc()
                status = 70
            os._exit(status)
        status = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        out.seek(0)
        err.seek(0)
        return {
            "status": None if status == -signal.SIGALRM else status,
            "stdout": out.read().decode(errors="replace"),
            "stderr": err.read().decode(errors="replace"),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=int, default=20)
    seconds = parser.parse_args().seconds
    for arguments in json.load(sys.stdin):
        print(json.dumps(outcome(arguments, seconds)), flush=True)


if __name__ == "__main__":
    main()
