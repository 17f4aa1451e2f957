"""Session files, from which a text is resumed: everything that the next character depends on, written atomically."""

from __future__ import annotations

import base64
import hashlib
import json
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from .adaptation import Learned
from .errors import CharedgeError
from .files import check_room, write_atomically
from .lock import FileLock, Held
from .sampling import MAX_WINDOW, NOISE_STEPS
from .text import unreadable

FORMAT_VERSION = 1
ADAPTED_VERSION = 2
"""Of a session that has a matrix; charedge reads both."""
BEGINNING = b'{"model_sha256": "'
"""The first bytes of every session, also of a damaged one."""
MAX_BYTES = 1 << 26
"""Larger than any session: the state and the matrix take at most 5 bytes for every 4, the rest a few kilobytes."""

MAX_CHARACTERS = 1 << 53
"""More than a text can have, and exact in every JSON reader."""


@dataclass(frozen=True)
class Session:
    """The state of a text after its last character."""

    model_sha256: str
    """The manifest's `flatbuffer_sha256`: the state is only valid for this model."""
    token: int
    """The last character, which the model has not read yet."""
    state: np.ndarray
    """float32 [1, S], before that character."""
    position: dict[str, Any]
    """The position of the draws, from `Sampler.position`."""
    tail: str
    """The end of the text, for the repetition penalty and for people; U+D800 stands for each `[UNK]`."""
    learned: Learned | None = None
    """What the model has learned from the text; None if it never adapted."""

    def save(self, path: Path) -> None:
        """Write the file atomically.

        Raises:
            CharedgeError: it cannot be written.
        """
        version = FORMAT_VERSION if self.learned is None else ADAPTED_VERSION
        body = {**vars(self), "format_version": version, "state": base64.b64encode(self.state.tobytes()).decode()}
        if (learned := body.pop("learned")) is not None:
            body["adaptation"] = {"characters": learned.characters, "arrays": learned.packed}
        content = json.dumps({**body, "sha256": _digest(body)}).encode()
        try:
            write_atomically(path, content)
        except OSError as error:
            raise _unwritable(path, error) from None

    @classmethod
    def load(cls, path: Path, model_sha256: str, state_size: int, vocabulary_size: int, hidden: slice | None = None) -> Session:
        """Read the file.

        Args:
            path: a regular file.
            model_sha256: the manifest's `flatbuffer_sha256`.
            state_size: S.
            vocabulary_size: V.
            hidden: the columns of the state that the matrix is for, from `hidden_columns`; None leaves the matrix unread.

        Raises:
            CharedgeError: the file is not a session, is damaged, or belongs to another model or version.
        """
        content = _read(path)
        if not content.startswith(BEGINNING):
            raise CharedgeError(f"`session` {path} is not a session: choose another name for the session's file.")
        try:
            body = json.loads(content)
            if body.pop("sha256") != _digest(body):
                raise ValueError
            version, model = body.pop("format_version"), body["model_sha256"]
            known = version in (FORMAT_VERSION, ADAPTED_VERSION) and model == model_sha256
            adaptation: Any = body.pop("adaptation") if version == ADAPTED_VERSION else None
            session = cls._parse(body, state_size, vocabulary_size) if known else None
            if session is not None and version == ADAPTED_VERSION and hidden is not None:
                session = replace(session, learned=_unpack(adaptation, vocabulary_size, hidden))
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError, zlib.error):
            raise CharedgeError(f"`session` {path} is damaged: delete it to start a new text.") from None
        if session is not None:
            return session
        if version not in (FORMAT_VERSION, ADAPTED_VERSION):
            raise CharedgeError(f"`session` {path} was written by another version of charedge: use that, or choose another name.")
        raise CharedgeError(f"`session` {path} was written with another model: use that model, or choose another name.")

    @classmethod
    def _parse(cls, body: dict[str, Any], state_size: int, vocabulary_size: int) -> Session:
        """
        Raises:
            ValueError, KeyError, TypeError, AttributeError, OverflowError: the fields are not what `save` writes.
        """
        state = np.frombuffer(base64.b64decode(body["state"], validate=True), np.float32).reshape(1, state_size)
        session = cls(**{**body, "state": state})
        random, step = session.position["random"], session.position["step"]
        generator = np.random.PCG64(0)
        generator.state = random
        if not (
            type(session.token) is type(step) is int
            and isinstance(session.tail, str)
            and 0 <= session.token < vocabulary_size
            and np.isfinite(state).all()
            and session.position.keys() == {"random", "step"}
            and generator.state == random
            and 0 <= step <= NOISE_STEPS
            and len(session.tail) <= MAX_WINDOW
        ):
            raise ValueError
        return session


def require_place(path: Path) -> None:
    """Check that a path can be a session file, before it is opened.

    Raises:
        CharedgeError: a folder or another kind of file is there, or the path cannot be examined.
    """
    try:
        if path.is_dir():
            raise CharedgeError(f"`session` {path} is a folder: give a file.")
        if path.exists() and not path.is_file():
            raise CharedgeError(f"`session` {path} is not a regular file: give a regular file, or a new name.")
    except OSError as error:
        raise _unwritable(path, error) from None


def require_room(path: Path, state_size: int, matrix_bytes: int = 0) -> None:
    """Check that a session can be saved at a path, by writing a file of that size beside it.

    Args:
        path: the session file.
        state_size: S.
        matrix_bytes: the size of the matrix, if the text has one.

    Raises:
        CharedgeError: it cannot be saved there.
    """
    try:
        check_room(path.parent, 6 * state_size + 8 * MAX_WINDOW + 11 * matrix_bytes // 8)
    except OSError as error:
        raise _unwritable(path, error) from None


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a session, from before it is read until it was saved for the last time.

    The lock is a separate file beside it, `.NAME.lock`, because every save replaces the session file.

    Raises:
        CharedgeError: another text is written in the session, or its folder cannot be written.
    """
    try:
        lock = FileLock(path.parent / f".{path.name}.lock")
    except Held as held:
        raise CharedgeError(
            f"`session` {path} is being written by {held.holder}: wait for it, stop it, or use another `session`."
        ) from None
    except OSError as error:
        raise _unwritable(path, error) from None
    try:
        yield
    finally:
        lock.release()


def _read(path: Path) -> bytes:
    """Read a file, up to the largest size of a session."""
    try:
        with path.open("rb") as file:
            return file.read(MAX_BYTES)
    except OSError as error:
        raise unreadable(path, error) from None


def _unwritable(path: Path, error: OSError) -> CharedgeError:
    return CharedgeError(f"`session` {path} cannot be written ({error.strerror}): choose another place.")


def _unpack(adaptation: dict[str, Any], vocabulary_size: int, hidden: slice) -> Learned:
    """
    Raises:
        ValueError, KeyError, TypeError, zlib.error: the fields are not what `save` writes.
    """
    characters = adaptation["characters"]
    if adaptation.keys() != {"characters", "arrays"} or type(characters) is not int or not 0 <= characters <= MAX_CHARACTERS:
        raise ValueError
    return Learned.unpack(adaptation["arrays"], characters, vocabulary_size, hidden)


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
