"""A sample of the text that a model writes, shown after each epoch."""

from __future__ import annotations

import numpy as np
import tensorflow as tf

from ..runtime.sampling import Sampler, Sampling, random_rows
from ..runtime.vocabulary import Vocabulary
from .logits import Reader

SAMPLE_LENGTH = 200


def sample_text(read: Reader, state_size: int, vocabulary: Vocabulary, first: np.ndarray, seed: int) -> str:
    """A text of 200 characters, drawn with the default sampling options.

    Args:
        read: the model, from `compile_reader`.
        state_size: S.
        vocabulary: the model's.
        first: int32 [1], the token to continue from.
        seed: of the draws; the same seed draws the same way after every epoch.
    """
    sampling = Sampling()
    sampler = Sampler(sampling, sampling.bias(vocabulary), random_rows(seed, 1), [])
    token, state = first, tf.zeros((1, state_size))
    ids = []
    for _ in range(SAMPLE_LENGTH):
        logits, state = read(tf.constant(token[:, None], tf.int32), state)
        token = sampler(logits.numpy()[:, 0])
        ids.append(int(token[0]))
    return vocabulary.decode(ids)
