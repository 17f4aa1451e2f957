"""What the forward pass meets in place of the recurrent matrices: weights dropped, or rounded as a file will hold them.

The matrices are replaced around the layers, not in them, so that cuDNN's kernels can still be used.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from .config import Config
from .model import RECURRENT

LEVELS = {"int4": 7}
OCTAV_ITERATIONS = 12  # enough from where they begin; the converter takes more


def forward(model: keras.Model, inputs: Any, config: Config, seeds: keras.random.SeedGenerator) -> Any:
    """Call a model in training, its matrices replaced as the configuration asks; the gradients are those of what was met.

    Args:
        model: from `build_model`.
        inputs: {"tokens": int32 [B, T], "state": float32 [B, S]}.
        config: what to replace.
        seeds: where the dropped weights are drawn from.

    Returns:
        The model's outputs.
    """
    recurrent, others = inner_kernels(model, config)
    values: dict[int, tuple[Any, Any]] = {id(kernel): (kernel, tf.convert_to_tensor(kernel.value)) for kernel in recurrent + others}
    if config.weight_drop:
        for kernel in recurrent:
            values[id(kernel)] = kernel, keras.random.dropout(values[id(kernel)][1], config.weight_drop, seed=seeds)
    if config.quantization_aware:
        levels = LEVELS[config.quantization_aware]
        values = {key: (kernel, _straight_through(value, levels)) for key, (kernel, value) in values.items()}
    if not config.weight_drop and not config.quantization_aware:
        return model(inputs, training=True)
    with keras.StatelessScope(state_mapping=list(values.values())) as scope:
        outputs = model(inputs, training=True)
    for variable in model.non_trainable_variables:  # the dropouts' random state, which the scope has kept to itself
        value = scope.get_current_value(variable)
        if value is not None:
            variable.assign(value)
    return outputs


def inner_kernels(model: keras.Model, config: Config) -> tuple[list[keras.Variable], list[keras.Variable]]:
    """The recurrent matrices, and those between two layers: together what the converter stores in 4 bits."""
    cells = [model.get_layer(RECURRENT.format(i)).cell for i in range(config.layers)]
    return [cell.recurrent_kernel for cell in cells], [cell.kernel for cell in cells[1:]]


def fake_quantized(kernel: tf.Tensor, levels: int) -> tf.Tensor:
    """A kernel as the file will hold it: float32 [inputs, outputs], a scale for each output, clipped where OCTAV says.

    Source: Sakr et al. 2022, as in `converter.rounding`.
    """
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


def _straight_through(value: tf.Tensor, levels: int) -> tf.Tensor:
    """The rounded value with the gradient of the value (Bengio et al. 2013)."""
    return value + tf.stop_gradient(fake_quantized(value, levels) - value)
