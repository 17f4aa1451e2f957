"""Training that knows how its weights will be stored: the forward pass meets them rounded, the gradients pass through."""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from .model import RECURRENT
from .run import Config

LEVELS = {"int4": 7}
OCTAV_ITERATIONS = 12  # enough from where they begin; the converter takes more


def fake_quantized(kernel: tf.Tensor, levels: int) -> tf.Tensor:
    """A kernel as the file will hold it: float32 [inputs, outputs], a scale for each output, clipped where OCTAV says."""
    size = tf.abs(kernel)
    largest = tf.reduce_max(size, axis=0)
    rounding = 1 / (3 * (levels + 1) ** 2 * 4)
    clip = tf.reduce_mean(size, axis=0)
    for _ in range(OCTAV_ITERATIONS):
        clipped = tf.cast(size > clip, size.dtype)
        count = tf.reduce_sum(clipped, axis=0)
        counts = rounding * (tf.cast(tf.shape(kernel)[0], size.dtype) - count) + count
        clip = tf.minimum(tf.reduce_sum(size * clipped, axis=0) / counts, largest)
    scale = tf.maximum(clip / levels, 1e-30)
    return tf.clip_by_value(tf.round(kernel / scale), -levels, levels) * scale


def call_quantized(model: keras.Model, inputs: Any, config: Config) -> Any:
    """Call a model in training, its recurrent layers' inner matrices rounded; the gradients are those of the rounded ones."""
    levels = LEVELS[str(config.quantization_aware)]
    mapping = []
    for kernel in inner_kernels(model, config):
        value = tf.convert_to_tensor(kernel.value)
        mapping.append((kernel, value + tf.stop_gradient(fake_quantized(value, levels) - value)))
    with keras.StatelessScope(state_mapping=mapping) as scope:
        outputs = model(inputs, training=True)
    for variable in model.non_trainable_variables:  # the dropout's random state, which the scope has kept to itself
        value = scope.get_current_value(variable)
        if value is not None:
            variable.assign(value)
    return outputs


def inner_kernels(model: keras.Model, config: Config) -> list[keras.Variable]:
    """The matrices that the converter stores in 4 bits: all in the recurrent layers but the first one's input side."""
    cells = [model.get_layer(RECURRENT.format(i)).cell for i in range(config.layers)]
    return [cell.recurrent_kernel for cell in cells] + [cell.kernel for cell in cells[1:]]
