"""A text that goes on another time: everything the next character depends on, in one file that is whole or not there."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from .errors import CharedgeError
from .files import write_atomically
from .lock import FileLock, Held
from .text import read_bytes

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Session:
    """Where a text stands after its last character."""

    model_sha256: str
    """The manifest's `flatbuffer_sha256`: the state means nothing to another model."""
    token: int
    """The last character, which the model has not been fed yet."""
    state: np.ndarray
    """float32 [1, S], before that character."""
    position: dict[str, Any]
    """Where the draws are, from `Sampler.position`."""
    tail: str
    """The end of the text, for the repetition penalty and for people; U+D800 stands for each `[UNK]`."""

    def save(self, path: Path) -> None:
        """Write the file atomically.

        Raises:
            CharedgeError: it cannot be written.
        """
        body = {**asdict(self), "format_version": FORMAT_VERSION, "state": base64.b64encode(self.state.tobytes()).decode()}
        content = json.dumps({**body, "sha256": _digest(body)}).encode()
        try:
            write_atomically(path, content)
        except OSError as error:
            raise CharedgeError(f"--session {path} cannot be written ({error.strerror}): choose another place.") from None

    @classmethod
    def load(cls, path: Path, model_sha256: str, state_size: int) -> Session:
        """
        Raises:
            CharedgeError: the file is damaged, or of another model.
        """
        try:
            body = json.loads(read_bytes(path))
            whole = body.pop("sha256") == _digest(body) and body.pop("format_version") == FORMAT_VERSION
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            body, whole = {}, False
        if not whole:
            raise CharedgeError(f"--session {path} is damaged, or of another version: delete it to begin a new text.")
        if body["model_sha256"] != model_sha256:
            raise CharedgeError(f"--session {path} was written with another model: give that one, or delete the file.")
        state = np.frombuffer(base64.b64decode(body["state"]), np.float32).reshape(1, state_size)
        return cls(**{**body, "state": state})


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a session, from before it is read until it has been saved for the last time.

    The lock is a file of its own beside it, `.NAME.lock`, since every save replaces the session's file.

    Raises:
        CharedgeError: another text is written in the session, or its folder cannot be written.
    """
    try:
        lock = FileLock(path.parent / f".{path.name}.lock")
    except Held as held:
        raise CharedgeError(
            f"--session {path} is being written by {held.holder}: wait for it, stop it, or use another --session."
        ) from None
    except OSError as error:
        raise CharedgeError(f"--session {path} cannot be written ({error.strerror}): choose another place.") from None
    try:
        yield
    finally:
        lock.release()


def _digest(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()
