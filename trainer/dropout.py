"""Dropout whose result does not depend on the number of devices that share a batch."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf


class SharedDropout(keras.layers.Dropout):
    """`keras.layers.Dropout` in which every replica draws a mask for the whole batch and uses its own rows of the mask.

    All replicas have the same random state, so Keras' layer would use the same mask in each replica's part of the batch.
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
