"""The same network in PyTorch, in float32 and under autocast."""

# The peers are installed by `make bench-runtime`, not with the tools.
# pyright: reportMissingImports=false

from __future__ import annotations

import torch
from torch import nn
from training import BATCH_SIZE, EMBEDDING_DIM, VOCABULARY_SIZE, Steps, random_windows


class Model(nn.Module):
    """Token ids [B, T] -> logits [B, T, V]."""

    def __init__(self, units: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY_SIZE, EMBEDDING_DIM)
        self.gru = nn.GRU(EMBEDDING_DIM, units, batch_first=True)
        self.linear = nn.Linear(units, VOCABULARY_SIZE)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        outputs, _ = self.gru(self.embedding(ids))
        return self.linear(outputs)


def training(units: int, bfloat16: bool) -> Steps:
    windows = torch.tensor(random_windows(BATCH_SIZE)).long()
    model = Model(units)
    optimizer = torch.optim.Adam(model.parameters())

    def train(steps: int) -> None:
        for _ in range(steps):
            with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
                logits = model(windows[:, :-1])
            loss = nn.functional.cross_entropy(logits.float().flatten(0, 1), windows[:, 1:].flatten())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    return train


def loops(units: int) -> dict[str, Steps]:
    found = {"PyTorch float32": training(units, bfloat16=False)}
    if torch.ops.mkldnn._is_mkldnn_bf16_supported():  # elsewhere a step takes minutes
        found["PyTorch bfloat16"] = training(units, bfloat16=True)
    return found
