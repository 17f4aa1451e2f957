"""Weight noise: the forward pass of a training with recurrent weights dropped, or rounded as in the model file.

The matrices are replaced around the layers, not in them, so that cuDNN's kernels can still be used.
"""

from __future__ import annotations

from typing import Any

import keras
import tensorflow as tf

from .config import Config
from .model import RECURRENT

LEVELS = {"int4": 7}
OCTAV_ITERATIONS = 12  # enough from this start value; the converter uses more


def forward(model: keras.Model, inputs: Any, config: Config, seeds: keras.random.SeedGenerator) -> Any:
    """Call a model in training mode with noise on its weights, as configured; gradients pass straight through the rounding.

    Args:
        model: from `build_model`.
        inputs: {"tokens": int32 [B, T], "state": float32 [B, S]}.
        config: `weight_drop` and `quantization_aware`.
        seeds: random state of the weight drop.

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
    for variable in model.non_trainable_variables:  # random state of the dropouts, which the scope does not write back
        value = scope.get_current_value(variable)
        if value is not None:
            variable.assign(value)
    return outputs


def inner_kernels(model: keras.Model, config: Config) -> tuple[list[keras.Variable], list[keras.Variable]]:
    """The kernels that the converter stores in 4 bits.

    Args:
        model: from `build_model`.
        config: its configuration.

    Returns:
        The recurrent kernels, and the input kernels of all layers but the first.
    """
    cells = [model.get_layer(RECURRENT.format(i)).cell for i in range(config.layers)]
    return [cell.recurrent_kernel for cell in cells], [cell.kernel for cell in cells[1:]]


def fake_quantized(kernel: tf.Tensor, levels: int) -> tf.Tensor:
    """Round a kernel as the model file stores it, with a scale for each output and clipping by OCTAV.

    Source: Sakr et al. 2022, as in `converter.rounding`.

    Args:
        kernel: float32 [inputs, outputs].
        levels: largest integer of the format; 7 for int4.

    Returns:
        The rounded values, float32 [inputs, outputs].
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
    """The rounded value with the gradient of the unrounded one (Bengio et al. 2013)."""
    return value + tf.stop_gradient(fake_quantized(value, levels) - value)
