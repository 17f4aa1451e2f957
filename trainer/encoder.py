"""Encodes a text in one pass: provisional ids in order of first appearance, and a census of its characters."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from ..runtime.errors import CharedgeError
from ..runtime.vocabulary import Vocabulary

SLICE = 1 << 16
"""Characters that are looked up at once; the arrays then fit the processor's cache."""
UNSEEN = 0xFFFF
CODE_POINTS = 0x110000


def code_points(text: str) -> np.ndarray:
    """The code points of a text: uint32 [characters]."""
    return np.frombuffer(text.encode("utf-32-le"), "<u4")


@dataclass(frozen=True)
class Census:
    """Statistics of an encoded text."""

    alphabet: str
    """Characters by provisional id, in order of appearance."""
    counts: list[int]
    """Occurrences of each character of the alphabet."""
    characters: int
    """Characters of the whole text, those that are left out included."""
    sha256: str
    """SHA-256 of the whole text in UTF-8."""
    left_out: dict[str, int]
    """Occurrences of each character that a given vocabulary does not have, most frequent first."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of the provisional ids."""
        return np.dtype("u1" if len(self.alphabet) <= 256 else "<u2")


class Encoder:
    """Writes the provisional ids of a text that is added in parts: one byte each, or two if there are over 256 characters."""

    def __init__(self, file: BinaryIO, vocabulary: Vocabulary | None) -> None:
        """
        Args:
            file: empty, open for reading and writing.
            vocabulary: characters outside it are left out; None keeps all.
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
        """Encode the next part of the text.

        Raises:
            CharedgeError: the text has more than 65,535 distinct characters.
        """
        for start in range(0, len(text), SLICE):
            part = text[start : start + SLICE]
            self._characters += len(part)
            self._sha256.update(part.encode())
            self._write(code_points(part))

    def census(self) -> Census:
        """The statistics of all parts so far."""
        counts = self._counts[: len(self._alphabet)].tolist()
        left_out = {chr(point): count for point, count in self._left_out.most_common()}
        return Census(self._alphabet, counts, self._characters, self._sha256.hexdigest(), left_out)

    def _write(self, points: np.ndarray) -> None:
        """Encode code points uint32 [n]."""
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
        """Assign ids to new code points uint32 [n], in order of appearance."""
        new, first = np.unique(points, return_index=True)
        new, size = new[np.argsort(first)], len(self._alphabet)
        self._alphabet += "".join(map(chr, new.tolist()))
        if len(self._alphabet) > UNSEEN:
            raise CharedgeError(f"the text has more than {UNSEEN:,} distinct characters: give a text in fewer scripts.")
        if self._bytes == 1 and len(self._alphabet) > 256:
            self._widen()
        self._ids[new] = np.arange(size, len(self._alphabet))

    def _widen(self) -> None:
        """Rewrite the ids in the file from one byte to two, from the end, so that none is overwritten before it is read."""
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
