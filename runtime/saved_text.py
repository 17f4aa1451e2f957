"""A text that is written in a session, and how much of it has been handed over."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from .interpreter import Step
from .sampling import MAX_WINDOW
from .session import Session
from .step_loop import Cursor, Fed, Mark, Plan, write
from .vocabulary import Vocabulary

SESSION_SECONDS = 10.0
UNKNOWN_CHARACTER = "\ud800"
"""`[UNK]` in a session's tail: half a character, which no vocabulary has, so that it is `[UNK]` again when the tail is encoded."""


class SavedText:
    """A text that is written in a session: iterate over its pieces, and report how far they have been handed over.

    The session never covers a character that was not handed over: the text that is resumed continues after the last one that was.
    """

    def __init__(
        self, step: Step, vocabulary: Vocabulary, model_sha256: str, path: Path, plan: Plan, feed: Callable[[], Fed]
    ) -> None:
        """
        Args:
            step: the model.
            vocabulary: its characters.
            model_sha256: the manifest's `flatbuffer_sha256`.
            path: the session's file, which the caller has locked.
            plan: what to write.
            feed: returns the model after the session and the prompt; called when the first piece is asked for.
        """
        self._step, self._vocabulary, self._model_sha256, self._path = step, vocabulary, model_sha256, path
        self._characters = (UNKNOWN_CHARACTER, *vocabulary.tokens[1:])  # by id, in the tail
        self._plan, self._feed = plan, feed
        self._tail = ""
        self._mark: Mark | None = None  # after the last piece, until it is handed over
        self._unsaved: tuple[Mark, str] | None = None  # what is handed over and not saved
        self._save_time = time.monotonic()

    def __iter__(self) -> Iterator[str]:
        """The pieces; to be asked for once."""
        fed = self._feed()
        self._tail = self._decode(fed.recent)
        self._save_time = time.monotonic()
        cursor = Cursor(only_last=self._plan.pattern is not None and not self._plan.stop)
        for _, piece in write(self._step, self._vocabulary.tokens, self._plan, [fed], cursor):
            self._take(cursor, len(piece))
            yield piece
        self._take(cursor, len(cursor))  # the stop string that ended the text, which is in no piece

    @property
    def due(self) -> bool:
        """Whether it is ten seconds since the session was saved."""
        return time.monotonic() - self._save_time >= SESSION_SECONDS

    def handed_over(self) -> None:
        """Let the next save cover the pieces so far and, where the text has ended, the stop string after them."""
        if self._mark is not None:
            self._unsaved, self._mark = (self._mark, self._tail), None

    def save(self) -> None:
        """Write the session up to what was handed over last, unless it stands there already.

        Raises:
            CharedgeError: it cannot be written.
        """
        if self._unsaved is not None:
            mark, tail = self._unsaved
            Session(self._model_sha256, mark.token, mark.state, mark.position, tail).save(self._path)
            self._unsaved = None
        self._save_time = time.monotonic()

    def _decode(self, ids: Iterable[int]) -> str:
        return "".join([self._characters[i] for i in ids])

    def _take(self, cursor: Cursor, characters: int) -> None:
        """Move behind some more characters of the text."""
        tokens, mark = cursor.take(characters)
        self._tail = (self._tail + self._decode(tokens))[-MAX_WINDOW:]
        self._mark = mark or self._mark
