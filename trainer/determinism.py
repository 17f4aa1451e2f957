"""TensorFlow's deterministic operators, for trainings that a resume must continue exactly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import tensorflow as tf
from tensorflow.python.framework.config import disable_op_determinism, is_op_determinism_enabled  # not public yet


@contextmanager
def deterministic(enabled: bool) -> Iterator[None]:
    """Make TensorFlow's operators give the same bytes every time, and restore the earlier setting afterwards.

    The setting is restored because the calling program may want random numbers without a seed later.

    Args:
        enabled: whether to do so; on a GPU some operators have no deterministic kernel.
    """
    before = is_op_determinism_enabled()
    if enabled:
        tf.config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        if not before:
            disable_op_determinism()
