"""A corpus of any size as ids: encoded in constant memory into a file that is mapped, and kept for the next time.

The file holds provisional ids, numbered as the characters first appear, so that one pass over the text is enough; what
they stand for is known when it ends, and is looked up at reading.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
import zlib
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np

from ..runtime.cli import say
from ..runtime.errors import CharedgeError
from ..runtime.files import replacing, write_atomically
from ..runtime.text import Normalization
from ..runtime.vocabulary import UNKNOWN_ID, Vocabulary
from .corpus import BLOCK_BYTES, Source, cache_folder, find_sources

LAYOUT = 2
"""Raised when the files in the cache come to mean something else."""
SMALL_BYTES = 16 << 20
"""Corpora up to this size are encoded anew each time, and leave nothing in the cache."""
MEMORY_BYTES = 64 << 20
"""Ids up to this size can do without a file."""
SLICE = 1 << 16
"""Characters that are looked up at once: what that takes stays in the processor's cache."""
UNSEEN = 0xFFFF
CODE_POINTS = 0x110000

Progress = Callable[[int, int], object]
Advance = Callable[[int], object]


class IdFile:
    """The ids of a text, or of a part of it: looked up as they are read. Several threads may read at once."""

    def __init__(self, provisional: np.ndarray, table: np.ndarray, points: np.ndarray) -> None:
        """
        Args:
            provisional: uint8 or uint16 [characters], in memory or mapped.
            table: int32 [distinct], the id that each provisional id becomes.
            points: uint32 [distinct], the code point that each provisional id stands for.
        """
        self._provisional, self._table, self._points = provisional, table, points

    def __len__(self) -> int:
        return len(self._provisional)

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        """The ids at some places: int32, of the shape of the slice or of the array of integers."""
        return self._table[self._provisional[key]]

    def part(self, start: int, stop: int) -> IdFile:
        """A view of the characters from `start` to before `stop`."""
        return IdFile(self._provisional[start:stop], self._table, self._points)

    def encoded_by(self, vocabulary: Vocabulary) -> IdFile:
        """The same characters with the ids of another vocabulary."""
        alphabet = self._points.tobytes().decode("utf-32-le")
        return IdFile(self._provisional, vocabulary.encode(alphabet), self._points)

    @property
    def has_unknown(self) -> bool:
        """Whether some character of the text is `[UNK]`."""
        return UNKNOWN_ID in self._table

    def text(self, start: int, stop: int) -> str:
        """The characters from `start` to before `stop`, also those whose id is `[UNK]`."""
        return self._points[self._provisional[start:stop]].tobytes().decode("utf-32-le")


@dataclass(frozen=True)
class Encoded:
    """A text to train on as ids, and where it came from."""

    vocabulary: Vocabulary
    ids: IdFile
    files: list[str]
    """The sources as they were given or found."""
    sha256: str
    """Of the normalised text in UTF-8, with all its characters."""
    characters: int
    """Of the normalised text."""
    left_out: dict[str, int]
    """Characters that a given vocabulary does not have, and how often each occurs, most frequent first; `ids` is without them."""
    unknown: Literal["skip", "unk"]
    """`unk` if rare characters became `[UNK]`."""

    @property
    def skipped(self) -> int:
        """How many of the text's characters were left out."""
        return sum(self.left_out.values())

    def extended(self, vocabulary: Vocabulary) -> Encoded:
        """The same text by a vocabulary that has all characters of this one, and others."""
        ids = self.ids.encoded_by(vocabulary)
        return replace(self, vocabulary=vocabulary, ids=ids, unknown="unk" if ids.has_unknown else "skip")


def encode_corpus(
    sources: Sequence[str],
    normalization: Normalization,
    vocabulary: Vocabulary | None = None,
    min_count: int = 1,
    progress: Progress = lambda done, total: None,
    unknown: Literal["skip", "unk"] = "skip",
) -> Encoded:
    """Read text files, folders, .gz files and named corpora, one after the other, and encode them.

    Args:
        sources: paths and names, as `find_sources` takes them.
        normalization: the Unicode form.
        vocabulary: one to keep to, or None for that of the text.
        min_count: characters that occur less often become `[UNK]`; a given `vocabulary` has settled that already.
        progress: called with the bytes read, over all passes, and how many that will be.
        unknown: what becomes of characters outside a given `vocabulary`: they are left out, or `[UNK]`.

    Raises:
        CharedgeError: a source is missing, unreadable, empty, binary or not UTF-8, changes meanwhile, or has too few or
            too many distinct characters; or a large corpus finds no place in the cache.
    """
    found = find_sources(sources)
    if len(found) > 1 and (empty := [source.name for source in found if not source.size() and not source.is_pipe()]):
        say(f"warning: {len(empty):,} of {len(found):,} files are empty, {empty[0]} among them")
    provisional, census = _encode(Text(found, normalization, vocabulary if unknown == "skip" else None), progress)
    if vocabulary is None:
        frequent = [character for character, count in zip(census.alphabet, census.counts, strict=True) if count >= min_count]
        if len(frequent) < 2:
            raise CharedgeError(f"--min-count {min_count} leaves fewer than two characters of the text: give a smaller one.")
        vocabulary = Vocabulary.of(frequent)
    ids = IdFile(provisional, vocabulary.encode(census.alphabet), _points(census.alphabet))
    return Encoded(
        vocabulary=vocabulary,
        ids=ids,
        files=[source.name for source in found],
        sha256=census.sha256,
        characters=census.characters,
        left_out=census.left_out,
        unknown="unk" if ids.has_unknown else "skip",
    )


def _points(text: str) -> np.ndarray:
    """The code points of a text: uint32 [characters]."""
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


@dataclass(frozen=True)
class Census:
    """What is known of a text when all of it was encoded."""

    alphabet: str
    """The characters that provisional ids stand for, in order of appearance."""
    counts: list[int]
    """How often each occurs."""
    characters: int
    """Of the whole text, with those that a given vocabulary has not."""
    sha256: str
    """Of the whole text in UTF-8."""
    left_out: dict[str, int]
    """The characters that a given vocabulary does not have, and how often each occurs, most frequent first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of the provisional ids."""
        return np.dtype("u1" if len(self.alphabet) <= 256 else "<u2")


class Encoder:
    """Writes the provisional ids of a text that comes in parts: a byte each, or two from the 257th character on."""

    def __init__(self, file: BinaryIO, vocabulary: Vocabulary | None) -> None:
        """
        Args:
            file: empty, open for reading and writing.
            vocabulary: characters that it has not are left out; None leaves out none.
        """
        self._file = file
        self._known = None if vocabulary is None else _is_in(vocabulary)
        self._ids = np.full(CODE_POINTS, UNSEEN, np.uint16)  # the provisional id of each code point
        self._counts = np.zeros(UNSEEN, np.int64)
        self._left_out: Counter[int] = Counter()  # by code point
        self._alphabet = ""
        self._bytes = 1  # of an id
        self._characters, self._sha256 = 0, hashlib.sha256()

    def add(self, text: str) -> None:
        """
        Raises:
            CharedgeError: the text has more distinct characters than two bytes can tell apart.
        """
        for start in range(0, len(text), SLICE):
            part = text[start : start + SLICE]
            self._characters += len(part)
            self._sha256.update(part.encode())
            self._write(_points(part))

    def census(self) -> Census:
        counts = self._counts[: len(self._alphabet)].tolist()
        left_out = {chr(point): count for point, count in self._left_out.most_common()}
        return Census(self._alphabet, counts, self._characters, self._sha256.hexdigest(), left_out)

    def _write(self, points: np.ndarray) -> None:
        """Go on with some more code points: uint32 [n]."""
        if self._known is not None:
            known = self._known[points]
            others, counts = np.unique(points[~known], return_counts=True)
            self._left_out.update(dict(zip(others.tolist(), counts.tolist(), strict=True)))
            points = points[known]
        ids = self._ids[points]
        if ids.max(initial=0) == UNSEEN:
            self._learn(points[ids == UNSEEN])
            ids = self._ids[points]
        counts = np.bincount(ids)
        self._counts[: len(counts)] += counts
        self._file.write(ids.astype("u1" if self._bytes == 1 else "<u2").tobytes())

    def _learn(self, points: np.ndarray) -> None:
        """Give ids to code points that have none yet, in order of appearance: uint32 [n]."""
        new, first = np.unique(points, return_index=True)
        new, size = new[np.argsort(first)], len(self._alphabet)
        self._alphabet += "".join(map(chr, new.tolist()))
        if len(self._alphabet) > UNSEEN:
            raise CharedgeError(f"the text has more than {UNSEEN:,} distinct characters: give a text in fewer scripts.")
        if self._bytes == 1 and len(self._alphabet) > 256:
            self._widen()
        self._ids[new] = np.arange(size, len(self._alphabet))

    def _widen(self) -> None:
        """Make two bytes of each that is written, from the end on, so that none is overwritten before it is read."""
        size = self._file.tell()
        for start in reversed(range(0, size, SLICE)):
            self._file.seek(start)
            ids = np.frombuffer(self._file.read(min(SLICE, size - start)), np.uint8)
            self._file.seek(2 * start)
            self._file.write(ids.astype("<u2").tobytes())
        self._file.seek(2 * size)
        self._bytes = 2


def _is_in(vocabulary: Vocabulary) -> np.ndarray:
    """Whether each code point is in a vocabulary: bool [code points]."""
    known = np.zeros(CODE_POINTS, bool)
    known[[ord(token) for token in vocabulary.tokens[1:]]] = True
    return known


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


def _encode(text: Text, progress: Progress) -> tuple[np.ndarray, Census]:
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
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        pass
    say(f"the cached corpus {path} is damaged: encoding the text again")
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
        progress(done, max(done, total))

    return advance
