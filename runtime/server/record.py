"""What is logged and counted of a request."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Mapping, MutableMapping
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from .metrics import Metrics

log = logging.getLogger(__name__)

KEY = "charedge.record"
MAX_PATH = 100
LEFT = 499
"""The status, in the log and the figures, of a client that left before its answer was complete."""


class Record:
    """A request on its way.

    Attributes:
        start: when it came (`time.monotonic`).
        characters: of the texts in its answer.
        prompts: to be logged; None if they are not.
        left: whether the client left before the answer was complete.
    """

    def __init__(self) -> None:
        self.start = time.monotonic()
        self.characters = 0
        self.prompts: list[str] | None = None
        self.left = False


def record_of(scope: MutableMapping[str, Any]) -> Record:
    """The record of a request."""
    return scope[KEY]


class Recorded:
    """Logs and counts every request of an app: one line with method, path, status, characters and milliseconds."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Mapping[Any, str]) -> None:
        """
        Args:
            app: to observe.
            metrics: counts the requests.
            paths: by endpoint; those of all other requests are counted as `other`.
        """
        self._app, self._metrics, self._paths = app, metrics, paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        record = scope[KEY] = Record()
        status = 0

        async def observe(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observe)
        finally:
            status = LEFT if record.left or not status else status
            self._metrics.requests[(self._paths.get(scope.get("endpoint"), "other"), status)] += 1
            milliseconds = (time.monotonic() - record.start) * 1000
            line = f"{scope['method']} {scope['path'][:MAX_PATH]} {status} {record.characters} characters {milliseconds:.0f} ms"
            prompts = "" if record.prompts is None else f" {json.dumps(record.prompts, ensure_ascii=False)}"
            log.info("%s%s", line, prompts)
