"""Seeded damage to a model file: every corruption is a pure function of the file's bytes and a random generator.

Damage means that something got lost, mixed up or mistaken. What makes another valid model is left out: a manifest with another
`start_text`, a vocabulary with the characters in another order, other weights under a SHA-256 of their own. That is an edit, and
a reader does what the edited file says.
"""

from __future__ import annotations

import numpy as np

from .manifest import MANIFEST_CORRUPTIONS
from .registry import Corruption
from .transfer import TRANSFER_CORRUPTIONS
from .vocabulary import VOCABULARY_CORRUPTIONS
from .zip_headers import HEADER_CORRUPTIONS
from .zip_members import MEMBER_CORRUPTIONS

# The number of a case selects a corruption by its place: another order would change the damage of every seed.
CORRUPTIONS: dict[str, Corruption] = {
    **TRANSFER_CORRUPTIONS,
    **MEMBER_CORRUPTIONS,
    **HEADER_CORRUPTIONS,
    **VOCABULARY_CORRUPTIONS,
    **MANIFEST_CORRUPTIONS,
}


def damage(data: bytes, seed: int, case: int) -> tuple[str, bytes]:
    """A case of a seed: the name of its corruption, and the damaged file. The corruptions take turns."""
    name = list(CORRUPTIONS)[case % len(CORRUPTIONS)]
    random = np.random.default_rng([seed, case])
    damaged = data
    for _ in range(100):  # a page may be swapped with itself: draw again
        damaged = CORRUPTIONS[name](data, random)
        if damaged != data:
            break
    return name, damaged
