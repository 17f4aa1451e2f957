"""Teachers for distillation: finished runs, whose mean predictions another model learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import tensorflow as tf

from ..runtime.errors import CharedgeError
from ..runtime.vocabulary import Vocabulary
from .config import Config
from .model import build_model, load_model, state_size, weights_sha256
from .run import Run


class Teachers:
    """An ensemble whose predictions are soft targets for another model.

    Source: Hinton et al. 2015, "Distilling the Knowledge in a Neural Network", at temperature 1.
    """

    def __init__(
        self, runs: Sequence[Run], vocabulary: Vocabulary, precision: str, cudnn: bool | str, layers: Mapping[str, Any]
    ) -> None:
        """
        Args:
            runs: finished runs, whose best weights are used; may be empty.
            vocabulary: the other model's, V tokens.
            precision: a Keras dtype policy.
            cudnn: as for `build_model`.
            layers: as for `build_model`.

        Raises:
            CharedgeError: a run cannot be read, or has another vocabulary.
        """
        self._models, self._sizes = [], []
        self.sha256: list[str] = []
        """SHA-256 of each run's weights."""
        for run in runs:
            if run.vocabulary() != vocabulary:
                raise CharedgeError(
                    f"`teacher` {run.path} predicts other characters: give a run that was trained on this text, or train with its "
                    "`vocabulary`."
                )
            config = run.config()
            model = build_model(len(vocabulary), config, precision, cudnn, layers)
            trained = load_model(run)
            model.set_weights(trained.get_weights())
            self.sha256.append(weights_sha256(trained))
            self._models.append(model)
            self._sizes.append(state_size(config.cell, config.layers, config.units))
        self.size = sum(self._sizes)
        """S, the size of all teachers' states side by side."""

    def predict(self, tokens: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """Predict the token after each token.

        Args:
            tokens: int32 [B, T].
            state: float32 [B, S], before the first token.

        Returns:
            Mean probabilities float32 [B, T, V], and the state after the last token.
        """
        probabilities, states = [], []
        for model, before in zip(self._models, tf.split(state, self._sizes, axis=1), strict=True):
            outputs = model({"tokens": tokens, "state": before}, training=False)
            probabilities.append(tf.nn.softmax(outputs["logits"]))
            states.append(tf.cast(outputs["state"], tf.float32))
        return tf.add_n(probabilities) / len(probabilities), tf.concat(states, axis=1)

    def require_unchanged(self, run: Run, config: Config) -> None:
        """Check that the weights are those that the run was started with.

        Args:
            run: the run that learns from these teachers.
            config: its configuration; it records no weights before the first start.

        Raises:
            CharedgeError: a teacher's weights have changed since the run was started.
        """
        for path, before, now in zip(config.teachers, config.teachers_sha256, self.sha256, strict=False):
            if before != now:
                raise CharedgeError(
                    f"`teacher` {path} has other weights than when {run.path} was started: put the run back that was there, "
                    "or train again with `overwrite`."
                )
