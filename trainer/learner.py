"""A model with what trains it: optimiser, teachers, random state, batches and the compiled step, built for the devices."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from ..runtime.errors import InvalidOption
from .accelerators import Hardware
from .config import Config
from .dataset import BATCHINGS, Data, validation_streams
from .distribution import deal
from .dropout import SharedDropout
from .evaluation import chunk_loss, evaluate_ids
from .fast_recurrence import FAST_LAYERS
from .gradient_check import check_gradient
from .logits import compile_reader
from .model import LAYERS, build_model, state_size
from .optimization import build_optimizer, compile_train_step, schedule_of
from .run import Run
from .sample import sample_text
from .teachers import Teachers

CUDNN_LAYERS = {**LAYERS, "dropout": SharedDropout}


class Learner:
    """A model, its optimiser and its data on the devices of a strategy; knows nothing of the run folder or of epochs."""

    def __init__(self, config: Config, data: Data, hardware: Hardware, strategy: tf.distribute.Strategy) -> None:
        """
        Args:
            config: the training's, its precision resolved.
            data: the ids to train and to validate on.
            hardware: what the training runs on.
            strategy: from `choose_strategy`, for this hardware.

        Raises:
            InvalidOption: the batch size is not a multiple of the number of devices, or there are fewer windows than devices.
            CharedgeError: the text is shorter than a window, or a teacher's run cannot be read.
        """
        self.data, self.strategy = data, strategy
        self._config, self._hardware = config, hardware
        self.batches = BATCHINGS[config.batching](data.train, config.sequence_length, self._batch_size(), config.seed)
        self.schedule = schedule_of(config, self.batches.steps)
        self.state_size = state_size(config.cell, config.layers, config.units)
        keras.utils.set_random_seed(config.seed)
        keras.config.set_dtype_policy(config.precision)
        with strategy.scope():
            self._cudnn, self._layers = (True, CUDNN_LAYERS) if hardware.gpus else ("auto", FAST_LAYERS)
            self.model = build_model(len(data.vocabulary), config, config.precision, self._cudnn, self._layers)
            teachers = [Run(Path(path)) for path in config.teachers]
            self.teachers = Teachers(teachers, data.vocabulary, config.precision, self._cudnn, self._layers)
            self._seeds = keras.random.SeedGenerator(config.seed)
            self._optimizer = build_optimizer(self.model, config, self.schedule)
        arguments = (self.model, self.teachers, self._optimizer, config, self.batches.batch_size, self._seeds, strategy)
        self.train_step = compile_train_step(*arguments)
        self._read = compile_reader(self.model)
        self._chunk = chunk_loss(self._read)

    def _batch_size(self) -> int:
        """The configured batch size, or the number of windows if the text has fewer."""
        replicas, windows = self.strategy.num_replicas_in_sync, (len(self.data.train) - 1) // self._config.sequence_length
        if self._config.batch_size % replicas:
            raise InvalidOption("batch_size", f"{self._config.batch_size} cannot be shared by {replicas} devices: give a multiple.")
        if 0 < windows < replicas:
            length = self._config.sequence_length
            problem = f"{length} leaves fewer windows of the text than there are devices ({windows} and {replicas})"
            raise InvalidOption("sequence_length", f"{problem}: give a smaller one, a longer text or fewer devices.")
        return min(self._config.batch_size, max(windows // replicas, 1) * replicas)

    @property
    def variables(self) -> list[Any]:
        """All variables that a training changes: weights, random state, the optimiser's moments and averages."""
        return [*self.model.variables, *self._optimizer.variables, self._seeds.state]

    @property
    def averages(self) -> list[Any]:
        """The optimiser's moving averages of the trainable weights, in their order; empty if the option `average` is off."""
        optimizer = getattr(self._optimizer, "inner_optimizer", self._optimizer)
        return optimizer._model_variables_moving_average if self._config.average else []

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Put the moving averages in place of the weights for the length of a `with` block."""
        variables, averages = self.model.trainable_variables, self.averages
        weights = [variable.value.numpy() for variable in variables] if averages else []
        for variable, average in zip(variables, averages, strict=False):
            variable.assign(average.value.numpy())
        try:
            yield
        finally:
            for variable, weight in zip(variables, weights, strict=False):
                variable.assign(weight)

    def set_weights(self, weights: Sequence[np.ndarray]) -> None:
        """Set the model's weights, and start their moving averages from them."""
        self.model.set_weights(list(weights))
        for average, variable in zip(self.averages, self.model.trainable_variables, strict=False):
            average.assign(variable.value)

    @property
    def carried_shape(self) -> tuple[int, int]:
        """[B, S + the teachers' S]: the shape of the recurrent state that one batch passes to the next."""
        return self.batches.batch_size, self.state_size + self.teachers.size

    def zero_state(self) -> Any:
        """A recurrent state of zeros, shared out among the devices."""
        return deal(self.strategy, np.zeros(self.carried_shape, np.float32))

    def check_gradient(self) -> None:
        """Check the gradient on every device that trains: a wrong backward kernel only makes the training worse, in silence.

        Raises:
            CharedgeError: a gradient is wrong.
        """
        gpus = [device.name for device in tf.config.list_logical_devices("GPU")] if self._hardware.gpus else []
        check_gradient(self._config, gpus or ["CPU:0"], self._cudnn, self._layers)

    def first_batch_loss(self) -> float:
        """Nats per character of the first batch, from a zero state, without an update."""
        window = next(self.batches.epoch(0))
        zeros = tf.zeros((len(window), self.state_size))
        nats, _ = self._chunk(tf.constant(window[:, :-1]), tf.constant(window[:, 1:]), zeros)
        return float(nats) / window[:, 1:].size

    def validation_loss(self) -> float:
        """Nats per character of the validation split, the state carried through 64 streams of it at most."""
        validation = self.data.validation
        return evaluate_ids(self._chunk, self.state_size, validation, validation_streams(len(validation)))

    def sample(self) -> str:
        """A text from the current weights, which continues the first character of the validation split."""
        first = self.data.validation[np.zeros(1, int)].astype(np.int32)
        return sample_text(self._read, self.state_size, self.data.vocabulary, first, self._config.seed)
