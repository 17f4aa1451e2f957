"""What the engine is given to do: texts to write, and texts to score."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from ..adaptation import DEFAULT_RATE, Learned, checked_rate, matrix_bytes
from ..boundaries import Boundary
from ..errors import CharedgeError
from ..model import Model, about_left_out
from ..pattern import ENDED
from ..sampling import MAX_WINDOW, NotFinite, Sampler, Sampling
from ..saved_text import UNKNOWN_CHARACTER
from ..scoring import Score, Scorer, log_softmax
from ..session import Session
from ..step_loop import Fed, Mark, Plan, Reader, Row, constrained

PATTERN_SECONDS = 0.1
"""The most time for the matches of one character: the other texts wait for it."""
NOISE_BYTES = 1 << 19
"""Maximum memory of a text for random numbers that are drawn ahead."""

FinishReason = Literal["stop", "length"]
"""`stop`: a stop string, the pattern or a boundary ended the text. `length`: it has as many characters as were asked for."""


class Busy(CharedgeError):
    """Too many jobs are waiting."""

    def __init__(self) -> None:
        super().__init__("the server is busy: try again in a moment.")


class Ended(CharedgeError):
    """A job was cancelled, or the server is stopping."""

    def __init__(self) -> None:
        super().__init__("the server is stopping: try again in a moment.")


class Character(NamedTuple):
    """A character and what the model predicted in its place, at temperature 1 and without any bias."""

    token: str
    logprob: float | None
    """Natural logarithm of its probability; None for the first character of a text, which has no prediction."""
    top: Sequence[tuple[str, float]]
    """The most likely characters, the most likely one first."""


class Piece(NamedTuple):
    """What is new of a text."""

    text: str
    characters: list[Character]
    """Of the text; empty unless log probabilities were asked for."""
    finish_reason: FinishReason | None
    """None while more follows."""


class Work:
    """A job of the engine: a text to read, which comes in `read`."""

    rows = 1
    """Number of texts that it counts as."""

    def __init__(self, ids: np.ndarray, changed: Callable[[], None]) -> None:
        """
        Args:
            ids: int32 [n], to read.
            changed: called from the engine's thread when there is something new, and when the job is done.
        """
        self._changed = changed
        self.done = False
        self.error: CharedgeError | None = None
        self.started: float | None = None
        """When the engine began with it (`time.monotonic`)."""
        self._ids, self._place = ids, 0

    @property
    def characters(self) -> int:
        """Number of characters to read."""
        return len(self._ids)

    @property
    def is_read(self) -> bool:
        """Whether the whole text was read."""
        return self._place == len(self._ids)

    def read(self, most: int) -> int:
        """Read the next part of the text.

        Args:
            most: maximum number of characters.

        Returns:
            The number of characters that were read.
        """
        part = self._ids[self._place : self._place + most]
        self._read_part(part)
        self._place += len(part)
        return len(part)

    def complete(self) -> None:
        """Called when the whole text was read and nothing is to be written.

        Raises:
            CharedgeError: there is no result.
        """

    def finish(self, error: CharedgeError | None = None) -> None:
        """Report that it is done."""
        self.error = error
        self.done = True
        self.notify()

    def notify(self) -> None:
        """Report that there is something new."""
        with suppress(RuntimeError):  # nobody is left to hear it: the event loop has ended
            self._changed()

    @property
    def matrix_bytes(self) -> int:
        """Memory of what it learns."""
        return 0

    def _read_part(self, ids: np.ndarray) -> None:
        raise NotImplementedError


class Job(Work):
    """Texts that continue one prompt; with the length 0, the prompt is only read.

    Attributes:
        texts: those to write.
        writes: whether any are written.
        prompt: as the model reads it: normalised, and without characters that it does not know.
        prompt_characters: of the prompt, as far as it was read; empty unless log probabilities of it were asked for.
        skipped: a sentence about the characters of the prompt that are left out, if there are any.
        first_character: when the first character was written (`time.monotonic`).
    """

    def __init__(
        self,
        model: Model,
        changed: Callable[[], None],
        *,
        prompt: str,
        length: int,
        n: int = 1,
        sampling: Sampling,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        pattern: str | None = None,
        end_at: Boundary | None = None,
        adapt: bool = False,
        adapt_rate: float = DEFAULT_RATE,
        session: Session | None = None,
        keep_session: bool = False,
        logprobs: int | None = None,
        echo_logprobs: bool = False,
    ) -> None:
        """
        Args:
            model: of the engine.
            changed: called from the engine's thread: at the first character, then every `NOTICE_SECONDS` or so, and at the end.
            prompt: the text to continue.
            length: maximum number of characters, or with `end_at` the minimum; 0 writes nothing.
            n: number of texts; text k of n draws as row k of `Model.generate_batch` does.
            sampling: the controls.
            seed, stop, pattern, end_at, adapt, adapt_rate: as for `Model.stream`.
            session: the text before the prompt, from which the draws continue, too.
            keep_session: whether `saved` will be asked for; only for one text.
            logprobs: number of most likely characters to report with each character; None reports no probabilities.
            echo_logprobs: report those of the prompt, too.

        Raises:
            InvalidOption, CharedgeError: as `Model.stream`.
        """
        plan = model.plan(n, max(length, 1), sampling, seed, stop, pattern, end_at, PATTERN_SECONDS)
        if session is not None:
            plan = replace(plan, start=session.position)
        ids, unknown = _encoded(model, prompt, "prompt")
        self.skipped = about_left_out("prompt", unknown) if unknown else None
        super().__init__(ids, changed)
        tokens = model.vocabulary.tokens
        self.writes = length > 0
        self.first_character: float | None = None
        self.rows = n if self.writes else 1
        self.prompt = "".join([tokens[i] for i in ids.tolist()])
        self.prompt_characters: list[Character] = []
        self.texts = [Text(self, tokens, plan, k, logprobs, keep_session) for k in range(n)]
        self._model, self._session = model, session
        self._rate = checked_rate(adapt, adapt_rate, model.manifest)
        self._report = Reporter(tokens, logprobs or 0) if echo_logprobs else None
        self._reader: Reader | None = None
        self._tail = ""

    @property
    def matrix_bytes(self) -> int:
        """Memory of what it learns."""
        adapts = self._rate is not None or (self._session is not None and self._session.learned is not None)
        return matrix_bytes(self._model.manifest) if adapts else 0

    def fed(self) -> Fed:
        """The model after the prompt, or after its start text if nothing was read."""
        fed = self._reader.fed() if self._reader is not None else None
        if fed is None or not len(fed.recent):
            fed = self._model.start()
        self._tail = "".join([_in_tail(self._model, i) for i in fed.recent.tolist()])
        return fed

    def complete(self) -> None:
        for text in self.texts:
            text.finish_reason = "length"

    def saved(self) -> Session | None:
        """The session after the only text, once the job is done without an error; None if nothing was written."""
        text = self.texts[0]
        if text.mark is None:
            return None
        token, state, position = text.mark
        tail = self._tail + "".join([_in_tail(self._model, i) for i in text.recent])
        return Session(self._model.manifest.flatbuffer_sha256, token, state, position, tail[-MAX_WINDOW:], text.learned)

    def _read_part(self, ids: np.ndarray) -> None:
        if self._reader is None:
            self._reader = self._model.reader(self._rate, self._session, self._observe if self._report else None)
            if self._report is not None and self._session is None and len(ids):
                self.prompt_characters.append(Character(self._model.vocabulary.tokens[ids[0]], None, ()))
        self._reader.read(ids)

    def _observe(self, logits: np.ndarray, token: int) -> None:
        assert self._report is not None
        self.prompt_characters.append(self._report(logits, token))


class Text:
    """A text that is written.

    Attributes:
        job: that it belongs to.
        finish_reason: None while it is written.
        learned: what the model learned from the prompt.
        recent: the last token ids of the text; empty unless a session is kept.
        mark: after the last character; None unless a session is kept.
    """

    def __init__(self, job: Job, tokens: Sequence[str], plan: Plan, number: int, logprobs: int | None, keep_session: bool) -> None:
        self.job = job
        self.finish_reason: FinishReason | None = None
        self.learned: Learned | None = None
        self.mark: Mark | None = None
        self.recent: deque[int] = deque(maxlen=MAX_WINDOW if keep_session else 0)
        self.ended = False
        self._tokens, self._plan, self._number, self._keep_session = tokens, plan, number, keep_session
        self._report = None if logprobs is None else Reporter(tokens, logprobs)
        self._pieces: deque[str] = deque()
        self._characters: deque[Character] = deque()  # appended before the piece that they are in

    def take(self) -> Piece:
        """What is new since the last call; from any one thread."""
        reason = self.finish_reason  # before the pieces, so that none is missing when it is set
        pieces = self._pieces
        text = "".join([pieces.popleft() for _ in range(len(pieces))])
        reported = [self._characters.popleft() for _ in text] if self._report is not None else []
        return Piece(text, reported, reason)

    def begin(self, fed: Fed) -> None:
        """Prepare for the first `draw`, after the prompt."""
        plan, self.learned = self._plan, fed.learned
        most = plan.most
        assert most is not None
        self._remaining = most
        self._row = Row(0, self._tokens, plan)
        random = plan.randoms[self._number]
        self._sampler = Sampler(plan.sampling, plan.bias, [random], [fed.recent], most, NOISE_BYTES)
        if plan.start is not None:
            self._sampler.seek(plan.start)
        plain = self._sampler.plain and plan.pattern is None and not self._keep_session
        self._noise = self._sampler.noise() if plain else None
        self._scores = np.empty_like(fed.logits)

    def draw(self, logits: np.ndarray, state: np.ndarray) -> int:
        """Write the next character.

        Args:
            logits: float32 [1, V], the prediction of it.
            state: float32 [1, S], from the same step.

        Returns:
            Its id, or `ENDED` if the text ends before it.

        Raises:
            CharedgeError: the model is damaged, or the pattern cannot be matched.
        """
        token = self._choose(logits)
        if token == ENDED or self._row.ends_before(token):
            self.end("stop")
            return ENDED
        if self._report is not None:
            self._characters.append(self._report(logits[0], token))
        if self._keep_session:
            self.mark = Mark(token, state.copy(), self._sampler.position())
            self.recent.append(token)
        piece = self._row.take(token)
        if piece:
            self._pieces.append(piece)
        self._remaining -= 1
        if self._row.ended:
            self.end("stop")
        elif not self._remaining:
            self.end("length")
        if self.job.first_character is None:
            self.job.first_character = time.monotonic()
            self.job.notify()
        return token

    def end(self, reason: FinishReason) -> None:
        """End the text after the last character."""
        self.ended = True
        try:
            rest = self._row.finish()
        except CharedgeError as error:
            self.fail(error)
            return
        if rest:
            self._pieces.append(rest)
        self.finish_reason = reason
        self.job.notify()

    def fail(self, error: CharedgeError) -> None:
        """End the text and its job with an error."""
        self.ended = True
        self.job.error = error

    def _choose(self, logits: np.ndarray) -> int:
        if self._noise is not None:
            scores = self._scores
            np.add(logits, next(self._noise), scores)
            best = int(scores.argmax())
            if not math.isfinite(scores.item(best)):
                raise NotFinite
            return best
        if self._plan.pattern is None:
            return int(self._sampler(logits)[0])
        return int(constrained(self._sampler, logits, [self._row])[0])


class Reporter:
    """Makes a `Character` of each prediction."""

    def __init__(self, tokens: Sequence[str], top: int) -> None:
        """
        Args:
            tokens: the characters by id.
            top: number of most likely characters to report.
        """
        self._tokens, self._top = tokens, top

    def __call__(self, logits: np.ndarray, token: int) -> Character:
        """The character with this id, predicted by logits: float32 [V]."""
        logprobs = log_softmax(logits[None])[0]
        likely: list[int] = np.argsort(-logprobs, kind="stable")[: self._top].tolist()
        return Character(self._tokens[token], logprobs.item(token), [(self._tokens[i], logprobs.item(i)) for i in likely])


class ScoreJob(Work):
    """A text to score, as `Model.score` does.

    Attributes:
        score: once it is done without an error.
    """

    def __init__(
        self, model: Model, changed: Callable[[], None], text: str, *, adapt: bool = False, adapt_rate: float = DEFAULT_RATE
    ) -> None:
        """
        Args:
            model: of the engine.
            changed: called from the engine's thread when it is done.
            text, adapt, adapt_rate: as for `Model.score`.

        Raises:
            InvalidOption: the rate is out of bounds, or the model is too large to adapt.
        """
        rate = checked_rate(adapt, adapt_rate, model.manifest)
        ids, unknown = _encoded(model, text, "text")
        self.skipped = about_left_out("text", unknown) if unknown else None
        self._skipped_characters = unknown.total()
        super().__init__(ids, changed)
        self.score: Score | None = None
        self._model, self._rate = model, rate
        self._scorer: Scorer | None = None

    @property
    def matrix_bytes(self) -> int:
        """Memory of what it learns."""
        return 0 if self._rate is None else matrix_bytes(self._model.manifest)

    def complete(self) -> None:
        assert self._scorer is not None
        self.score = self._scorer.score(self._skipped_characters)

    def _read_part(self, ids: np.ndarray) -> None:
        if self._scorer is None:
            self._scorer = Scorer(self._model.step, learner=self._model.learner(self._rate))
        self._scorer.add(ids)


def _encoded(model: Model, text: str, what: str) -> tuple[np.ndarray, Counter[str]]:
    """The ids of a text, int32 [n], and the characters that were left out."""
    unknown = Counter[str]()
    chunks = list(model.encode(text, what, strict=False, unknown=unknown))
    return np.concatenate(chunks) if chunks else np.empty(0, np.int32), unknown


def _in_tail(model: Model, token: int) -> str:
    """A character in a session's tail."""
    return model.vocabulary.tokens[token] if token else UNKNOWN_CHARACTER
