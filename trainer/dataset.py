"""Batches of token ids; their order depends only on the seed and the epoch, so that a training can resume at any step."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..runtime.errors import CharedgeError
from ..runtime.vocabulary import Vocabulary

VALIDATION_STREAMS = 64
STREAM_CHARACTERS = 500
"""The fewest characters of a validation stream."""


class Ids(Protocol):
    """Token ids, in memory or on disk."""

    def __len__(self) -> int: ...

    def __getitem__(self, key: Any, /) -> Any: ...


@dataclass(frozen=True)
class Data:
    """An encoded text, split for a training."""

    vocabulary: Vocabulary
    train: Ids
    validation: Ids


def validation_start(characters: int, split: float) -> int:
    """The character at which the validation split of a text starts."""
    return int(characters * (1 - split))


def validation_streams(characters: int) -> int:
    """The number of streams in which a validation split is read, from its number of characters."""
    return max(1, min(VALIDATION_STREAMS, characters // STREAM_CHARACTERS))


class Windows:
    """Shuffled windows of `sequence_length` + 1 ids: all but the last are input, all but the first are targets.

    Every epoch has its own order. Each window is read from a zero state.
    """

    carried = False

    def __init__(self, ids: Ids, sequence_length: int, batch_size: int, seed: int) -> None:
        """
        Args:
            ids: int [n].
            sequence_length: inputs in a window.
            batch_size: windows in a batch; fewer if the text has fewer.
            seed: of the order.

        Raises:
            CharedgeError: there are fewer ids than one window needs.
        """
        _require_window(ids, sequence_length)
        self._ids, self._length, self._seed = ids, sequence_length, seed
        self.windows = (len(ids) - 1) // sequence_length
        self.batch_size = min(batch_size, self.windows)
        self.steps = self.windows // self.batch_size
        """Batches in an epoch; windows that do not fill a batch are left out of it."""

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[np.ndarray]:
        """Batches of an epoch: int32 [batch_size, sequence_length + 1].

        Args:
            epoch: from 0.
            first_step: the batch to start with, from 0.
        """
        order = np.random.default_rng([self._seed, epoch]).permutation(self.windows)
        for step in range(first_step, self.steps):
            starts = order[step * self.batch_size : (step + 1) * self.batch_size] * self._length
            yield windows(self._ids, starts, self._length)


class Streams:
    """Contiguous streams: each row of a batch continues the same row of the batch before, so that the state can be carried.

    This is truncated back-propagation through time. Every epoch starts at its own offset, so that windows start at other places.
    """

    carried = True

    def __init__(self, ids: Ids, sequence_length: int, batch_size: int, seed: int) -> None:
        """
        Args:
            ids: int [n].
            sequence_length: inputs in a window.
            batch_size: windows in a batch; fewer if the text has fewer.
            seed: of the order.

        Raises:
            CharedgeError: there are fewer ids than one window needs.
        """
        _require_window(ids, sequence_length)
        self._ids, self._length, self._seed = ids, sequence_length, seed
        self.batch_size = min(batch_size, (len(ids) - 1) // sequence_length)
        self.steps = max(1, (len(ids) - 1 - sequence_length) // (self.batch_size * sequence_length))

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[np.ndarray]:
        """Batches of an epoch: int32 [batch_size, sequence_length + 1].

        Args:
            epoch: from 0.
            first_step: the batch to start with, from 0.
        """
        stream = self.steps * self._length
        offset = np.random.default_rng([self._seed, epoch]).integers(len(self._ids) - self.batch_size * stream)
        starts = offset + np.arange(self.batch_size) * stream
        for step in range(first_step, self.steps):
            yield windows(self._ids, starts + step * self._length, self._length)


BATCHINGS = {"shuffled": Windows, "carried": Streams}


def prefetched(batches: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Read the next batch in a thread while the caller uses the current one."""
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


def windows(ids: Ids, starts: np.ndarray, length: int) -> np.ndarray:
    """Cut windows out of a text.

    Args:
        ids: int [n].
        starts: int [windows], the first id of each.
        length: inputs in a window.

    Returns:
        int32 [windows, length + 1]: all but the last column are input, all but the first are targets.
    """
    return ids[starts[:, None] + np.arange(length + 1)].astype(np.int32)
