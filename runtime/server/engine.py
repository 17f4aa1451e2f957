"""Continuous batching: texts join and leave one running step loop at any character.

A thread runs the loop of a model. In each round it reads a slice of one prompt, draws one character for every text that is being
written, and runs one step for all of them. A text has its own sampler and random numbers, and a row of a step does not depend on
the other rows: the text is the one that `charedge generate` writes, whatever else is being written.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque

import numpy as np

from ..adaptation import MAX_BYTES, adapted
from ..errors import CharedgeError
from ..interpreter import Step
from ..model import Model
from ..pattern import ENDED
from .jobs import Busy, Ended, Job, Text, Work

NOTICE_SECONDS = 0.02
"""Time between two notices that a text has new characters: a notice for each character would take longer than the character."""
LONELY_SLICE = 256
"""Characters of a prompt that are read in a round while no text is being written."""
SHORTEST_SLICE = 4

log = logging.getLogger(__name__)


class Engine:
    """The step loop of one model, in a thread of its own.

    Attributes:
        characters_read: the characters of all prompts and scored texts so far.
        characters_written: the characters of all texts so far.
    """

    def __init__(self, model: Model, rows: int = 32, queue: int = 64) -> None:
        """
        Args:
            model: used by this thread alone from now on.
            rows: maximum number of texts at the same time.
            queue: maximum number of jobs that wait for a row.
        """
        self.characters_read = self.characters_written = 0
        self._model, self._rows, self._queue = model, rows, queue
        self._step = Step.load(model.file, model.step.threads, model.step.interpreter.name)  # the model's own one reads, row by row
        self._changed = threading.Condition()
        self._used = 0
        self._waiting: deque[Work] = deque()
        self._reading: deque[Work] = deque()
        self._writing: list[Text] = []
        self._state, self._logits = self._step.zeros(0), self._step.empty_logits(0)  # a row for each of them
        self._advance = self._step.advance
        self._cancelled: set[Work] = set()
        self._ending = self._closing = False
        self._last_notice = 0.0
        self._thread = threading.Thread(target=self._run, name="charedge-engine", daemon=True)
        self._thread.start()

    @property
    def rows_in_use(self) -> int:
        """The number of texts that are read or written at the moment."""
        return self._used

    @property
    def queued(self) -> int:
        """The number of jobs that wait for a row."""
        return len(self._waiting)

    def submit(self, job: Work) -> None:
        """Add a job, which has at most as many texts as there are rows.

        Raises:
            Busy: too many jobs are waiting.
            Ended: the texts of this engine were ended.
        """
        with self._changed:
            if self._ending:
                raise Ended
            job.rows = min(self._rows, max(job.rows, -(-self._rows * job.matrix_bytes // MAX_BYTES)))
            if not self._waiting and self._used + job.rows <= self._rows:
                self._used += job.rows
                self._reading.append(job)
            elif len(self._waiting) < self._queue:
                self._waiting.append(job)
            else:
                raise Busy
            self._changed.notify()

    def cancel(self, job: Work) -> None:
        """Stop a job before its next step, which gives its rows to others; no effect if it is done."""
        with self._changed:
            if not job.done:
                self._cancelled.add(job)
                self._changed.notify()

    def end_texts(self) -> None:
        """End every text where it is; jobs that write nothing yet fail, and no others are taken."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    def close(self) -> None:
        """End every text, and the thread."""
        with self._changed:
            self._ending = self._closing = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                while not (self._reading or self._writing or self._cancelled or self._ending):
                    self._changed.wait()
                self._drop_cancelled()
                if self._ending:
                    self._end_all()
                    if self._closing:
                        return
                    self._changed.wait_for(lambda: self._closing)
                    return
            try:
                if self._reading:
                    self._read_slice()
                if self._writing:
                    self._write_characters()
            except Exception as error:
                log.exception("the step loop failed")
                self._fail_all(error)
            self._give_notice()

    def _drop_cancelled(self) -> None:
        """Remove the jobs that were cancelled."""
        for job in self._cancelled:
            if job in self._waiting:
                self._waiting.remove(job)
                job.finish(Ended())
            elif not job.done:
                if job in self._reading:
                    self._reading.remove(job)
                self._finish(job, Ended())
        if self._cancelled:
            self._cancelled.clear()
            self._keep([not text.job.done for text in self._writing])
            self._let_in()  # one that waited in front may have left

    def _end_all(self) -> None:
        reading, waiting = list(self._reading), list(self._waiting)
        self._reading.clear()
        self._waiting.clear()
        for job in waiting:
            job.finish(Ended())
        for job in reading:
            self._finish(job, Ended())
        for text in self._writing:
            text.end("length")
        self._remove_ended()

    def _fail_all(self, error: Exception) -> None:
        """Fail every job that is read or written, after an error that no single one of them caused."""
        jobs = {*self._reading, *(text.job for text in self._writing)}
        self._reading.clear()
        self._writing, self._state, self._logits = [], self._step.zeros(0), self._step.empty_logits(0)
        self._rows_changed()
        for job in jobs:
            self._finish(job, CharedgeError(f"the model stopped with an error ({type(error).__name__}): see the server's log."))

    def _read_slice(self) -> None:
        """Read a part of the first prompt, for about as long as the texts' step takes; the next prompt is another one."""
        job = self._reading.popleft()
        most = max(SHORTEST_SLICE, len(self._writing)) if self._writing else LONELY_SLICE
        try:
            job.started = job.started or time.monotonic()
            self.characters_read += job.read(most)
            if not job.is_read:
                self._reading.append(job)
                return
            if isinstance(job, Job) and job.writes:
                self._join(job)
                return
            job.complete()
        except CharedgeError as error:
            self._finish(job, error)
        except Exception:
            self._reading.append(job)  # it fails with the others
            raise
        else:
            self._finish(job)

    def _join(self, job: Job) -> None:
        """Begin to write the texts of a job whose prompt was read."""
        fed = job.fed()
        for text in job.texts:
            text.begin(fed)
        rows = len(job.texts)
        state = np.concatenate([self._state, np.repeat(fed.state, rows, axis=0)])
        logits = np.concatenate([self._logits, np.repeat(fed.logits, rows, axis=0)])
        self._writing, self._state, self._logits = self._writing + job.texts, state, logits
        self._rows_changed()

    def _write_characters(self) -> None:
        """Draw the next character of every text, and run a step for those that go on."""
        ended = False
        tokens = np.full(len(self._writing), ENDED, np.int32)
        for row, text in enumerate(self._writing):
            try:
                tokens[row] = text.draw(self._logits[row : row + 1], self._state[row : row + 1])
            except CharedgeError as error:
                text.fail(error)
            ended |= text.ended
        if ended:
            self.characters_written += int(np.count_nonzero(tokens != ENDED))
            drawn = dict(zip(self._writing, tokens.tolist(), strict=True))
            self._remove_ended()  # those that have failed take the other texts of their job with them
            tokens = np.array([drawn[text] for text in self._writing], np.int32)
        else:
            self.characters_written += len(tokens)
        if self._writing:
            self._advance(tokens, self._state, self._logits)

    def _remove_ended(self) -> None:
        jobs = {text.job for text in self._writing if text.ended}
        self._keep([not text.ended for text in self._writing])
        for job in jobs:
            if job.error is not None:
                self._keep([text.job is not job for text in self._writing])
                self._finish(job, job.error)
            elif all(text.ended for text in job.texts):
                self._finish(job)

    def _keep(self, kept: list[bool]) -> None:
        """Remove texts from the step loop: True for each one that stays."""
        if all(kept):
            return
        self._writing = [text for text, stays in zip(self._writing, kept, strict=True) if stays]
        self._state, self._logits = self._state[kept], self._logits[kept]
        self._rows_changed()

    def _rows_changed(self) -> None:
        self._advance = adapted(self._step.advance, [text.learned for text in self._writing])

    def _finish(self, job: Work, error: CharedgeError | None = None) -> None:
        """Give the rows of a job to those that wait, and then report that it is done: the client may ask again at once."""
        with self._changed:
            self._used -= job.rows
            self._let_in()
        job.finish(error)

    def _let_in(self) -> None:
        """Begin with the jobs that wait, in their order, as long as there are rows for the first one."""
        while self._waiting and self._used + self._waiting[0].rows <= self._rows:
            self._used += self._waiting[0].rows
            self._reading.append(self._waiting.popleft())

    def _give_notice(self) -> None:
        """Tell the jobs that there is something new to take."""
        now = time.monotonic()
        if now - self._last_notice < NOTICE_SECONDS:
            return
        self._last_notice = now
        for job in {text.job for text in self._writing}:
            job.notify()
