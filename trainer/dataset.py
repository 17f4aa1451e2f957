"""Windows of token ids, shuffled anew each epoch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..runtime.errors import CharedgeError


class Windows:
    """Cuts ids into windows of `sequence_length` + 1: all but the last id are input, all but the first are targets.

    The order of an epoch depends on the seed and the epoch alone, so that training can go on from any step of it.
    """

    def __init__(self, ids: np.ndarray, sequence_length: int, batch_size: int, seed: int) -> None:
        """
        Raises:
            CharedgeError: there are fewer ids than one window needs.
        """
        self._ids, self._length, self._seed = ids, sequence_length, seed
        self.windows = (len(ids) - 1) // sequence_length
        if self.windows < 1:
            raise CharedgeError(
                f"the text has {len(ids)} characters to train on, and one window needs {sequence_length + 1}: "
                "give a longer text or a smaller --sequence-length."
            )
        self.batch_size = min(batch_size, self.windows)

    @property
    def steps(self) -> int:
        """How many batches an epoch has; the windows that fill no batch wait for another epoch's order."""
        return self.windows // self.batch_size

    def epoch(self, epoch: int, first_step: int = 0) -> Iterator[np.ndarray]:
        """The batches of an epoch from some step on: int32 [batch_size, sequence_length + 1]."""
        order = np.random.default_rng([self._seed, epoch]).permutation(self.windows)
        offsets = np.arange(self._length + 1)
        for step in range(first_step, self.steps):
            starts = order[step * self.batch_size : (step + 1) * self.batch_size] * self._length
            yield self._ids[starts[:, None] + offsets].astype(np.int32)
