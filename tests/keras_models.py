"""Tiny Keras models with random weights, and their weights as `reference.run_model` takes them."""

from types import SimpleNamespace

import numpy as np
from charedge.trainer.model import EMBEDDING, LOGITS, RECURRENT, build_model, layer_weights
from configs import make_config

VOCABULARY_SIZE, UNITS = 11, 6


def build(cell, depth=2, **options):
    """A model whose weights are large enough to matter; the options are those of `build_model`."""
    config = make_config(units=UNITS, layers=depth, embedding_dim=4, dropout=0.3, weight_drop=0.0, cell=cell)
    model = build_model(VOCABULARY_SIZE, config, **options)
    random = np.random.default_rng(1)
    model.set_weights([random.normal(size=weight.shape) for weight in model.get_weights()])
    return model


def weights_of(model, cell, depth=2):
    """The weights as `reference.run_model` takes them."""
    stack = []
    for i in range(depth):
        kernel, recurrent, bias = layer_weights(model, RECURRENT.format(i))
        biases = {"input_bias": bias[0], "recurrent_bias": bias[1]} if cell == "gru" else {"input_bias": bias}
        stack.append(SimpleNamespace(kernel=kernel, recurrent_kernel=recurrent, **biases))
    output_kernel, output_bias = layer_weights(model, LOGITS)
    (embedding,) = layer_weights(model, EMBEDDING)
    return SimpleNamespace(cell=cell, embedding=embedding, layers=stack, output_kernel=output_kernel, output_bias=output_bias)
