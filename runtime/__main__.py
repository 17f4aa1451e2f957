"""The `charedge` program. Only `sys` and `signal` are imported before Ctrl-C and SIGTERM are handled."""

from __future__ import annotations

import signal
import sys
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a command as Ctrl-C does, with an exit status of its own."""

    status = 143


def _terminate(signal_number: int, frame: FrameType | None) -> None:
    raise Terminated


def main() -> None:
    """Run the command line and exit: 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C, 143 for SIGTERM."""
    try:
        signal.signal(signal.SIGTERM, _terminate)
        from .streams import prepare_streams

        prepare_streams()  # before anything else is opened
        from .cli import run

        status = run(sys.argv[1:])
    except KeyboardInterrupt as interrupt:
        status = getattr(interrupt, "status", 130)
    sys.exit(status)


if __name__ == "__main__":
    main()
