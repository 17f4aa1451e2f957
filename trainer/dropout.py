"""Dropout that does not depend on how many devices share a batch."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class SharedDropout(keras.layers.Dropout):
    """`keras.layers.Dropout` whose replicas each draw for the whole batch and use their own rows of it.

    All replicas hold the same random state, so Keras' layer would drop the same places in each of their parts of the batch.
    """

    def call(self, inputs: Any, training: bool = False) -> Any:
        context: Any = tf.distribute.get_replica_context()
        replicas = context.num_replicas_in_sync if context else 1
        if not training or replicas == 1:
            return super().call(inputs, training=training)
        shape = tf.shape(inputs)
        whole = keras.random.dropout(tf.ones(shape * [replicas, 1, 1], inputs.dtype), self.rate, seed=self.seed_generator)
        first = context.replica_id_in_sync_group * shape[0]
        return inputs * whole[first : first + shape[0]]  # [b, T, units]
