"""The answer to `POST /v1/score`."""

from __future__ import annotations

import asyncio
from dataclasses import asdict

from starlette.types import Receive, Scope, Send

from ..adaptation import DEFAULT_RATE
from ..errors import CharedgeError
from ..scoring import TooShort
from .errors import ApiError, as_api_error
from .jobs import ScoreJob
from .replies import json_response
from .served import Served
from .service import Service
from .watch import Watch


class ScoreAnswer:
    """An ASGI response that has the engine score a text."""

    def __init__(self, service: Service, served: Served, text: str, adapt: bool = False, adapt_rate: float = DEFAULT_RATE) -> None:
        self._service, self._served = service, served
        self._text, self._adapt, self._adapt_rate = text, adapt, adapt_rate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Raises:
            ApiError: there is no score.
            Gone: the client has left.
        """
        async with Watch(receive, self._service.settings.timeout) as watch:
            try:
                job = await asyncio.to_thread(self._job, watch)
                self._served.engine.submit(job)
                try:
                    while not job.done:
                        await watch.changed()
                finally:
                    self._served.engine.cancel(job)
                if job.error is not None:
                    raise job.error
            except TooShort as error:
                raise ApiError(422, str(error), param="text", code="too_short") from None
            except CharedgeError as error:
                raise as_api_error(error) from None
        assert job.score is not None
        warnings = {"warnings": [job.skipped]} if job.skipped else {}
        body = {"object": "score", "model": self._served.name, **asdict(job.score), **warnings}
        await json_response(body)(scope, receive, send)

    def _job(self, watch: Watch) -> ScoreJob:
        return ScoreJob(self._served.model, watch.notify, self._text, adapt=self._adapt, adapt_rate=self._adapt_rate)
