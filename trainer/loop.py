"""Training: the epochs around the compiled step, and what each of them leaves in the run folder."""

from __future__ import annotations

import math
import signal
import textwrap
import time
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework.config import disable_op_determinism, is_op_determinism_enabled  # not public yet

from ..runtime.errors import CharedgeError, InvalidOption
from ..runtime.interrupts import Interrupted, Request, deferred_interrupts
from ..runtime.progress import Progress, Report
from ..runtime.sampling import Sampler, Sampling, random_rows
from ..runtime.scoring import to_bits
from ..runtime.vocabulary import Vocabulary
from .accelerators import Hardware, is_out_of_memory
from .checkpoints import Position, read_epoch, restore_checkpoint, save_checkpoint, unwritable
from .cluster import is_chief, workers
from .config import Config
from .curves import draw_curves
from .dataset import BATCHINGS, Ids, prefetched, validation_streams
from .distribution import deal
from .dropout import SharedDropout
from .evaluation import chunk_loss, evaluate_ids
from .fast_recurrence import FAST_LAYERS
from .gradient_check import check_gradient
from .logits import compile_reader
from .model import LAYERS, build_model, save_model, state_size
from .optimization import build_optimizer, compile_train_step, schedule_of
from .run import Epoch, Run
from .teachers import Teachers

CUDNN_LAYERS = {**LAYERS, "dropout": SharedDropout}
SAMPLE_LENGTH = 200
UNTRAINED_TOLERANCE = 0.1  # of ln V
STOP, SAVE = 0, 1  # what a worker asks the others for


@dataclass(frozen=True)
class Data:
    """What a training reads."""

    vocabulary: Vocabulary
    train: Ids
    validation: Ids


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Let TensorFlow's operators give the same bytes every time, so that a resume is exact; some have no such form on a GPU.

    Afterwards they are as they were: the program that continues may want random numbers without a seed.
    """
    before = is_op_determinism_enabled()
    if wanted:
        tf.config.experimental.enable_op_determinism()
    try:
        yield
    finally:
        if not before:
            disable_op_determinism()


class Step(NamedTuple):
    """What a step gives, which may still be computed."""

    loss: tf.Tensor
    """The mean nats of the batch."""
    asked: tf.Tensor
    """What all workers ask for: float32 [2], at STOP and SAVE."""


class Pace:
    """The time that steps take, without the first one of an epoch, which may compile."""

    def __init__(self) -> None:
        self._lap = self._begun = time.perf_counter()
        self._steps = 0

    def dispatched(self) -> None:
        """Count one more step."""
        if not self._steps:
            self._begun = time.perf_counter()
        self._steps += 1

    def lap(self) -> float:
        """The seconds since the last call."""
        before, self._lap = self._lap, time.perf_counter()
        return self._lap - before

    def seconds_per_step(self) -> float:
        """The mean over the steps so far."""
        return max(time.perf_counter() - self._begun, 1e-9) / max(1, self._steps - 1)


class Training:
    """One run's model, optimiser and data, ready to go from any position."""

    def __init__(
        self,
        run: Run,
        config: Config,
        data: Data,
        hardware: Hardware,
        strategy: tf.distribute.Strategy,
        checkpoint_seconds: float = math.inf,
    ) -> None:
        """
        Args:
            run: where it is kept.
            config: what to do, the precision resolved.
            data: the ids to train and to validate on.
            hardware: what it runs on.
            strategy: from `choose_strategy`, for this hardware.
            checkpoint_seconds: how long an epoch may take without a checkpoint.

        Raises:
            InvalidOption: the batch cannot be shared out among the devices.
            CharedgeError: the text is shorter than a window.
        """
        self.run, self.config, self.data, self.checkpoint_seconds = run, config, data, checkpoint_seconds
        self.hardware, self.strategy = hardware, strategy
        self.writes = is_chief()
        self.batches = BATCHINGS[config.batching](data.train, config.sequence_length, self._batch_size(), config.seed)
        self.schedule = schedule_of(config, self.batches.steps)
        self.size = state_size(config.cell, config.layers, config.units)
        keras.utils.set_random_seed(config.seed)
        keras.config.set_dtype_policy(config.precision)
        with self.strategy.scope():
            self.cudnn, self.layers = (True, CUDNN_LAYERS) if hardware.gpus else ("auto", FAST_LAYERS)
            self.model = build_model(len(data.vocabulary), config, config.precision, self.cudnn, self.layers)
            teachers = [Run(Path(path)) for path in config.teachers]
            self.teachers = Teachers(teachers, data.vocabulary, config.precision, self.cudnn, self.layers)
            self.seeds = keras.random.SeedGenerator(config.seed)
            self.optimizer = build_optimizer(self.model, config, self.schedule)
        arguments = (self.model, self.teachers, self.optimizer, config, self.batches.batch_size, self.seeds, self.strategy)
        self.train_step = compile_train_step(*arguments)
        self.read = compile_reader(self.model)
        self.chunk = chunk_loss(self.read)
        self.position = Position()
        self.state = self._zero_state()
        self.trained = False  # the weights are random
        self.history: list[Epoch] = []
        self._check_teachers()
        self.config = replace(config, teachers_sha256=self.teachers.sha256)

    def _batch_size(self) -> int:
        """The configured one, or what the text has windows for."""
        replicas, windows = self.strategy.num_replicas_in_sync, (len(self.data.train) - 1) // self.config.sequence_length
        if self.config.batch_size % replicas:
            raise InvalidOption("batch_size", f"{self.config.batch_size} cannot be shared by {replicas} devices: give a multiple.")
        return min(self.config.batch_size, max(windows // replicas, 1) * replicas)

    def _check_teachers(self) -> None:
        """
        Raises:
            CharedgeError: a teacher has other weights than when the run was started.
        """
        for path, before, now in zip(self.config.teachers, self.config.teachers_sha256, self.teachers.sha256, strict=False):
            if before != now:
                raise CharedgeError(
                    f"`teacher` {path} has other weights than when {self.run.path} was started: put the run back that was there, "
                    "or train again with `overwrite`."
                )

    @property
    def _state_shape(self) -> tuple[int, int]:
        """The model's, and the teachers' beside it."""
        return self.batches.batch_size, self.size + self.teachers.size

    def _zero_state(self) -> Any:
        return deal(self.strategy, np.zeros(self._state_shape, np.float32))

    @property
    def variables(self) -> list[Any]:
        """All that changes during a training: weights, random state, the optimiser's moments and averages."""
        return [*self.model.variables, *self.optimizer.variables, self.seeds.state]

    def start_from(self, weights: list[np.ndarray]) -> None:
        """Start from the weights of another run, kept in a first checkpoint."""
        self.model.set_weights(weights)
        for average, variable in zip(self._averages(), self.model.trainable_variables, strict=False):
            average.assign(variable.value)
        if self.writes:
            self.run.checkpoints.mkdir(parents=True, exist_ok=True)
            save_checkpoint(self.run.checkpoints, self.variables, self.position)
        self.trained = True

    def resume(self) -> None:
        """Go back to the newest checkpoint, and write the best weights again if their file is missing.

        Raises:
            CharedgeError: there is no checkpoint, or the parts of the run folder disagree.
        """
        self.position, state = restore_checkpoint(self.run.checkpoints, self.variables)
        self.history = self.run.history()[: self.position.epoch]
        if [epoch.epoch for epoch in self.history] != list(range(1, self.position.epoch + 1)):
            raise CharedgeError(
                f"{self.run.path / 'history.csv'} lacks some of the {self.position.epoch} epochs that are finished: copy it from a "
                "backup, or train again with `overwrite`; `charedge convert` works without it."
            )
        if state is not None:
            if state.shape != self._state_shape or self.position.step >= self.batches.steps:
                raise CharedgeError(
                    f"{self.run.path} disagrees with itself (config.json and {self.run.checkpoints.name}): copy the run folder "
                    "again, or train again with `overwrite`."
                )
            self.state = deal(self.strategy, state)
        if self.history and self.writes and not zipfile.is_zipfile(self.run.model):
            self._write_best()
        self.trained = True

    def _write_best(self) -> None:
        """Write `model.keras` from the checkpoint of the best epoch.

        Raises:
            CharedgeError: no checkpoint holds it any more, or the file cannot be written.
        """
        best = min(self.history, key=lambda epoch: epoch.validation_nats_per_character).epoch
        arrays = read_epoch(self.run.checkpoints, best, self.variables)
        if arrays is None:
            raise CharedgeError(
                f"{self.run.model} is missing or damaged, and no checkpoint holds its weights, those of epoch {best}, any more: "
                "copy it from a backup, or train again with `overwrite`."
            )
        values = {id(variable): array for variable, array in zip(self.variables, arrays, strict=True)}
        averages = zip(self.model.trainable_variables, self._averages(), strict=False)
        values |= {id(variable): values[id(average)] for variable, average in averages}
        try:
            self._save_model([values[id(weight)] for weight in self.model.weights])
        except OSError as error:
            raise unwritable(self.run.path, self.run.model, error) from None
        sentence = f"{self.run.model} was missing or damaged; it was written again from the checkpoint of epoch {best}."
        warnings.warn(sentence, stacklevel=2)

    def _save_model(self, weights: list[np.ndarray]) -> None:
        save_model(weights, len(self.data.vocabulary), self.config, self.run.model)

    def train(self, progress: Progress) -> list[Epoch]:
        """Train up to the last epoch of the configuration, or until patience ends.

        Returns:
            Every epoch's figures.

        Raises:
            CharedgeError: a gradient is wrong on this hardware; the loss is NaN or infinite; or another worker is gone.
            Interrupted: SIGINT, SIGTERM or SIGHUP came; a checkpoint was saved after the step under way.
        """
        with deferred_interrupts() as request, deterministic(not self.hardware.gpus):
            try:
                self._check_gradient()
                if not self.trained:
                    self._check_untrained(progress)
                while self.position.epoch < self.config.epochs and not self._patience_ended():
                    stop_asked = self._train_epoch(progress, request)
                    self._end_epoch(progress)
                    if stop_asked or (request.number is not None and workers() == 1):  # several workers stop together
                        self._stop(progress, request.number or signal.SIGTERM)
            except (tf.errors.UnavailableError, tf.errors.AbortedError, tf.errors.CancelledError, tf.errors.InternalError) as error:
                if workers() == 1 or is_out_of_memory(error):
                    raise
                raise CharedgeError(
                    f"another worker is gone ({str(error).splitlines()[0][:200]}): start all of them again with `resume`."
                ) from None
        return self.history

    def _patience_ended(self) -> bool:
        losses = [epoch.validation_nats_per_character for epoch in self.history]
        return bool(self.config.patience and losses) and len(losses) - 1 - int(np.argmin(losses)) >= self.config.patience

    def _stop(self, progress: Progress, number: int) -> NoReturn:
        """End in the middle of a training, which a checkpoint holds."""
        position = self.position
        where = f"batch {position.step} of epoch {position.epoch + 1}" if position.step else f"epoch {position.epoch}"
        progress(Report("training", message=f"stopped after {where} and saved"))
        raise Interrupted(number)

    def _check_gradient(self) -> None:
        """Before the first step: a backward kernel that is wrong would only make the training worse, in silence."""
        gpus = [device.name for device in tf.config.list_logical_devices("GPU")] if self.hardware.gpus else []
        check_gradient(self.config, gpus or ["CPU:0"], self.cudnn, self.layers)

    def _check_untrained(self, progress: Progress) -> None:
        """Before the first step every token is about as likely as another; a loss far from ln V means a broken set-up."""
        window = next(self.batches.epoch(0))
        nats, _ = self.chunk(tf.constant(window[:, :-1]), tf.constant(window[:, 1:]), tf.zeros((len(window), self.size)))
        loss, expected = float(nats) / window[:, 1:].size, math.log(len(self.data.vocabulary))
        figures = f"{loss:.4f} nats per character over the first batch, ln({len(self.data.vocabulary)}) = {expected:.4f}"
        progress(Report("training", message=f"untrained loss {figures}"))
        if not abs(loss - expected) <= UNTRAINED_TOLERANCE * expected:
            sentence = "an untrained model's loss should be about ln(vocabulary); check the installation of TensorFlow."
            warnings.warn(sentence, stacklevel=2)

    def _train_epoch(self, progress: Progress, request: Request) -> bool:
        """Dispatch one batch after the other; what a step gives is read when the next one is under way.

        Returns:
            Whether a worker asked to stop when the epoch was as good as over.
        """
        position = self.position
        pace, saved, stop_asked = Pace(), time.monotonic(), False
        before: Step | None = None
        for windows in prefetched(self.batches.epoch(position.epoch, position.step)):
            stop, save = request.number is not None, time.monotonic() - saved > self.checkpoint_seconds
            asks = tf.constant([float(stop), float(save)])  # at STOP and SAVE
            loss, self.state, asked = self.train_step(deal(self.strategy, windows), self.state, asks)
            pace.dispatched()
            step, before = before, Step(loss, asked)
            if step is None:
                continue
            self._read(step, pace, progress)
            wanted = step.asked.numpy()
            if wanted.any() and position.step + 1 < self.batches.steps:  # every worker sees the same, and takes part
                self._read(before, pace, progress)
                before = None
                self._save()
                saved = time.monotonic()
                if wanted[STOP]:
                    self._stop(progress, request.number or signal.SIGTERM)
            stop_asked |= bool(wanted[STOP])
        if before is not None:
            self._read(before, pace, progress)
            stop_asked |= bool(before.asked.numpy()[STOP])
        return stop_asked

    def _read(self, step: Step, pace: Pace, progress: Progress) -> None:
        """Wait for a step's loss, and count it."""
        position, steps = self.position, self.batches.steps
        loss = float(step.loss)
        if not math.isfinite(loss):
            self._explain_divergence(loss)
        position.step += 1
        position.loss_sum += loss
        position.seconds += pace.lap()
        per_step = pace.seconds_per_step()
        steps_left = (self.config.epochs - position.epoch) * steps - position.step
        rate = float(self.schedule(position.epoch * steps + position.step))
        characters = self.batches.batch_size * self.config.sequence_length
        mean = position.loss_sum / position.step
        figures = {
            "event": "batch",
            "epoch": position.epoch + 1,
            "step": position.step,
            "steps": steps,
            "nats_per_character": mean,
            "bits_per_character": to_bits(mean),
            "characters_per_second": characters / per_step,
            "seconds_left": per_step * steps_left,
            "learning_rate": rate,
        }
        stage = f"epoch {position.epoch + 1}/{self.config.epochs}"
        progress(Report(stage, position.step, steps, "batches", figures=figures))

    def _explain_divergence(self, loss: float) -> NoReturn:
        best = f"{self.run.model} keeps the best weights so far" if self.run.model.exists() else "no epoch was finished"
        batch, epoch = self.position.step + 1, self.position.epoch + 1
        raise CharedgeError(
            f"the loss became {loss} in batch {batch} of epoch {epoch} (seen while the next one ran): train again with a smaller "
            f"`learning_rate` than {self.config.learning_rate:g}, or a smaller `clip_norm`; {best}."
        )

    def _save(self) -> None:
        """A checkpoint; the state is gathered from all workers, one of which writes."""
        carried = self.batches.carried and self.position.step > 0
        state = self.strategy.gather(self.state, axis=0).numpy() if carried else None
        if self.writes:
            save_checkpoint(self.run.checkpoints, self.variables, self.position, state)

    def _end_epoch(self, progress: Progress) -> None:
        """Validate, keep the weights if they are the best, and save: first what is read by others, last the checkpoint."""
        position = self.position
        best = min((epoch.validation_nats_per_character for epoch in self.history), default=math.inf)
        with self._averaged():
            epoch = self._measured_epoch()
            self.history.append(epoch)
            if self.writes:
                self._write_results(epoch, is_best=epoch.validation_nats_per_character < best)
            sample = self.sample()
        self.position = Position(epoch=position.epoch + 1)
        self.state = self._zero_state()
        self._save()
        self._report_epoch(epoch, epoch.validation_nats_per_character < best, progress)
        progress(Report("training", message=f"sample:\n{textwrap.indent(sample.strip(), '  ')}"))

    def _report_epoch(self, epoch: Epoch, is_best: bool, progress: Progress) -> None:
        validation = epoch.validation_nats_per_character
        line = (
            f"epoch {epoch.epoch}/{self.config.epochs}  training {epoch.train_nats_per_character:.4f}  "
            f"validation {validation:.4f} nats per character ({to_bits(validation):.4f} bits)  "
            f"{epoch.characters_per_second / 1000:,.1f} k chars/s  {epoch.seconds:.0f} s{'  (best so far)' if is_best else ''}"
        )
        figures = {
            "event": "epoch",
            "epoch": epoch.epoch,
            "step": self.batches.steps,
            "steps": self.batches.steps,
            "nats_per_character": epoch.train_nats_per_character,
            "bits_per_character": to_bits(epoch.train_nats_per_character),
            "characters_per_second": epoch.characters_per_second,
            "seconds_left": epoch.seconds * (self.config.epochs - epoch.epoch),
            "learning_rate": epoch.learning_rate,
            "validation_nats_per_character": validation,
        }
        progress(Report(f"epoch {epoch.epoch}/{self.config.epochs}", message=line, figures=figures))

    def _measured_epoch(self) -> Epoch:
        position, validation = self.position, self.data.validation
        streams = validation_streams(len(validation))
        return Epoch(
            epoch=position.epoch + 1,
            train_nats_per_character=position.loss_sum / position.step,
            validation_nats_per_character=evaluate_ids(self.chunk, self.size, validation, streams),
            characters_per_second=position.step * self.batches.batch_size * self.config.sequence_length / position.seconds,
            learning_rate=float(self.schedule((position.epoch + 1) * self.batches.steps)),
            seconds=position.seconds,
        )

    def _write_results(self, epoch: Epoch, is_best: bool) -> None:
        try:
            if is_best:
                self._save_model(self.model.get_weights())
            self.run.write_history(self.history)
            self._write_events(epoch)
            draw_curves(self.history, self.run.path / "curves.png")
            self.run.write_config(replace(self.config, ended=datetime.now(timezone.utc).isoformat(timespec="seconds")))
        except (OSError, tf.errors.OpError) as error:
            raise unwritable(self.run.path, self.run.path, error) from None

    def _write_events(self, epoch: Epoch) -> None:
        with tf.summary.create_file_writer(str(self.run.path)).as_default(step=epoch.epoch):
            tf.summary.scalar("train_nats_per_character", epoch.train_nats_per_character)
            tf.summary.scalar("validation_nats_per_character", epoch.validation_nats_per_character)
            tf.summary.scalar("validation_bits_per_character", to_bits(epoch.validation_nats_per_character))
            tf.summary.scalar("characters_per_second", epoch.characters_per_second)
            tf.summary.scalar("learning_rate", epoch.learning_rate)

    def _averages(self) -> list[Any]:
        """The optimiser's moving averages of the trainable weights, if there are any."""
        optimizer = getattr(self.optimizer, "inner_optimizer", self.optimizer)
        return optimizer._model_variables_moving_average if self.config.average else []

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The model with the averages in place of the weights."""
        variables, averages = self.model.trainable_variables, self._averages()
        weights = [variable.value.numpy() for variable in variables] if averages else []
        for variable, average in zip(variables, averages, strict=False):
            variable.assign(average.value.numpy())
        try:
            yield
        finally:
            for variable, weight in zip(variables, weights, strict=False):
                variable.assign(weight)

    def sample(self) -> str:
        """A little text from the weights as they are now, the same draws every time."""
        sampling = Sampling()
        sampler = Sampler(sampling, sampling.bias(self.data.vocabulary), random_rows(self.config.seed, 1), [])
        token, state = self.data.validation[np.zeros(1, int)].astype(np.int32), tf.zeros((1, self.size))
        ids = []
        for _ in range(SAMPLE_LENGTH):
            logits, state = self.read(tf.constant(token[:, None], tf.int32), state)
            token = sampler(logits.numpy()[:, 0])
            ids.append(int(token[0]))
        return self.data.vocabulary.decode(ids)
