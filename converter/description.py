"""The description of a model: the facts in a model file that are given, not measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..runtime.manifest import LogitTemperature
from ..runtime.text import Normalization


@dataclass(frozen=True)
class Description:
    """The description of a model, for the manifest and the TFLite Metadata."""

    name: str
    author: str
    license: str
    """An SPDX identifier."""
    notes: str
    """What the model writes, and its limits."""
    created: str
    """When the training ended (ISO 8601)."""
    normalization: Normalization
    unknown: str
    """Treatment of characters outside the vocabulary: `skip` or `unk`."""
    start_text: str
    """Text that is read, and not printed, if there is no prompt."""
    training: dict[str, Any]
    """The corpus, the recipe and the losses, as the manifest records them."""
    logit_temperature: LogitTemperature | None = None
    """The temperature that the logits were divided by, if they were."""
