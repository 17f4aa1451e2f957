"""The step loop: read a prompt, then write the pieces of a text, for any number of rows at once."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any, NamedTuple

import numpy as np

from .adaptation import Advance, Learned, Learner, adapted
from .boundaries import MOST_MORE, Boundary, BoundaryFinder
from .interpreter import Step
from .pattern import ENDED, ConstrainedRow, Pattern
from .sampling import MAX_WINDOW, NotFinite, Sampler, Sampling
from .stopping import StopStrings


class Fed(NamedTuple):
    """The model's outputs after it has read a text."""

    logits: np.ndarray  # float32 [1, V], for the next character
    state: np.ndarray  # float32 [1, S]
    recent: np.ndarray  # int32 [n], the last ids of the text
    learned: Learned | None = None  # from the text; None if the model does not adapt


class Reader:
    """Reads a text in parts of any size: one row."""

    def __init__(
        self,
        step: Step,
        after: Fed | None = None,
        learner: Learner | None = None,
        observe: Callable[[np.ndarray, int], None] | None = None,
    ) -> None:
        """
        Args:
            step: the model.
            after: the model after the text before this one; by default there is none.
            learner: learns from the text, if the model adapts; not from its first character without a text before it.
            observe: called with each prediction, float32 [V], and the id of the character that follows it.
        """
        before = after or Fed(step.empty_logits(), step.zeros(), np.empty(0, np.int32))
        self._logits, self._state, self._recent = before.logits.copy(), before.state.copy(), before.recent
        self._advance = step.advance if learner is None else learner.advance
        self._learner, self._observe = learner, observe
        self._predicted = after is not None

    def read(self, ids: np.ndarray) -> None:
        """Read the next part of the text: int32 [any]."""
        advance, state, logits = self._advance, self._state, self._logits
        if self._learner is None and self._observe is None:
            for token in ids.reshape(-1, 1):
                advance(token, state, logits)
        else:
            for token in ids.reshape(-1, 1):
                if self._predicted:
                    self._take(token.item())
                advance(token, state, logits)
                self._predicted = True
        self._recent = np.concatenate([self._recent, ids])[-MAX_WINDOW:]

    def fed(self) -> Fed:
        """The model after the text, whose logits are undefined if nothing was ever read; the reader is not to be used after it."""
        return Fed(self._logits, self._state, self._recent, None if self._learner is None else self._learner.learned())

    def _take(self, target: int) -> None:
        """Observe a predicted character, then learn it."""
        if self._observe is not None:
            self._observe(self._logits[0], target)
        if self._learner is not None:
            self._learner.learn(self._logits[0], self._state[0], target)


@dataclass(frozen=True)
class Plan:
    """The options of the texts to write."""

    length: int
    """Maximum number of characters of a row, or with `end_at` the minimum; 0 never ends."""
    sampling: Sampling
    bias: np.ndarray
    randoms: Sequence[np.random.Generator]
    """A random generator for each row."""
    stop: Sequence[str] = ()
    pattern: Pattern | None = None
    end_at: Boundary | None = None
    """End at the next boundary of this kind at or after `length`, or `MOST_MORE` characters later."""
    start: dict[str, Any] | None = None
    """The position from which the draws continue, from `Sampler.position`; None starts from the seed."""

    @property
    def most(self) -> int | None:
        """Maximum number of characters of a row; None never ends."""
        if self.length == 0:
            return None
        return self.length if self.end_at is None else self.length + MOST_MORE


class Mark(NamedTuple):
    """The state of a text after a character: all that the next one depends on, except the recent characters."""

    token: int
    """The character, which the model has not read yet."""
    state: np.ndarray
    """float32 [1, S], before that character."""
    position: dict[str, Any]
    """The position after that character's draw, from `Sampler.position`."""


class Cursor:
    """A queue of the first row's characters, each with its mark."""

    def __init__(self, only_last: bool = False) -> None:
        """
        Args:
            only_last: keep only the mark of the last character, for a text that comes in one piece.
        """
        self._tokens: deque[int] = deque()
        self._marks: deque[Mark] = deque(maxlen=1 if only_last else None)

    def __len__(self) -> int:
        return len(self._tokens)

    def add(self, mark: Mark) -> None:
        """Append a character."""
        self._tokens.append(mark.token)
        self._marks.append(mark)

    def take(self, characters: int) -> tuple[list[int], Mark | None]:
        """Remove the first characters.

        Returns:
            Their token ids, and the mark of the last of them; None if that was not kept, or none are taken.
        """
        tokens = [self._tokens.popleft() for _ in range(characters)]
        mark = None
        while len(self._marks) > len(self._tokens):
            mark = self._marks.popleft()
        return tokens, mark


def write(
    step: Step, tokens: Sequence[str], plan: Plan, fed: Sequence[Fed], cursor: Cursor | None = None
) -> Iterator[tuple[int, str]]:
    """Write a text for every row, in one step loop; rows that have ended are removed from it.

    Args:
        step: the model.
        tokens: the characters by id.
        plan: the options of the texts.
        fed: the model after each row's prompt.
        cursor: gets every character of the first row before its piece is yielded.

    Yields:
        The row and the next piece of its text.

    Raises:
        CharedgeError: a pattern cannot be matched.
    """
    logits = np.concatenate([one.logits for one in fed])  # [rows, V]
    state = np.concatenate([one.state for one in fed])  # [rows, S]
    learned = [one.learned for one in fed]
    advance = adapted(step.advance, learned)
    sampler = Sampler(plan.sampling, plan.bias, plan.randoms, [one.recent for one in fed], plan.most)
    if plan.start is not None:
        sampler.seek(plan.start)
    countdown = repeat(1) if plan.most is None else range(plan.most - 1, -1, -1)  # characters after this one; 1 if it never ends
    if sampler.plain and cursor is None and not plan.stop and plan.pattern is None and plan.end_at is None:
        write_plain = _write_plain_row if len(fed) == 1 else _write_plain_rows
        yield from write_plain(advance, tokens, countdown, sampler, logits, state)
        return
    rows = [Row(number, tokens, plan) for number in range(len(fed))]
    for remaining in countdown:
        chosen = sampler(logits) if plan.pattern is None else constrained(sampler, logits, rows)
        if plan.end_at is not None:
            chosen = _up_to_boundary(chosen, rows)
        if cursor is not None and chosen[0] != ENDED:
            cursor.add(Mark(int(chosen[0]), state.copy(), sampler.position()))
        ended = False
        for row, token in zip(rows, chosen.tolist(), strict=True):
            piece = row.take(token)
            if piece:
                yield row.number, piece
            ended |= row.ended
        if ended:
            for row in rows:
                if row.ended and (piece := row.finish()):
                    yield row.number, piece
            kept = [i for i, row in enumerate(rows) if not row.ended]
            if not kept:
                return
            rows, chosen, state, logits = [rows[i] for i in kept], chosen[kept], state[kept], logits[kept]
            sampler.keep(kept)
            learned = [learned[i] for i in kept]
            advance = adapted(step.advance, learned)
        if remaining:
            advance(chosen, state, logits)
    for row in rows:
        if piece := row.finish():
            yield row.number, piece


def _write_plain_row(
    advance: Advance, tokens: Sequence[str], countdown: Iterable[int], sampler: Sampler, logits: np.ndarray, state: np.ndarray
) -> Iterator[tuple[int, str]]:
    """The loop of `write` for one row with only a temperature, with as few calls as possible: a tenth faster."""
    scores, token = np.empty_like(logits), np.empty(1, np.int32)
    add, argmax, item, isfinite = np.add, scores.argmax, scores.item, math.isfinite
    for remaining, noise in zip(countdown, sampler.noise(), strict=False):
        add(logits, noise, scores)
        best = int(argmax())
        if not isfinite(item(best)):
            raise NotFinite
        token[0] = best
        yield 0, tokens[best]
        if remaining:
            advance(token, state, logits)


def _write_plain_rows(
    advance: Advance, tokens: Sequence[str], countdown: Iterable[int], sampler: Sampler, logits: np.ndarray, state: np.ndarray
) -> Iterator[tuple[int, str]]:
    """The same for several rows, each yielded in one piece at the end."""
    scores = np.empty_like(logits)
    written: list[np.ndarray] = []
    for remaining, noise in zip(countdown, sampler.noise(), strict=False):
        np.add(logits, noise, scores)
        best = scores.argmax(axis=1)
        sampler.check(scores, best)
        written.append(best)
        if remaining:
            advance(best, state, logits)
    for row, ids in enumerate(np.stack(written, axis=1).tolist()):
        yield row, "".join(map(tokens.__getitem__, ids))


def constrained(sampler: Sampler, logits: np.ndarray, rows: Sequence[Row]) -> np.ndarray:
    """The next token of each row that its pattern allows, or `ENDED` if the pattern is complete and the model leaves it."""
    scores = sampler.scores(logits)
    sampler.check(scores, scores.argmax(axis=1))
    chosen = np.array([row.constraint.choose(scores[i]) for i, row in enumerate(rows) if row.constraint], np.int32)
    sampler.accept(chosen)
    return chosen


def _up_to_boundary(chosen: np.ndarray, rows: Sequence[Row]) -> np.ndarray:
    """The next token of each row, or `ENDED` if the row's text ends before it."""
    return np.where([row.ends_before(token) for row, token in zip(rows, chosen.tolist(), strict=True)], ENDED, chosen)


class Row:
    """One row's text: what can be passed on, and whether it has ended."""

    def __init__(self, number: int, tokens: Sequence[str], plan: Plan) -> None:
        self.number = number
        self.ended = False
        self.constraint = ConstrainedRow(plan.pattern, tokens) if plan.pattern else None
        self._tokens, self._length = tokens, plan.length
        self._stop = StopStrings(plan.stop) if plan.stop else None
        self._boundary = BoundaryFinder(plan.end_at, plan.length) if plan.end_at else None
        self._held = ""

    def ends_before(self, token: int) -> bool:
        """Whether a boundary ends the text before this token."""
        return self._boundary is not None and self._boundary.ends_before(self._tokens[token])

    def take(self, token: int) -> str:
        """The text to pass on after another token; with a pattern, none before the end."""
        if token == ENDED:
            self.ended = True
            return ""
        piece = self._tokens[token]
        if self._stop is not None:
            piece = self._stop.feed(piece)
            self.ended = self._stop.found
        if self.constraint is None:
            return piece
        self._held += piece
        return ""

    def finish(self) -> str:
        """The rest to pass on when the row has ended.

        Raises:
            CharedgeError: the text does not match the pattern.
        """
        rest = self._held + (self._stop.rest() if self._stop else "")
        if self.constraint is not None:
            self.constraint.require_complete(rest, self._length, stopped=self._stop is not None and self._stop.found)
        return rest
