"""A corpus of any size as ids: encoded in constant memory, and looked up by a vocabulary as it is read."""

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
from .corpus import find_sources
from .encoder import code_points
from .id_cache import Text, provisional_ids


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
    progress: Progress = no_progress,
    unknown: Literal["skip", "unk"] = "skip",
) -> Encoded:
    """Read text files, folders, .gz files and named corpora, one after the other, and encode them.

    Args:
        sources: paths and names, as `find_sources` takes them.
        normalization: the Unicode form.
        vocabulary: one to keep to, or None for that of the text.
        min_count: characters that occur less often become `[UNK]`; a given `vocabulary` has settled that already.
        progress: gets the bytes read, over all passes.
        unknown: what becomes of characters outside a given `vocabulary`: they are left out, or `[UNK]`.

    Raises:
        CharedgeError: a source is missing, unreadable, empty, binary or not UTF-8, changes meanwhile, or has too few or
            too many distinct characters; or a large corpus finds no place in the cache.
    """
    found = find_sources(sources, progress)
    if len(found) > 1 and (empty := [source.name for source in found if not source.size() and not source.is_pipe()]):
        warnings.warn(f"{len(empty):,} of {len(found):,} files are empty, {empty[0]} among them.", stacklevel=2)
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
