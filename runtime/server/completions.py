"""The answer to `POST /v1/completions`: its texts, as a whole or while they are written."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from starlette.types import Receive, Scope, Send

from ..errors import CharedgeError
from .answers import LAST_EVENT, Choice, Envelope, event, usage_of
from .errors import ApiError, as_api_error
from .jobs import Job, Text
from .protocol import Completion
from .record import Record, record_of
from .served import Served
from .service import Service
from .sessions import OpenSession
from .watch import Gone, Watch

JSON_HEADERS = [(b"content-type", b"application/json")]
STREAM_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
]


class CompletionAnswer:
    """An ASGI response that has the engine write texts and sends them."""

    def __init__(self, service: Service, served: Served, wanted: Completion) -> None:
        self._service, self._served, self._wanted = service, served, wanted
        self._envelope = Envelope(served.name)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """
        Raises:
            ApiError: there is no text; nothing was sent yet.
            Gone: the client has left; nothing was sent yet.
        """
        async with Watch(receive, self._service.settings.timeout) as watch:
            session = await self._open_session()
            submitted: list[Job] = []
            try:
                jobs = await asyncio.to_thread(self._jobs, watch.notify, session)
                for job in jobs:
                    self._served.engine.submit(job)
                    submitted.append(job)
                answer = self._stream if self._wanted.stream else self._whole
                await answer(Texts(jobs, self._wanted), session, watch, send, record_of(scope))
                self._observe(jobs, record_of(scope))
            except CharedgeError as error:
                raise as_api_error(error) from None
            finally:
                for job in submitted:
                    self._served.engine.cancel(job)
                if session is not None:
                    session.close()

    async def _open_session(self) -> OpenSession | None:
        name = self._wanted.session
        if name is None:
            return None
        return await asyncio.to_thread(self._service.find_sessions("session").open, name, self._served.model)

    def _jobs(self, notify: Callable[[], None], session: OpenSession | None) -> list[Job]:
        """A job for each prompt.

        Raises:
            InvalidOption, CharedgeError: as `Job`.
        """
        wanted, model = self._wanted, self._served.model
        sampling = wanted.sampling_for(model)
        return [
            Job(
                model,
                notify,
                prompt=prompt,
                length=wanted.length,
                n=wanted.n,
                sampling=sampling,
                seed=wanted.seed,
                stop=wanted.stop,
                pattern=wanted.pattern,
                end_at=wanted.end_at,
                adapt=wanted.adapt,
                adapt_rate=wanted.adapt_rate,
                session=session.before if session else None,
                keep_session=session is not None,
                logprobs=wanted.logprobs,
                echo_logprobs=wanted.echo and wanted.logprobs is not None,
            )
            for prompt in wanted.prompts
        ]

    async def _whole(self, texts: Texts, session: OpenSession | None, watch: Watch, send: Send, record: Record) -> None:
        while not texts.are_done():
            await watch.changed()
        await _save(texts, session)
        choices = texts.parts(may_end=True)
        body = json.dumps(self._envelope.wrap(choices, usage=texts.usage(), warnings=texts.warnings())).encode()
        record.characters = texts.written
        headers = [*JSON_HEADERS, (b"content-length", str(len(body)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body})

    async def _stream(self, texts: Texts, session: OpenSession | None, watch: Watch, send: Send, record: Record) -> None:
        started = False
        try:
            done = False
            while not done:
                await watch.changed()
                done = texts.are_done()
                if done:
                    await _save(texts, session)
                parts = texts.parts(done or session is None, whole=False)
                record.characters = texts.written
                if parts and not started:
                    await send({"type": "http.response.start", "status": 200, "headers": STREAM_HEADERS})
                    started = True
                if parts:
                    await _send_part(send, b"".join([event(self._envelope.wrap([part])) for part in parts]))
        except Gone:
            if not started:
                raise
            record.left = True
            return
        except (CharedgeError, ApiError) as error:
            if not started:
                raise
            failure = error if isinstance(error, ApiError) else as_api_error(error)
            await _send_part(send, event(failure.body), more=False)
            return
        last = b""
        if self._wanted.include_usage or texts.warnings():
            usage = texts.usage() if self._wanted.include_usage else None
            last = event(self._envelope.wrap([], usage=usage, warnings=texts.warnings()))
        await _send_part(send, last + LAST_EVENT, more=False)

    def _observe(self, jobs: Sequence[Job], record: Record) -> None:
        for job in jobs:
            if job.first_character is not None:
                self._service.metrics.first_character.observe(job.first_character - record.start)


class Texts:
    """The texts of a request while the engine writes them.

    Attributes:
        written: the number of characters that were taken.
    """

    def __init__(self, jobs: Sequence[Job], wanted: Completion) -> None:
        self._jobs, self._reports = jobs, wanted.logprobs is not None
        every = [(job, text) for job in jobs for text in job.texts]
        self._open = [_OpenText(job, text, Choice(i, self._reports), wanted.echo) for i, (job, text) in enumerate(every)]
        self.written = 0

    def are_done(self) -> bool:
        """Whether all texts are complete.

        Raises:
            CharedgeError: one of them failed.
        """
        for job in self._jobs:
            if job.done and job.error is not None:
                raise job.error
        return all(job.done for job in self._jobs)

    def parts(self, may_end: bool, whole: bool = True) -> list[dict[str, Any]]:
        """What is new of each text, as choices of an answer.

        Args:
            may_end: whether the end of a text may be reported.
            whole: give a part for every text, even if nothing is new.
        """
        parts = []
        for entry in list(self._open):
            part, characters = entry.take(may_end, whole)
            self.written += characters
            if part is not None:
                parts.append(part)
                if part["finish_reason"] is not None:
                    self._open.remove(entry)
        return parts

    def usage(self) -> dict[str, int]:
        """The characters that were read and written."""
        return usage_of(sum(job.characters for job in self._jobs), self.written)

    def warnings(self) -> list[str] | None:
        """Sentences about characters that were left out; None if there are none."""
        return list(dict.fromkeys(job.skipped for job in self._jobs if job.skipped)) or None

    def only(self) -> Job:
        """The only job."""
        (job,) = self._jobs
        return job


class _OpenText:
    """A text whose end was not reported yet."""

    def __init__(self, job: Job, text: Text, choice: Choice, echo: bool) -> None:
        self._job, self._text, self._choice, self._echo = job, text, choice, echo

    def take(self, may_end: bool, whole: bool) -> tuple[dict[str, Any] | None, int]:
        """The part that is new, None if there is nothing; and the number of its characters that were written."""
        piece = self._text.take()
        echoes = self._echo and self._job.is_read  # asked after the piece was taken, which can only come later
        reason = piece.finish_reason if may_end else None
        if not (piece.text or echoes or reason or whole):
            return None, 0
        text, characters = piece.text, piece.characters
        if echoes:
            text, characters, self._echo = self._job.prompt + text, [*self._job.prompt_characters, *characters], False
        return self._choice.part(text, characters, reason), len(piece.text)


async def _save(texts: Texts, session: OpenSession | None) -> None:
    """Save the session after the only text, and unlock it: the client may continue it as soon as it has the answer.

    Raises:
        ApiError: it cannot be written.
    """
    if session is None:
        return
    saved = texts.only().saved()
    if saved is not None:
        await asyncio.to_thread(session.save, saved)
    session.close()


async def _send_part(send: Send, data: bytes, more: bool = True) -> None:
    with suppress(OSError):  # the client has left, which `Watch` reports
        await send({"type": "http.response.body", "body": data, "more_body": more})
