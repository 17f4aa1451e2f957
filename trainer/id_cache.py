"""The provisional ids of a corpus: in memory, or in a file that is mapped and kept in the cache for the next time."""

from __future__ import annotations

import hashlib
import json
import unicodedata
import warnings
import zlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from ..runtime.errors import CharedgeError
from ..runtime.files import replacing, write_atomically
from ..runtime.progress import Progress, Report
from ..runtime.text import Normalization
from ..runtime.vocabulary import Vocabulary
from .corpus import BLOCK_BYTES, Source, cache_folder
from .encoder import Census, Encoder

LAYOUT = 2
"""Raised when the files in the cache come to mean something else."""
SMALL_BYTES = 16 << 20
"""Corpora up to this size are encoded each time, and leave nothing in the cache."""
MEMORY_BYTES = 64 << 20
"""Ids up to this size can do without a file."""

Advance = Callable[[int], object]
"""Called with the bytes read since the last call."""


@dataclass(frozen=True)
class Text:
    """What is to be encoded, and how."""

    sources: list[Source]
    normalization: Normalization
    vocabulary: Vocabulary | None
    """Characters outside it are left out; None leaves out none."""

    def write(self, file: BinaryIO, advance: Advance) -> Census:
        """Encode all of it into an empty file.

        Raises:
            CharedgeError: it cannot be read, or there is nothing in it to learn.
            OSError: the file cannot be written.
        """
        encoder = Encoder(file, self.vocabulary)
        for source in self.sources:
            for chunk in source.chunks(self.normalization, advance):
                encoder.add(chunk)
        census = encoder.census()
        if not census.characters:
            are = "are" if len(self.sources) > 1 else "is"
            raise CharedgeError(f"{' and '.join(source.name for source in self.sources)} {are} empty: give a file with text in it.")
        if not census.alphabet:
            raise CharedgeError("the text has no character of the vocabulary: give one like that which the model was trained on.")
        if len(census.alphabet) == 1:
            raise CharedgeError(f"the text has only one distinct character, {census.alphabet!r}: give a real text.")
        return census

    def key(self, advance: Advance) -> str:
        """What names its entry in the cache: a hash of all that the ids depend on."""
        settings = [LAYOUT, self.normalization, unicodedata.unidata_version, self.vocabulary and self.vocabulary.tokens]
        key = hashlib.sha256(json.dumps(settings).encode())
        for source in self.sources:
            content = hashlib.sha256()
            for block in source.blocks():
                advance(len(block))
                content.update(block)
            key.update(content.digest() + bytes([source.compressed]))
        return key.hexdigest()

    def stamps(self) -> list[tuple[int, int, int] | None]:
        """What differs when a file was changed."""
        statuses = [source.status() for source in self.sources]
        return [status and (status.st_ino, status.st_size, status.st_mtime_ns) for status in statuses]


class Full(Exception):
    """The ids are more than memory should hold."""


class Memory(BytesIO):
    """A file in memory, of at most `MEMORY_BYTES`."""

    def write(self, data: Any, /) -> int:
        if self.tell() + memoryview(data).nbytes > MEMORY_BYTES:
            raise Full
        return super().write(data)


def provisional_ids(text: Text, progress: Progress) -> tuple[np.ndarray, Census]:
    """The provisional ids of a text, uint8 or uint16 [characters], and what they stand for."""
    size = sum(source.size() for source in text.sources)
    pipes = [source.name for source in text.sources if source.is_pipe()]
    if pipes or size <= SMALL_BYTES:
        try:
            return _in_memory(text, _sum(progress, size))
        except Full:
            if pipes:
                raise CharedgeError(f"{pipes[0]} can be read only once and holds much text: save it as a file.") from None
    return _in_cache(text, _sum(progress, 2 * size))


def _in_memory(text: Text, advance: Advance) -> tuple[np.ndarray, Census]:
    """
    Raises:
        Full: the ids are more than memory should hold.
    """
    memory = Memory()
    census = text.write(memory, advance)
    return np.frombuffer(memory.getbuffer(), census.dtype), census


def _in_cache(text: Text, advance: Advance) -> tuple[np.ndarray, Census]:
    """From the file that an earlier call left in the cache, or from a new one there; without a cache, in memory.

    Raises:
        CharedgeError: the cache cannot be written, and memory should not hold so much.
    """
    before = text.stamps()
    path = cache_folder() / f"{text.key(advance)}.ids"
    entry = _load(path)
    if entry:
        advance(sum(source.size() for source in text.sources))  # what need not be read again
        return entry

    def write(file: BinaryIO) -> Census:
        census = text.write(file, advance)
        for source, was, now in zip(text.sources, before, text.stamps(), strict=True):
            if was != now:
                raise CharedgeError(f"{source.name} changed while it was read: try again when nothing writes to it.")
        return census

    try:
        return _save(path, write)
    except OSError as error:
        try:
            return _in_memory(text, lambda count: None)
        except Full:
            raise CharedgeError(
                f"the encoded corpus cannot be kept in {path.parent} ({error.strerror}): make room there, "
                "or set XDG_CACHE_HOME to a folder that has some."
            ) from None


def _load(path: Path) -> tuple[np.ndarray, Census] | None:
    """An entry of the cache, or None if there is none, or a damaged one. Beside the ids is their census, as JSON."""
    try:
        with path.open("rb") as file:
            fields = json.loads(path.with_suffix(".json").read_bytes())
            checksum, census = fields.pop("checksum"), Census(**fields)
            if checksum == _checksum(file, census):
                return _map(file, census), census
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    warnings.warn(f"the cached corpus {path} is damaged; the text is encoded again.", stacklevel=2)
    return None


def _save(path: Path, write: Callable[[BinaryIO], Census]) -> tuple[np.ndarray, Census]:
    """Make an entry of the cache: the ids, then their census with the checksum of both.

    Raises:
        OSError: the cache cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        census = write(file)
        file.flush()
        checksum, ids = _checksum(file, census), _map(file, census)
    write_atomically(path.with_suffix(".json"), json.dumps({**asdict(census), "checksum": checksum}).encode())
    return ids, census


def _checksum(file: BinaryIO, census: Census) -> int:
    """The CRC-32 of the ids in a file and of their census. It finds accidents, at some GB/s, so that each use can check."""
    checksum = zlib.crc32(json.dumps(asdict(census), sort_keys=True).encode())
    file.seek(0)
    while block := file.read(BLOCK_BYTES):
        checksum = zlib.crc32(block, checksum)
    return checksum


def _map(file: BinaryIO, census: Census) -> np.ndarray:
    return np.memmap(file, census.dtype, mode="r").view(np.ndarray)  # pyright: ignore[reportArgumentType,reportCallIssue]


def _sum(progress: Progress, total: int) -> Advance:
    """What turns numbers of bytes read since the last call into progress."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(Report("encoding", done, max(done, total), "bytes"))

    return advance
