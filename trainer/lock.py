"""Lock of a run folder: one training at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..runtime.errors import CharedgeError
from ..runtime.lock import FileLock, Held
from .run import LOCK, Run


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a run folder for the length of a `with` block; make it if it is missing, and remove it again if it stays empty.

    Args:
        folder: the run folder.

    Raises:
        CharedgeError: another process trains in the folder, it cannot be written, or `checkpoints` is a symbolic link.
    """
    checkpoints = Run(folder).checkpoints
    if checkpoints.is_symlink():
        raise CharedgeError(
            f"{checkpoints} is a symbolic link, and a training writes only into its own folder: put the folder itself in its place."
        )
    try:
        made = _make(folder)
        lock = FileLock(folder / LOCK)
    except Held as held:
        raise CharedgeError(
            f"{folder} is being trained by {held.holder}: wait for it, stop it, or choose another `output`."
        ) from None
    except OSError as error:
        raise CharedgeError(f"`output` {folder} cannot be written ({error.strerror}): choose another folder.") from None
    try:
        yield
    finally:
        lock.release()
        if made:
            with suppress(OSError):
                folder.rmdir()


def _make(folder: Path) -> bool:
    missing = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    return missing
