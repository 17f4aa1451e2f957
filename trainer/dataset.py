"""Batches of token ids for an epoch, in an order that depends on the seed and the epoch alone, so that any step can be resumed."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from ..runtime.errors import CharedgeError


class Ids(Protocol):
    """Token ids, in memory or on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any: ...


VALIDATION_STREAMS = 64
STREAM_CHARACTERS = 500
"""The fewest characters of a validation stream."""


def validation_start(characters: int, split: float) -> int:
    """The character at which the validation split of a text starts."""
    return int(characters * (1 - split))


def validation_streams(characters: int) -> int:
    """The number of streams in which a validation split is read, from its number of characters."""
    return max(1, min(VALIDATION_STREAMS, characters // STREAM_CHARACTERS))


class Windows:
    """Shuffled windows: the ids cut into pieces of `sequence_length` + 1; all but the last id are input, all but the first targets.

    Each epoch deals its windows in another order, each to be read from a zero state.
    """

    carried = False

    def __init__(self, ids: Ids, sequence_length: int, batch_size: int, seed: int) -> None:
        """
        Raises:
            CharedgeError: there are fewer ids than one window needs.
        """
        _require_window(ids, sequence_length)
        self._ids, self._length, self._seed = ids, sequence_length, seed
        self.windows = (len(ids) - 1) // sequence_length
        self.batch_size = min(batch_size, self.windows)
        self.steps = self.windows // self.batch_size
        """Batches in an epoch; the windows that fill none wait for another epoch's order."""

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[np.ndarray]:
        """The batches of an epoch from some step on: int32 [batch_size, sequence_length + 1]."""
        order = np.random.default_rng([self._seed, epoch]).permutation(self.windows)
        for step in range(first_step, self.steps):
            starts = order[step * self.batch_size : (step + 1) * self.batch_size] * self._length
            yield _windows(self._ids, starts, self._length)


class Streams:
    """Contiguous streams: the rows of a batch continue those of the one before it, so that the state can be carried between them.

    Truncated back-propagation through time; each epoch begins at another offset, so that windows begin elsewhere.
    """

    carried = True

    def __init__(self, ids: Ids, sequence_length: int, batch_size: int, seed: int) -> None:
        """
        Raises:
            CharedgeError: there are fewer ids than one window needs.
        """
        _require_window(ids, sequence_length)
        self._ids, self._length, self._seed = ids, sequence_length, seed
        self.batch_size = min(batch_size, (len(ids) - 1) // sequence_length)
        self.steps = max(1, (len(ids) - 1 - sequence_length) // (self.batch_size * sequence_length))

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[np.ndarray]:
        """The batches of an epoch from some step on: int32 [batch_size, sequence_length + 1]."""
        stream = self.steps * self._length
        offset = np.random.default_rng([self._seed, epoch]).integers(len(self._ids) - self.batch_size * stream)
        starts = offset + np.arange(self.batch_size) * stream
        for step in range(first_step, self.steps):
            yield _windows(self._ids, starts + step * self._length, self._length)


BATCHINGS = {"shuffled": Windows, "carried": Streams}


def prefetched(batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The same batches, each read from memory or disk while the one before is in use."""
    with ThreadPoolExecutor(1, "windows") as reader:
        coming = reader.submit(next, batches, None)
        while (batch := coming.result()) is not None:
            coming = reader.submit(next, batches, None)
            yield batch


def _require_window(ids: Ids, sequence_length: int) -> None:
    if len(ids) <= sequence_length:
        raise CharedgeError(
            f"the text has {len(ids)} characters to train on, and one window needs {sequence_length + 1}: "
            "give a longer text or a smaller `sequence_length`."
        )


def _windows(ids: Ids, starts: np.ndarray, length: int) -> np.ndarray:
    return ids[starts[:, None] + np.arange(length + 1)].astype(np.int32)
