"""Sessions: texts that requests continue, each in a file of a folder, as `charedge generate` writes it."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from ..adaptation import hidden_columns, matrix_bytes
from ..errors import CharedgeError
from ..files import replacing, write_atomically
from ..lock import Held
from ..model import Model
from ..sampling import MAX_WINDOW
from ..saved_text import UNKNOWN_CHARACTER
from ..session import BEGINNING, Session, locked, require_place
from ..text import unreadable
from .errors import ApiError
from .protocol import SESSION_NAME
from .served import Served

SUFFIX = ".session"
SHA256_CHARACTERS = 64
DAY_SECONDS = 86_400.0


class SessionStore:
    """The sessions of a folder, bounded in number and age."""

    def __init__(self, folder: Path, most: int, days: float) -> None:
        """
        Args:
            folder: used for nothing else; made if it is missing.
            most: maximum number of sessions.
            days: sessions that were not used for this number of days are deleted.

        Raises:
            CharedgeError: it cannot be made.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise CharedgeError(f"`sessions` {folder} cannot be made a folder ({error.strerror}): give another one.") from None
        self._folder, self._most, self._seconds = folder, most, days * DAY_SECONDS
        self._mutex = threading.Lock()
        self._new: set[str] = set()  # that are written for the first time

    def __len__(self) -> int:
        return len(self._names())

    def open(self, name: str, model: Model) -> OpenSession:
        """Open a session for a request, which locks it; it need not exist.

        Raises:
            ApiError: another request or program uses it, it belongs to another model, or there are too many.
        """
        with ExitStack() as stack:
            path = stack.enter_context(self._locked(name))
            before = self._load(path, name, model) if path.exists() else None
            if before is None:
                stack.enter_context(self._reserved(name))
            return OpenSession(path, name, before, stack.pop_all())

    def describe(self, models: Mapping[str, Served]) -> list[dict[str, Any]]:
        """All sessions, by name."""
        self._delete_old()
        described = []
        for path in sorted(self._folder.glob(f"*{SUFFIX}")):
            with suppress(ApiError):  # it was deleted, or is none
                described.append(self._describe(path, models))
        return described

    def describe_one(self, name: str, models: Mapping[str, Served]) -> dict[str, Any]:
        """A session, with the end of its text if its model is here.

        Raises:
            ApiError: it does not exist, or is damaged.
        """
        path = self._existing(name)
        described = self._describe(path, models)
        served = models.get(described["model"] or "")
        session = self._load(path, name, served.model) if served else None
        return {
            **described,
            "text": None if session is None else session.tail.replace(UNKNOWN_CHARACTER, "\N{REPLACEMENT CHARACTER}"),
        }

    def read(self, name: str) -> bytes:
        """The content of a session's file.

        Raises:
            ApiError: it does not exist.
        """
        path = self._existing(name)
        try:
            return path.read_bytes()
        except OSError as error:
            raise _without_path(unreadable(path, error), path, name, 500) from None

    def write(self, name: str, content: bytes, models: Mapping[str, Served]) -> None:
        """Replace a session's file, or make a new one, after its content was checked.

        Raises:
            ApiError: the content is not a session of a model that is here, or the session cannot be written.
        """
        models_here = {served.model.manifest.flatbuffer_sha256: served.model for served in models.values()}
        model = models_here.get(_model_sha256(content) or "")
        if model is None:
            raise ApiError(422, "the body is not a session of a model of this server.", code="invalid_session")
        with self._locked(name) as path, ExitStack() as stack:
            if not path.exists():
                stack.enter_context(self._reserved(name))
            try:
                with replacing(path) as file:
                    file.write(content)
                    file.flush()
                    self._load(Path(file.name), name, model, status=422)
            except OSError as error:
                raise _unwritable(name, error) from None

    def fork(self, name: str, to: str) -> None:
        """Copy a session to a new name.

        Raises:
            ApiError: it does not exist, or the new name does.
        """
        content = self.read(name)
        with self._locked(to) as path:
            if path.exists():
                raise ApiError(409, f"the session {to!r} exists already: choose another name.", param="to", code="session_exists")
            with self._reserved(to):
                try:
                    write_atomically(path, content)
                except OSError as error:
                    raise _unwritable(to, error) from None

    def delete(self, name: str) -> None:
        """Delete a session.

        Raises:
            ApiError: it does not exist, or is in use.
        """
        with self._locked(name) as path:
            if not path.exists():
                raise _missing(name)
            path.unlink(missing_ok=True)

    def _delete_old(self) -> None:
        """Delete the sessions that are too old and not in use."""
        oldest = time.time() - self._seconds
        for path in self._folder.glob(f"*{SUFFIX}"):
            with suppress(OSError, CharedgeError):
                if path.stat().st_mtime < oldest:
                    with locked(path):
                        if path.stat().st_mtime < oldest:  # a request may have continued it
                            path.unlink(missing_ok=True)

    def _names(self) -> set[str]:
        """Those that have a file."""
        return {path.name.removesuffix(SUFFIX) for path in self._folder.glob(f"*{SUFFIX}")}

    def _path(self, name: str) -> Path:
        """
        Raises:
            ApiError: it is not the name of a session.
        """
        if not re.fullmatch(SESSION_NAME, name):
            raise ApiError(404, f"a session's name has the form {SESSION_NAME}.", code="session_not_found")
        return self._folder / f"{name}{SUFFIX}"

    def _existing(self, name: str) -> Path:
        path = self._path(name)
        if not path.is_file():
            raise _missing(name)
        return path

    @contextmanager
    def _locked(self, name: str) -> Iterator[Path]:
        """Lock a session in the block.

        Raises:
            ApiError: it is in use, or its folder cannot be written.
        """
        path = self._path(name)
        with ExitStack() as stack:
            try:
                require_place(path)
                stack.enter_context(locked(path))
            except CharedgeError as error:
                if isinstance(error.__context__, Held):
                    message = f"the session {name!r} is in use: try again when its text is complete."
                    raise ApiError(409, message, param="session", code="session_busy") from None
                raise _without_path(error, path, name, 500) from None
            yield path

    @contextmanager
    def _reserved(self, name: str) -> Iterator[None]:
        """Count a new session in the block.

        Raises:
            ApiError: there are as many sessions as there may be.
        """
        with self._mutex:
            self._delete_old()
            if len(self._names() | self._new) >= self._most:
                message = f"there are {self._most} sessions, which is the most that this server keeps: delete one, or continue one."
                raise ApiError(422, message, param="session", code="too_many_sessions")
            self._new.add(name)
        try:
            yield
        finally:
            with self._mutex:
                self._new.discard(name)

    def _load(self, path: Path, name: str, model: Model, status: int = 409) -> Session:
        manifest = model.manifest
        try:
            return Session.load(
                path, manifest.flatbuffer_sha256, model.step.state_size, len(model.vocabulary), hidden_columns(manifest)
            )
        except CharedgeError as error:
            raise _without_path(error, path, name, status, "session_unusable") from None

    def _describe(self, path: Path, models: Mapping[str, Served]) -> dict[str, Any]:
        with suppress(OSError), path.open("rb") as file:
            status, sha256 = path.stat(), _model_sha256(file.read(len(BEGINNING) + SHA256_CHARACTERS))
            names = (name for name, served in models.items() if served.model.manifest.flatbuffer_sha256 == sha256)
            return {
                "name": path.name.removesuffix(SUFFIX),
                "object": "session",
                "model": next(names, None),
                "model_sha256": sha256,
                "bytes": status.st_size,
                "changed": int(status.st_mtime),
            }
        raise _missing(path.name.removesuffix(SUFFIX))


class OpenSession:
    """A session that is locked for a request.

    Attributes:
        before: the text so far; None for a new session.
    """

    def __init__(self, path: Path, name: str, before: Session | None, stack: ExitStack) -> None:
        self.before = before
        self._path, self._name, self._stack = path, name, stack

    def save(self, session: Session) -> None:
        """Replace the session's file.

        Raises:
            ApiError: it cannot be written.
        """
        try:
            session.save(self._path)
        except CharedgeError as error:
            raise _without_path(error, self._path, self._name, 500, "session_unwritable") from None

    def close(self) -> None:
        """Unlock it."""
        self._stack.close()


def most_bytes(models: Iterable[Served]) -> int:
    """Maximum number of bytes of a session's file of these models: base64 and a few kilobytes."""
    manifests = [served.model.manifest for served in models]
    return max(
        (6 * manifest.state_size + 8 * MAX_WINDOW + 11 * matrix_bytes(manifest) // 8 + 100_000 for manifest in manifests), default=0
    )


def _model_sha256(content: bytes) -> str | None:
    """The model of a session, from the beginning of its file."""
    sha256 = content[len(BEGINNING) : len(BEGINNING) + SHA256_CHARACTERS]
    whole = content.startswith(BEGINNING) and re.fullmatch(b"[0-9a-f]{64}", sha256)
    return sha256.decode("ascii") if whole else None


def _missing(name: str) -> ApiError:
    return ApiError(404, f"there is no session {name!r}.", code="session_not_found")


def _unwritable(name: str, error: OSError) -> ApiError:
    return ApiError(500, f"the session {name!r} cannot be written ({error.strerror}).", code="session_unwritable")


def _without_path(error: CharedgeError, path: Path, name: str, status: int, code: str = "failed") -> ApiError:
    """An error with the name of a session in place of its path, which concerns nobody else."""
    return ApiError(status, str(error).replace(str(path), repr(name)), param="session", code=code)
