"""A text that is written in a session, and how much of it was delivered."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from .adaptation import Learned
from .interpreter import Step
from .sampling import MAX_WINDOW
from .session import Session
from .step_loop import Cursor, Fed, Mark, Plan, write
from .vocabulary import Vocabulary

SESSION_SECONDS = 10.0
UNKNOWN_CHARACTER = "\ud800"
"""`[UNK]` in a session's tail: a surrogate, which is in no vocabulary, so that it is encoded as `[UNK]` again."""


class SavedText:
    """A text in a session: iterate over its pieces, and report which were delivered with `handed_over`.

    The session never covers a character that was not delivered: a resumed text continues after the last one that was.
    """

    def __init__(
        self, step: Step, vocabulary: Vocabulary, model_sha256: str, path: Path, plan: Plan, feed: Callable[[], Fed]
    ) -> None:
        """
        Args:
            step: the model.
            vocabulary: the characters of the model.
            model_sha256: the manifest's `flatbuffer_sha256`.
            path: the session file, locked by the caller.
            plan: what to write.
            feed: returns the model after the session and the prompt; called when the first piece is requested.
        """
        self._step, self._vocabulary, self._model_sha256, self._path = step, vocabulary, model_sha256, path
        self._characters = (UNKNOWN_CHARACTER, *vocabulary.tokens[1:])  # by id, in the tail
        self._plan, self._feed = plan, feed
        self._tail = ""
        self._learned: Learned | None = None
        self._mark: Mark | None = None  # after the last piece, until it is delivered
        self._unsaved: tuple[Mark, str] | None = None  # delivered and not saved yet
        self._save_time = time.monotonic()

    def __iter__(self) -> Iterator[str]:
        """The pieces; may be iterated once."""
        fed = self._feed()
        self._tail, self._learned = self._decode(fed.recent), fed.learned
        self._save_time = time.monotonic()
        cursor = Cursor(only_last=self._plan.pattern is not None and not self._plan.stop)
        for _, piece in write(self._step, self._vocabulary.tokens, self._plan, [fed], cursor):
            self._take(cursor, len(piece))
            yield piece
        self._take(cursor, len(cursor))  # the stop string that ended the text, which is in no piece

    @property
    def adapted(self) -> bool:
        """Whether the model has adapted to what it read, now or earlier in the session."""
        return self._learned is not None

    @property
    def due(self) -> bool:
        """Whether the session was last saved ten seconds ago or earlier."""
        return time.monotonic() - self._save_time >= SESSION_SECONDS

    def handed_over(self) -> None:
        """Mark the pieces so far as delivered and, if the text has ended, the stop string after them; the next save covers them."""
        if self._mark is not None:
            self._unsaved, self._mark = (self._mark, self._tail), None

    def save(self) -> None:
        """Save the session up to what was delivered last, unless that is saved already.

        Raises:
            CharedgeError: it cannot be written.
        """
        if self._unsaved is not None:
            mark, tail = self._unsaved
            Session(self._model_sha256, mark.token, mark.state, mark.position, tail, self._learned).save(self._path)
            self._unsaved = None
        self._save_time = time.monotonic()

    def _decode(self, ids: Iterable[int]) -> str:
        return "".join([self._characters[i] for i in ids])

    def _take(self, cursor: Cursor, characters: int) -> None:
        """Advance by some characters of the text."""
        tokens, mark = cursor.take(characters)
        self._tail = (self._tail + self._decode(tokens))[-MAX_WINDOW:]
        self._mark = mark or self._mark
