"""Cache of encoded corpora: provisional ids in memory, or in a memory-mapped file that is kept for the next training."""

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
from ..runtime.files import cache_folder, replacing, write_atomically
from ..runtime.progress import Progress, Report
from ..runtime.text import Normalization
from ..runtime.vocabulary import Vocabulary
from .corpus import BLOCK_BYTES, Source
from .encoder import Census, Encoder

LAYOUT = 2
"""Version of the cache's files; increased when their meaning changes."""
SMALL_BYTES = 16 << 20
"""Corpora up to this size are encoded each time and not cached."""
MEMORY_BYTES = 64 << 20
"""Largest ids that are kept in memory instead of a file."""

Advance = Callable[[int], object]
"""Called with the bytes read since the last call."""


@dataclass(frozen=True)
class Text:
    """A text to encode, and how."""

    sources: list[Source]
    normalization: Normalization
    vocabulary: Vocabulary | None
    """Characters outside it are left out; None keeps all."""

    def write(self, file: BinaryIO, advance: Advance) -> Census:
        """Encode the whole text into an empty file.

        Args:
            file: empty, open for reading and writing.
            advance: called with the bytes read since the last call.

        Raises:
            CharedgeError: the text cannot be read, or has fewer than two distinct characters.
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
            raise CharedgeError(
                "the text has no character of the vocabulary: give one like the text that the model was trained on."
            )
        if len(census.alphabet) == 1:
            raise CharedgeError(f"the text has only one distinct character, {census.alphabet!r}: give a real text.")
        return census

    def key(self, advance: Advance) -> str:
        """Name of its entry in the cache: a hash of everything that the ids depend on."""
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
        """Inode, size and modification time of each file; they differ if a file was changed."""
        statuses = [source.status() for source in self.sources]
        return [status and (status.st_ino, status.st_size, status.st_mtime_ns) for status in statuses]


class Full(Exception):
    """The ids do not fit into `MEMORY_BYTES`."""


class Memory(BytesIO):
    """A file in memory, of at most `MEMORY_BYTES`."""

    def write(self, data: Any, /) -> int:
        if self.tell() + memoryview(data).nbytes > MEMORY_BYTES:
            raise Full
        return super().write(data)


def provisional_ids(text: Text, progress: Progress) -> tuple[np.ndarray, Census]:
    """Encode a text, or load its ids from the cache.

    Args:
        text: the text, and how to encode it.
        progress: gets the bytes read.

    Returns:
        Provisional ids uint8 or uint16 [characters], and their census.

    Raises:
        CharedgeError: the text cannot be read or encoded, or there is no room for its ids.
    """
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
        Full: the ids do not fit into `MEMORY_BYTES`.
    """
    memory = Memory()
    census = text.write(memory, advance)
    return np.frombuffer(memory.getbuffer(), census.dtype), census


def _in_cache(text: Text, advance: Advance) -> tuple[np.ndarray, Census]:
    """Load the ids from the cache, or encode the text into it; without a writable cache, encode in memory.

    Raises:
        CharedgeError: the cache cannot be written, and the ids do not fit into `MEMORY_BYTES`.
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
    """Load an entry of the cache: the ids, and the JSON file with their census; None if it is missing or damaged."""
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
    """Write an entry of the cache: the ids, then their census with a checksum of both.

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
    """CRC-32 of the ids in a file and of their census; finds accidental damage, fast enough to check at every use."""
    checksum = zlib.crc32(json.dumps(asdict(census), sort_keys=True).encode())
    file.seek(0)
    while block := file.read(BLOCK_BYTES):
        checksum = zlib.crc32(block, checksum)
    return checksum


def _map(file: BinaryIO, census: Census) -> np.ndarray:
    return np.memmap(file, census.dtype, mode="r").view(np.ndarray)  # pyright: ignore[reportArgumentType,reportCallIssue]


def _sum(progress: Progress, total: int) -> Advance:
    """A callback that sums the bytes read since the last call and reports them as progress."""
    done = 0

    def advance(count: int) -> None:
        nonlocal done
        done += count
        progress(Report("encoding", done, max(done, total), "bytes"))

    return advance
