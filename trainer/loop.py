"""Training: the compiled step, the epochs around it, and what each of them leaves in the run folder."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timezone
from typing import Any, NoReturn

import keras
import numpy as np
import tensorflow as tf

from ..runtime.errors import CharedgeError
from ..runtime.interrupts import Interrupted, Request, deferred_interrupts
from ..runtime.sampling import Sampler, Sampling, random_rows
from ..runtime.scoring import to_bits
from ..runtime.vocabulary import Vocabulary
from .checkpoints import Position, restore_checkpoint, save_checkpoint
from .curves import draw_curves
from .dataset import Windows
from .evaluation import chunk_loss, evaluate_ids
from .fake_quantization import call_quantized
from .model import build_model, state_size
from .progress import Progress
from .run import Config, Epoch, Run

VALIDATION_STREAMS = 64
STREAM_CHARACTERS = 500  # the fewest that a validation stream should have
SAMPLE_LENGTH = 200
UNTRAINED_TOLERANCE = 0.1  # of ln V


class Training:
    """One run's model, optimiser and data, ready to go from any position."""

    def __init__(self, run: Run, config: Config, vocabulary: Vocabulary, train_ids: np.ndarray, validation_ids: np.ndarray) -> None:
        self.run, self.config, self.vocabulary = run, config, vocabulary
        self.windows = Windows(train_ids, config.sequence_length, config.batch_size, config.seed)
        self.validation_ids = validation_ids
        self.state_size = state_size(config.cell, config.layers, config.units)
        keras.utils.set_random_seed(config.seed)
        keras.config.set_dtype_policy(config.precision)
        self.strategy = choose_strategy()
        with self.strategy.scope():
            self.model = build_model(
                len(vocabulary), config.cell, config.layers, config.units, config.embedding_dim, config.dropout
            )
            self.optimizer = keras.optimizers.Adam(self._learning_rate())
            self.optimizer.build(self.model.trainable_variables)
        self.train_step = self._compile_train_step()
        self.chunk = chunk_loss(self.model)
        self.position = Position()
        self.trained = False  # the weights are random
        self.history: list[Epoch] = []

    @property
    def variables(self) -> list[keras.Variable]:
        """All that changes as training goes on: weights, random state, the optimiser's moments."""
        return [*self.model.variables, *self.optimizer.variables]

    def start_from(self, weights: list[np.ndarray]) -> None:
        """Begin with the weights of another run, kept in a first checkpoint."""
        self.model.set_weights(weights)
        self.run.checkpoints.mkdir(parents=True, exist_ok=True)
        save_checkpoint(self.run.checkpoints, self.variables, self.position)
        self.trained = True

    def resume(self) -> None:
        """Go back to the newest checkpoint."""
        self.position = restore_checkpoint(self.run.checkpoints, self.variables)
        self.history = self.run.history()[: self.position.epoch]
        self.trained = True

    def train(self) -> list[Epoch]:
        """Train up to the last epoch of the configuration.

        Returns:
            Every epoch's figures.

        Raises:
            CharedgeError: the loss is no number any more.
            Interrupted: SIGINT or SIGTERM came; a checkpoint was saved after the step under way.
        """
        with Progress(self.config.epochs, self.windows.steps) as progress, deferred_interrupts() as request:
            if not self.trained:
                self._check_untrained(progress)
            while self.position.epoch < self.config.epochs:
                self._train_epoch(progress, request)
                self._end_epoch(progress)
                if request.number is not None:
                    self._stop(progress, request.number)
        return self.history

    def _stop(self, progress: Progress, number: int) -> NoReturn:
        """End in the middle of a training, which a checkpoint holds."""
        position = self.position
        where = f"batch {position.step} of epoch {position.epoch + 1}" if position.step else f"epoch {position.epoch}"
        progress.say(f"stopped after {where} and saved; go on with: charedge train --resume --output {self.run.path}")
        raise Interrupted(number)

    def _learning_rate(self) -> Any:
        rate, steps = self.config.learning_rate, self.windows.steps * self.config.epochs
        return keras.optimizers.schedules.CosineDecay(rate, steps) if self.config.learning_rate_decay == "cosine" else rate

    def _learning_rate_at(self, step: int) -> float:
        rate = self._learning_rate()
        return float(rate if isinstance(rate, float) else rate(step))

    def _compile_train_step(self) -> Callable[[tf.Tensor], tf.Tensor]:
        """A compiled function from a batch of windows [B, T + 1] to its mean loss in nats, that updates the weights."""
        predictions = self.windows.batch_size * self.config.sequence_length
        config, model, optimizer, strategy = self.config, self.model, self.optimizer, self.strategy

        def replica_step(windows: tf.Tensor) -> tf.Tensor:
            tokens, targets = windows[:, :-1], windows[:, 1:]
            state = tf.zeros((tf.shape(windows)[0], self.state_size))
            with tf.GradientTape() as tape:
                inputs = {"tokens": tokens, "state": state}
                outputs = call_quantized(model, inputs, config) if config.quantization_aware else model(inputs, training=True)
                logits = outputs["logits"]
                nats = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=targets, logits=logits)
                loss = tf.reduce_sum(nats) / predictions  # of the global batch, so that the replicas' gradients add up
            optimizer.apply(tape.gradient(loss, model.trainable_variables), model.trainable_variables)
            return loss

        # Without XLA: it makes float32 twice as slow on some CPUs and bfloat16 on all, and keeps the cuDNN kernels away on a GPU.
        @tf.function
        def train_step(windows: tf.Tensor) -> tf.Tensor:
            return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(replica_step, args=(windows,)), axis=None)

        return train_step

    def _batches(self) -> tf.data.Dataset:
        """The batches that the epoch still has, drawn ahead in the background and dealt to the replicas."""
        spec = tf.TensorSpec((self.windows.batch_size, self.config.sequence_length + 1), tf.int32)
        position = self.position
        dataset = tf.data.Dataset.from_generator(lambda: self.windows.epoch(position.epoch, position.step), output_signature=spec)
        return self.strategy.experimental_distribute_dataset(dataset.prefetch(tf.data.AUTOTUNE))

    def _check_untrained(self, progress: Progress) -> None:
        """Before the first step every token is about as likely as another; a loss far from ln V means a broken set-up."""
        window = next(self.windows.epoch(0))
        nats, _ = self.chunk(tf.constant(window[:, :-1]), tf.constant(window[:, 1:]), tf.zeros((len(window), self.state_size)))
        loss, expected = float(nats) / window[:, 1:].size, math.log(len(self.vocabulary))
        progress.say(f"untrained loss {loss:.4f} nats, ln({len(self.vocabulary)}) = {expected:.4f}")
        if not abs(loss - expected) <= UNTRAINED_TOLERANCE * expected:
            progress.say("warning: an untrained model's loss should be about ln(vocabulary); check the installation of TensorFlow.")

    def _train_epoch(self, progress: Progress, request: Request) -> None:
        position = self.position
        progress.start_epoch(position.epoch + 1, position.step)
        characters = self.windows.batch_size * self.config.sequence_length
        seconds = 0.0  # of the steps done here, without the first, which compiles
        for number, batch in enumerate(self._batches()):
            start = time.perf_counter()
            loss = float(self.train_step(batch))
            took = time.perf_counter() - start
            if not math.isfinite(loss):
                raise CharedgeError(
                    f"the loss became {loss} in epoch {position.epoch + 1}: train again with a smaller --learning-rate than "
                    f"{self.config.learning_rate:g}; {self.run.model} keeps the best weights so far."
                )
            position.step += 1
            position.loss_sum += loss
            position.seconds += took
            seconds += took if number else 0.0
            per_step = seconds / number if number else took
            steps_left = (self.config.epochs - position.epoch) * self.windows.steps - position.step
            progress.update(
                position.epoch + 1, position.step, position.loss_sum / position.step, characters / per_step, per_step * steps_left
            )
            if request.number is not None:
                save_checkpoint(self.run.checkpoints, self.variables, position)
                self._stop(progress, request.number)

    def _end_epoch(self, progress: Progress) -> None:
        """Validate, keep the weights if they are the best, and save: first what is read by others, last the checkpoint."""
        position = self.position
        streams = max(1, min(VALIDATION_STREAMS, len(self.validation_ids) // STREAM_CHARACTERS))
        validation = evaluate_ids(self.chunk, self.state_size, self.validation_ids, streams)
        best = min((epoch.validation_nats_per_character for epoch in self.history), default=math.inf)
        epoch = Epoch(
            epoch=position.epoch + 1,
            train_nats_per_character=position.loss_sum / position.step,
            validation_nats_per_character=validation,
            characters_per_second=position.step * self.windows.batch_size * self.config.sequence_length / position.seconds,
            learning_rate=self._learning_rate_at(self.windows.steps * (position.epoch + 1)),
            seconds=position.seconds,
        )
        self.history.append(epoch)
        speed = f"{epoch.characters_per_second / 1000:,.1f} k chars/s  {epoch.seconds:.0f} s"
        progress.say(
            f"epoch {epoch.epoch}/{self.config.epochs}  train {epoch.train_nats_per_character:.4f}  "
            f"validation {validation:.4f} nats ({to_bits(validation):.4f} bits)/char  {speed}"
            f"{'  (best so far)' if validation < best else ''}"
        )
        if validation < best:
            partial = self.run.path / f".best.{self.run.model.name}"
            self.model.save(partial)
            partial.replace(self.run.model)
        self.run.write_history(self.history)
        self._write_events(epoch)
        draw_curves(self.history, self.run.path / "curves.png")
        self.run.write_config(replace(self.config, ended=datetime.now(timezone.utc).isoformat(timespec="seconds")))
        self.position = Position(epoch=epoch.epoch)
        save_checkpoint(self.run.checkpoints, self.variables, self.position)
        progress.say(f"  {self.sample()!r}")

    def _write_events(self, epoch: Epoch) -> None:
        with tf.summary.create_file_writer(str(self.run.path)).as_default(step=epoch.epoch):
            tf.summary.scalar("train_nats_per_character", epoch.train_nats_per_character)
            tf.summary.scalar("validation_nats_per_character", epoch.validation_nats_per_character)
            tf.summary.scalar("characters_per_second", epoch.characters_per_second)

    def sample(self) -> str:
        """A little text from the weights as they are now, the same draws every time."""
        sampling = Sampling()
        sampler = Sampler(sampling, sampling.bias(self.vocabulary), random_rows(self.config.seed, 1), [])
        token, state = self.validation_ids[:1].astype(np.int32), tf.zeros((1, self.state_size))
        ids = []
        for _ in range(SAMPLE_LENGTH):
            logits, state = self._one_step(tf.constant(token[:, None]), state)
            token = sampler(logits.numpy()[:, 0])
            ids.append(int(token[0]))
        return self.vocabulary.decode(ids)

    @tf.function(reduce_retracing=True)
    def _one_step(self, tokens: tf.Tensor, state: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        outputs = self.model({"tokens": tokens, "state": state}, training=False)
        return outputs["logits"], tf.cast(outputs["state"], tf.float32)


def choose_strategy() -> tf.distribute.Strategy:
    """All GPUs of this machine, or the one device there is."""
    return tf.distribute.MirroredStrategy() if len(tf.config.list_logical_devices("GPU")) > 1 else tf.distribute.get_strategy()


def resolve_precision(precision: str) -> str:
    """The Keras dtype policy that `auto` means here: bfloat16 where the hardware multiplies it, else float32."""
    if precision != "auto":
        return precision
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        return "mixed_bfloat16" if capability >= (8, 0) else "float32"
    return "mixed_bfloat16" if _cpu_has_bfloat16() else "float32"


def _cpu_has_bfloat16() -> bool:
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)
