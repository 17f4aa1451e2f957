"""What a training starts from (`init_from`): a run folder, a model file, or a bundled model by its name."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.bundled import NAMES, find_model
from ..runtime.errors import CharedgeError, InvalidOption
from ..runtime.model_file import ModelFile, read_model_file
from ..runtime.progress import Progress, Report, no_progress
from ..runtime.vocabulary import Vocabulary
from .model_weights import read_weights
from .run import Run

if TYPE_CHECKING:
    import numpy as np

KEPT = ("cell", "layers", "units", "embedding_dim", "normalization")
"""Options that a training takes from the model: its shape, and the Unicode form of the text that it knows."""


@dataclass(frozen=True)
class InitialModel:
    """A trained model whose weights another training starts from."""

    source: Run | ModelFile

    @property
    def path(self) -> Path:
        """The run folder, or the model file."""
        return self.source.path

    def vocabulary(self) -> Vocabulary:
        """The model's vocabulary."""
        return self.source.vocabulary() if isinstance(self.source, Run) else self.source.vocabulary

    def kept(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The options `KEPT` by name.

        Args:
            given: the options that the user gave, by name.

        Raises:
            InvalidOption: a given option differs from the model's.
        """
        described = self.source.config() if isinstance(self.source, Run) else self.source.manifest
        kept = {name: getattr(described, name) for name in KEPT}
        for name, value in kept.items():
            if name in given and given[name] != value:
                raise InvalidOption(name, f"{given[name]} is not what {self.path} has ({value}): leave it out.")
        return kept

    def weights(self, progress: Progress = no_progress) -> tuple[list[np.ndarray], str]:
        """The weights in the order of `build_model`, for the model's own vocabulary, and their SHA-256.

        The SHA-256 of a run is that of its weights; of a model file, that of its flatbuffer.

        Args:
            progress: gets a message if the weights are not exactly those of the file.

        Raises:
            CharedgeError: the run has no weights, or its file or the graph of the model file cannot be read.
        """
        if isinstance(self.source, Run):
            from .model import load_model, weights_sha256

            model = load_model(self.source)
            return model.get_weights(), weights_sha256(model)
        read = read_weights(self.source)
        if read.table_error:
            message = (
                f"the table of {self.path} is approximated by embeddings of {self.source.manifest.embedding_dim} dimensions, "
                f"which leaves out {100 * read.table_error:.2g} % of it"
            )
            progress(Report("training", message=message))
        return read.arrays, self.source.manifest.flatbuffer_sha256


def find_initial_model(path: Path) -> InitialModel:
    """Find what `init_from` names; a file or folder of that name takes precedence over a bundled model.

    Raises:
        CharedgeError: it is none of the three, or the model file cannot be read.
    """
    if path.is_dir():
        return InitialModel(Run(path))
    if not os.path.lexists(path) and str(path) not in NAMES:
        raise CharedgeError(
            f"`init_from` {path} is not a run folder, a model file or a bundled model ({', '.join(NAMES)}): give one of these."
        )
    return InitialModel(read_model_file(find_model(path)))
