"""PyTorch's own GRU, as it is and with dynamically quantised int8 weights."""

# The peers are installed by `make bench-runtime`, not with the tools.
# pyright: reportMissingImports=false

from __future__ import annotations

import warnings

import numpy as np
import torch
from charedge.converter.step import Weights
from charedge.runtime.vocabulary import UNKNOWN_ID
from random_models import VOCABULARY, random_weights
from step_loop import START, TEMPERATURE, Loop
from torch import nn


class Model(nn.Module):
    """Token ids [1, characters] and the state before them -> logits [1, V] and the state after them."""

    def __init__(self, weights: Weights) -> None:
        super().__init__()
        (layer,) = weights.layers
        assert layer.recurrent_bias is not None, "the peers run GRUs"
        self.embedding = nn.Embedding(*weights.embedding.shape)
        self.gru = nn.GRU(weights.embedding.shape[1], weights.units, batch_first=True)
        self.linear = nn.Linear(weights.units, weights.vocabulary_size)
        values = {
            "embedding.weight": weights.embedding,
            "gru.weight_ih_l0": _reset_first(layer.kernel).T,
            "gru.weight_hh_l0": _reset_first(layer.recurrent_kernel).T,
            "gru.bias_ih_l0": _reset_first(layer.input_bias),
            "gru.bias_hh_l0": _reset_first(layer.recurrent_bias),
            "linear.weight": weights.output_kernel.T,
            "linear.bias": weights.output_bias,
        }
        self.load_state_dict({name: torch.tensor(value) for name, value in values.items()})

    def forward(self, ids: torch.Tensor, state: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outputs, state = self.gru(self.embedding(ids), state)
        return self.linear(outputs[:, -1]), state


def _reset_first(gates: np.ndarray) -> np.ndarray:
    """The gates side by side in PyTorch's order: Keras has update before reset."""
    update, reset, candidate = np.split(gates, 3, axis=-1)
    return np.concatenate([reset, update, candidate], axis=-1)


def generation(model: nn.Module, units: int) -> Loop:
    mask = torch.zeros(len(VOCABULARY))
    mask[UNKNOWN_ID] = -torch.inf
    tokens = VOCABULARY.tokens

    @torch.inference_mode()
    def loop(characters: int) -> str:
        ids, state = torch.tensor([[tokens.index(START)]]), torch.zeros(1, 1, units)
        pieces = []
        for _ in range(characters):
            logits, state = model(ids, state)
            ids = torch.multinomial(torch.softmax(logits / TEMPERATURE + mask, dim=-1), num_samples=1)
            pieces.append(tokens[ids.item()])
        return "".join(pieces)

    return loop


def loops(units: int) -> dict[str, Loop]:
    torch.set_num_threads(1)
    model = Model(random_weights(units)).eval()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a newer way is announced, which quantises no GRU
        quantized = torch.ao.quantization.quantize_dynamic(model, {nn.GRU, nn.Linear}, dtype=torch.qint8)
    return {"PyTorch float32": generation(model, units), "PyTorch int8": generation(quantized, units)}
