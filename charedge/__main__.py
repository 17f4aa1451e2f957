"""The `charedge` program. Only `sys` and `signal` are imported before Ctrl-C and SIGTERM are handled."""

from __future__ import annotations

import signal
import sys
from types import FrameType


class Terminated(KeyboardInterrupt):
    """SIGTERM or SIGHUP, which end a command as Ctrl-C does, with their own exit status."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = 128 + number


def _terminate(number: int, frame: FrameType | None) -> None:
    if number != signal.SIGTERM:
        signal.signal(number, signal.SIG_IGN)  # a closed connection sends several SIGHUPs
    raise Terminated(number)


def main() -> None:
    """Run the command line and exit: 0, 1 for an error, 2 for wrong usage, 130 for Ctrl-C, 143 for SIGTERM, 129 for SIGHUP."""
    try:
        signal.signal(signal.SIGTERM, _terminate)
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # nohup ignores it
            signal.signal(signal.SIGHUP, _terminate)
        from .streams import prepare_streams

        prepare_streams()  # before anything else is opened
        from .program import run

        status = run(sys.argv[1:])
    except KeyboardInterrupt as interrupt:
        status = getattr(interrupt, "status", 130)
    sys.exit(status)


if __name__ == "__main__":
    main()
