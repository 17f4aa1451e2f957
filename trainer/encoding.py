"""Encoded corpora of any size: encoding takes constant memory, and ids are looked up when they are read."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from ..runtime.errors import CharedgeError
from ..runtime.progress import Progress, no_progress
from ..runtime.text import Normalization
from ..runtime.vocabulary import UNKNOWN_ID, Vocabulary
from .corpus import Source, find_sources
from .encoder import code_points
from .id_cache import Text, provisional_ids


class IdFile:
    """Ids of a text or of a part of it, looked up when they are read; several threads may read at once."""

    def __init__(self, provisional: np.ndarray, table: np.ndarray, points: np.ndarray) -> None:
        """
        Args:
            provisional: uint8 or uint16 [characters], in memory or mapped.
            table: int32 [distinct], the vocabulary id of each provisional id.
            points: uint32 [distinct], the code point of each provisional id.
        """
        self._provisional, self._table, self._points = provisional, table, points

    def __len__(self) -> int:
        return len(self._provisional)

    def __getitem__(self, key: slice | np.ndarray) -> np.ndarray:
        """Ids int32 at a slice or an array of positions, in its shape."""
        return self._table[self._provisional[key]]

    def part(self, start: int, stop: int) -> IdFile:
        """A view of the characters [start, stop)."""
        return IdFile(self._provisional[start:stop], self._table, self._points)

    def encoded_by(self, vocabulary: Vocabulary) -> IdFile:
        """A view of the same characters with the ids of another vocabulary."""
        alphabet = self._points.tobytes().decode("utf-32-le")
        return IdFile(self._provisional, vocabulary.encode(alphabet), self._points)

    @property
    def has_unknown(self) -> bool:
        """Whether a character of the text has the id of `[UNK]`."""
        return UNKNOWN_ID in self._table

    def text(self, start: int, stop: int) -> str:
        """The characters [start, stop), also those that have the id of `[UNK]`."""
        return self._points[self._provisional[start:stop]].tobytes().decode("utf-32-le")


@dataclass(frozen=True)
class Encoded:
    """An encoded training text and its origin."""

    vocabulary: Vocabulary
    ids: IdFile
    files: list[str]
    """Names of the sources, as given or found."""
    sha256: str
    """SHA-256 of the whole normalised text in UTF-8."""
    characters: int
    """Characters of the whole normalised text."""
    left_out: dict[str, int]
    """Occurrences of each character that is left out of `ids` because a given vocabulary does not have it; most frequent first."""
    unknown: Literal["skip", "unk"]
    """`unk` if rare characters became `[UNK]`."""

    @property
    def skipped(self) -> int:
        """Number of characters that were left out."""
        return sum(self.left_out.values())

    def extended(self, vocabulary: Vocabulary) -> Encoded:
        """The same text encoded by a vocabulary that contains this one."""
        ids = self.ids.encoded_by(vocabulary)
        return replace(self, vocabulary=vocabulary, ids=ids, unknown="unk" if ids.has_unknown else "skip")


def encode_corpus(
    sources: Sequence[str],
    normalization: Normalization,
    vocabulary: Vocabulary | None = None,
    min_count: int = 1,
    progress: Progress = no_progress,
    unknown: Literal["skip", "unk"] = "skip",
) -> Encoded:
    """Read and encode text files, folders, .gz files and named corpora.

    Args:
        sources: paths and names, as `find_sources` takes them.
        normalization: the Unicode form.
        vocabulary: the vocabulary to use; by default it is made from the text.
        min_count: characters that occur less often become `[UNK]`; ignored if a `vocabulary` is given.
        progress: gets the bytes read, over all passes.
        unknown: whether characters outside a given `vocabulary` are left out (`skip`) or become `[UNK]` (`unk`).

    Raises:
        CharedgeError: a source is missing, unreadable, empty, binary or not UTF-8, changes while it is read, or has too
            few or too many distinct characters; or the cache has no room for a large corpus.
    """
    found = find_sources(sources, progress)
    if len(found) > 1 and (empty := [source.name for source in found if not source.size() and not source.is_pipe()]):
        warnings.warn(f"{len(empty):,} of {len(found):,} files are empty, {empty[0]} among them.", stacklevel=2)
    if same := _given_twice(found):
        warnings.warn(f"{same} is given twice: its text may be trained on and held out, so that no loss means much.", stacklevel=2)
    provisional, census = provisional_ids(Text(found, normalization, vocabulary if unknown == "skip" else None), progress)
    if vocabulary is None:
        frequent = [character for character, count in zip(census.alphabet, census.counts, strict=True) if count >= min_count]
        if len(frequent) < 2:
            raise CharedgeError(f"`min_count` {min_count} leaves fewer than two characters of the text: give a smaller one.")
        vocabulary = Vocabulary.of(frequent)
    ids = IdFile(provisional, vocabulary.encode(census.alphabet), code_points(census.alphabet))
    return Encoded(
        vocabulary=vocabulary,
        ids=ids,
        files=[source.name for source in found],
        sha256=census.sha256,
        characters=census.characters,
        left_out=census.left_out,
        unknown="unk" if ids.has_unknown else "skip",
    )


def _given_twice(sources: Sequence[Source]) -> str | None:
    """The name of a file that is also another one of the sources, if there is one."""
    seen: set[tuple[int, int]] = set()
    for source in sources:
        status = source.status()
        if status is None or source.is_pipe():
            continue
        if (file := (status.st_dev, status.st_ino)) in seen:
            return source.name
        seen.add(file)
    return None
