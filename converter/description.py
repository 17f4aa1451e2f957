"""What a model file says of itself that its makers know and nothing measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..runtime.text import Normalization


@dataclass(frozen=True)
class Description:
    """For the manifest, and for the TFLite Metadata."""

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
    """What becomes of a character outside the vocabulary: `skip` or `unk`."""
    start_text: str
    """Fed, and not printed, where there is no prompt."""
    training: dict[str, Any]
    """The corpus, the recipe and the losses, as the manifest records them."""
