"""Waiting for the engine, while the client may leave and the time may run out."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any

from .errors import ApiError


class Gone(Exception):
    """The client has left: nobody reads the answer."""


class Watch:
    """What a request waits for: `notify` wakes `changed`, from any thread; the client's leaving and the time limit raise in it."""

    def __init__(self, receive: Callable[[], Awaitable[Any]], seconds: float) -> None:
        """
        Args:
            receive: the request's, whose body was read.
            seconds: the time limit.
        """
        self._loop = asyncio.get_running_loop()
        self._event = asyncio.Event()
        self._receive, self._seconds = receive, seconds
        self._gone = self._late = False

    async def __aenter__(self) -> Watch:
        self._listener = asyncio.create_task(self._listen())
        self._timer = self._loop.call_later(self._seconds, self._expire)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._timer.cancel()
        self._listener.cancel()

    def notify(self) -> None:
        """Wake `changed`."""
        self._loop.call_soon_threadsafe(self._event.set)

    async def changed(self) -> None:
        """Wait for a call of `notify` since this last returned.

        Raises:
            Gone: the client has left.
            ApiError: the time is over.
        """
        await self._event.wait()
        self._event.clear()
        if self._gone:
            raise Gone
        if self._late:
            raise ApiError(504, f"the request took longer than {self._seconds:g} seconds: ask for less text.", code="timeout")

    async def _listen(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._gone = True
        self._event.set()

    def _expire(self) -> None:
        self._late = True
        self._event.set()
