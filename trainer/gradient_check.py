"""Gradient check: compares a small network's gradient on the training's hardware with Keras' own loop on the CPU in float32.

A wrong backward kernel fails in silence: the network learns a little from noise, and clipping hides the size of the gradient.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..runtime.errors import CharedgeError
from .config import Config
from .model import LAYERS, build_model, state_size
from .weight_noise import forward

UNITS, EMBEDDING_DIM, VOCABULARY_SIZE, MOST_LAYERS = 32, 16, 12, 2
ROWS, CHARACTERS = 8, 12
LOSS_SCALE = 1024.0
"""Keeps small gradients from vanishing in float16, as the loss scale of a training does."""
TOLERANCES = {"float32": 0.001, "mixed_float16": 0.02, "mixed_bfloat16": 0.1}
"""Largest relative difference by precision; measured on CPUs over all cells and options: 6e-7, 0.0014 and 0.028."""
TF32_TOLERANCE = 0.02
"""Tolerance of float32 on a GPU, whose tensor cores round the factors of a product to 11 bits, as float16 does."""


def check_gradient(config: Config, devices: Sequence[str], cudnn: bool | str, layers: Mapping[str, Any]) -> float:
    """Compare the gradients of a small network on each device with those of the CPU in float32.

    The network has the training's cell, precision, layers, weight drop and quantisation, and starts from a nonzero state.

    Args:
        config: the training's, its precision resolved.
        devices: TensorFlow's names of the devices.
        cudnn: the training's argument of `build_model`.
        layers: the training's argument of `build_model`.

    Returns:
        Largest relative difference of a weight's gradient.

    Raises:
        CharedgeError: a difference is larger than rounding in this precision explains.
    """
    small = replace(
        config,
        layers=min(config.layers, MOST_LAYERS),
        units=UNITS,
        embedding_dim=EMBEDDING_DIM,
        dropout=0.0,
        embedding_dropout=0.0,
        output_dropout=None,
    )
    expected = _gradients(small, "CPU:0", "float32", False, LAYERS)
    tolerance = TF32_TOLERANCE if cudnn is True and config.precision == "float32" else TOLERANCES[config.precision]
    largest = 0.0
    for device in devices:
        found = _gradients(small, device, config.precision, cudnn, layers)
        difference = max(_relative_difference(*pair) for pair in zip(found, expected, strict=True))
        if not difference <= tolerance:
            raise CharedgeError(
                f"the gradient of a {config.cell.upper()} is wrong on {device} in {config.precision}: it differs by "
                f"{difference:.2g} of its size from float32 in Keras' own loop on the CPU, where rounding makes {tolerance:g} at "
                f"most: {_way_out(config.precision, on_gpu=cudnn is True)}."
            )
        largest = max(largest, difference)
    return largest


def _gradients(config: Config, device: str, precision: str, cudnn: bool | str, layers: Mapping[str, Any]) -> list[np.ndarray]:
    """Gradient of each weight of the small network, as a training step computes it on a device."""
    random = np.random.default_rng(0)
    size = state_size(config.cell, config.layers, config.units)
    with tf.device(device):
        model = build_model(VOCABULARY_SIZE, config, precision, cudnn, layers)
        model.set_weights([random.normal(scale=0.3, size=weight.shape) for weight in model.get_weights()])
        windows = tf.constant(random.integers(0, VOCABULARY_SIZE, (ROWS, CHARACTERS + 1)), tf.int32)
        state = tf.constant(random.uniform(-1, 1, (ROWS, size)), tf.float32)
        seeds = keras.random.SeedGenerator(0)
        with tf.GradientTape() as tape:
            outputs = forward(model, {"tokens": windows[:, :-1], "state": state}, config, seeds)
            nats = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=windows[:, 1:], logits=outputs["logits"])
            loss = LOSS_SCALE * tf.reduce_mean(nats)
        gradients = tape.gradient(loss, model.trainable_variables)
        return [tf.convert_to_tensor(gradient).numpy() / LOSS_SCALE for gradient in gradients]


def _relative_difference(found: np.ndarray, expected: np.ndarray) -> float:
    """Norm of the difference over the norm of the expected gradient; NaN if a gradient is not finite."""
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


def _way_out(precision: str, on_gpu: bool) -> str:
    """Remedy for a wrong gradient."""
    others = [f"`precision` {name}" for name in ("float32", "mixed_float16") if on_gpu or name == "float32" if name != precision]
    ways = [f"train with {' or '.join(others)}"] if others else []
    ways += ["hide the GPU with CUDA_VISIBLE_DEVICES=-1"] if on_gpu else ["install TensorFlow again"]
    return ", or ".join(ways)
