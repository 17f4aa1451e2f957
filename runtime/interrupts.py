"""Deferred signals: Ctrl-C, SIGTERM and SIGHUP end work between two steps, not within one."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

HANGUP: int | None = getattr(signal, "SIGHUP", None)
"""Sent when a terminal or an ssh connection is closed; Windows does not have this signal."""


class Interrupted(KeyboardInterrupt):
    """Work that was stopped by a signal, after it saved what it needs to continue."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.status = 128 + number


class Request:
    """The signal that was received, if any."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._asleep = threading.Lock()
        self._asleep.acquire()

    def sleep(self, seconds: float) -> None:
        """Sleep until a signal is received, but no longer than some seconds: `time.sleep` would go on after the signal."""
        if self.number is None and self._asleep.acquire(timeout=seconds):
            self._asleep.release()

    def receive(self, number: int) -> None:
        """Record a signal, and end the sleep. Called by a signal handler, in which only a plain lock is safe."""
        self.number = number
        self._asleep.release()


@contextmanager
def deferred_interrupts() -> Iterator[Request]:
    """Record the first SIGINT, SIGTERM or SIGHUP for the caller, who checks it between two steps; the second one stops at once.

    A signal that was ignored stays ignored (nohup), and so does a SIGHUP after the first one: a closed connection sends several.
    """
    request = Request()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return

    def note(number: int, frame: FrameType | None) -> None:
        if request.number is not None:
            raise Interrupted(number)
        request.receive(number)
        if number == HANGUP:
            signal.signal(number, signal.SIG_IGN)

    numbers = [number for number in (signal.SIGINT, signal.SIGTERM, HANGUP) if number is not None]
    before = {number: signal.signal(number, note) for number in numbers if signal.getsignal(number) != signal.SIG_IGN}
    try:
        yield request
    finally:
        for number, handler in before.items():
            if not number == request.number == HANGUP:
                signal.signal(number, handler)
