"""The training loop: dispatches the batches of each epoch, validates, saves, and stops when a signal asks for it."""

from __future__ import annotations

import math
import signal
import textwrap
import time
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import NamedTuple, NoReturn

import numpy as np
import tensorflow as tf

from ..runtime.errors import CharedgeError
from ..runtime.interrupts import Interrupted, Request, deferred_interrupts
from ..runtime.progress import Progress, Report
from .accelerators import Hardware, is_out_of_memory
from .checkpoints import Position, save_checkpoint
from .cluster import is_chief, workers
from .config import Config
from .dataset import Data, prefetched
from .determinism import deterministic
from .distribution import deal
from .learner import Learner
from .reports import batch_report, epoch_report
from .results import write_results
from .resume import restore_run
from .run import Epoch, Run
from .timer import StepTimer

UNTRAINED_TOLERANCE = 0.1
"""How far the loss of an untrained model may be from ln V, as a share of ln V."""
STOP, SAVE = 0, 1
"""Places in what a worker asks the others for: to stop, to save a checkpoint."""


class Step(NamedTuple):
    """The results of a step that was dispatched and may still be running."""

    loss: tf.Tensor
    """Mean nats per character of the batch."""
    asked: tf.Tensor
    """What all workers ask for: float32 [2], at STOP and SAVE."""


class Training:
    """A run with its learner and its position, which can train from there to the end."""

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
            run: the run folder.
            config: the configuration, its precision resolved.
            data: the ids to train and to validate on.
            hardware: what the training runs on.
            strategy: from `choose_strategy`, for this hardware.
            checkpoint_seconds: longest time between two checkpoints.

        Raises:
            InvalidOption: the batch size is not a multiple of the number of devices.
            CharedgeError: the text is shorter than a window, or a teacher's weights have changed since the run was started.
        """
        self.run, self.checkpoint_seconds, self.writes = run, checkpoint_seconds, is_chief()
        self._deterministic = not hardware.gpus
        self.learner = Learner(config, data, hardware, strategy)
        self.position = Position()
        self.state = self.learner.zero_state()
        self.trained = False  # the weights are random
        self.history: list[Epoch] = []
        self.learner.teachers.require_unchanged(run, config)
        self.config = replace(config, teachers_sha256=self.learner.teachers.sha256)

    def start_from(self, weights: Sequence[np.ndarray]) -> None:
        """Start from weights in the model's order, and save them in a first checkpoint."""
        self.learner.set_weights(weights)
        if self.writes:
            self.run.checkpoints.mkdir(parents=True, exist_ok=True)
            save_checkpoint(self.run.checkpoints, self.learner.variables, self.position)
        self.trained = True

    def resume(self) -> None:
        """Continue from the newest checkpoint of the run.

        Raises:
            CharedgeError: there is no checkpoint, or the files of the run folder disagree.
        """
        self.position, state, self.history = restore_run(self.run, self.learner, self.config)
        if state is not None:
            self.state = deal(self.learner.strategy, state)
        self.trained = True

    def train(self, progress: Progress) -> list[Epoch]:
        """Train to the last epoch of the configuration, or until patience ends.

        Args:
            progress: gets a report for each batch and epoch, and messages.

        Returns:
            The figures of every epoch.

        Raises:
            CharedgeError: a gradient is wrong on this hardware, the loss is NaN or infinite, or another worker is gone.
            Interrupted: SIGINT, SIGTERM or SIGHUP came; a checkpoint was saved after the running step.
        """
        with deferred_interrupts() as request, deterministic(self._deterministic):
            try:
                self.learner.check_gradient()
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

    def _check_untrained(self, progress: Progress) -> None:
        """Warn if the loss of the untrained model is far from ln V, that of a uniform guess: the set-up is then broken."""
        vocabulary_size = len(self.learner.data.vocabulary)
        loss, expected = self.learner.first_batch_loss(), math.log(vocabulary_size)
        figures = f"{loss:.4f} nats per character over the first batch, ln({vocabulary_size}) = {expected:.4f}"
        progress(Report("training", message=f"untrained loss {figures}"))
        if not abs(loss - expected) <= UNTRAINED_TOLERANCE * expected:
            sentence = "an untrained model's loss should be about ln(vocabulary); check the installation of TensorFlow."
            warnings.warn(sentence, stacklevel=2)

    def _patience_ended(self) -> bool:
        losses = [epoch.validation_nats_per_character for epoch in self.history]
        return bool(self.config.patience and losses) and len(losses) - 1 - int(np.argmin(losses)) >= self.config.patience

    def _stop(self, progress: Progress, number: int) -> NoReturn:
        """Raise `Interrupted` for a signal; the caller has saved a checkpoint."""
        position = self.position
        where = f"batch {position.step} of epoch {position.epoch + 1}" if position.step else f"epoch {position.epoch}"
        progress(Report("training", message=f"stopped after {where} and saved"))
        raise Interrupted(number)

    def _train_epoch(self, progress: Progress, request: Request) -> bool:
        """Dispatch one batch after the other, and read the results of each when the next one is running.

        Returns:
            Whether a worker asked to stop too late to stop within this epoch.
        """
        position, learner = self.position, self.learner
        timer, saved, stop_asked = StepTimer(), time.monotonic(), False
        before: Step | None = None
        for windows in prefetched(learner.batches.epoch(position.epoch, position.step)):
            stop, save = request.number is not None, time.monotonic() - saved > self.checkpoint_seconds
            asks = tf.constant([float(stop), float(save)])  # at STOP and SAVE
            loss, self.state, asked = learner.train_step(deal(learner.strategy, windows), self.state, asks)
            timer.count_step()
            step, before = before, Step(loss, asked)
            if step is None:
                continue
            self._read(step, timer, progress)
            wanted = step.asked.numpy()
            if wanted.any() and position.step + 1 < learner.batches.steps:  # every worker sees the same, and takes part
                self._read(before, timer, progress)
                before = None
                self._save()
                saved = time.monotonic()
                if wanted[STOP]:
                    self._stop(progress, request.number or signal.SIGTERM)
            stop_asked |= bool(wanted[STOP])
        if before is not None:
            self._read(before, timer, progress)
            stop_asked |= bool(before.asked.numpy()[STOP])
        return stop_asked

    def _read(self, step: Step, timer: StepTimer, progress: Progress) -> None:
        """Wait for a step's loss, and add it to the position."""
        position, batches = self.position, self.learner.batches
        loss = float(step.loss)
        if not math.isfinite(loss):
            place = f"batch {position.step + 1} of epoch {position.epoch + 1}"
            self._explain_divergence(f"loss became {loss} in {place} (seen while the next one ran)")
        position.step += 1
        position.loss_sum += loss
        position.seconds += timer.lap()
        characters = batches.batch_size * self.config.sequence_length
        per_step = timer.seconds_per_step()
        rate = float(self.learner.schedule(position.epoch * batches.steps + position.step))
        progress(batch_report(position, self.config.epochs, batches.steps, characters, per_step, rate))

    def _explain_divergence(self, what: str) -> NoReturn:
        best = (
            f"{self.run.model} keeps the {self.config.keep} weights so far" if self.run.model.exists() else "no epoch was finished"
        )
        raise CharedgeError(
            f"the {what}: train again with a smaller `learning_rate` than {self.config.learning_rate:g}, or a smaller `clip_norm`; "
            f"{best}."
        )

    def _save(self) -> None:
        """Save a checkpoint. All workers take part, because the state is gathered from them; the chief alone writes."""
        carried = self.learner.batches.carried and self.position.step > 0
        state = self.learner.strategy.gather(self.state, axis=0).numpy() if carried else None
        if self.writes:
            save_checkpoint(self.run.checkpoints, self.learner.variables, self.position, state)

    def _end_epoch(self, progress: Progress) -> None:
        """Validate, write the results (the weights if they are to be kept), and save the checkpoint last."""
        learner = self.learner
        best = min((epoch.validation_nats_per_character for epoch in self.history), default=math.inf)
        with learner.averaged():
            epoch = self._measured_epoch()
            if not math.isfinite(epoch.validation_nats_per_character):
                self._explain_divergence(f"validation loss became {epoch.validation_nats_per_character} after epoch {epoch.epoch}")
            is_best = epoch.validation_nats_per_character < best
            self.history.append(epoch)
            if self.writes:
                weights = learner.model.get_weights() if is_best or self.config.keep == "last" else None
                write_results(self.run, self.config, self.history, weights, len(learner.data.vocabulary))
            sample = learner.sample()
        self.position = Position(epoch=self.position.epoch + 1)
        self.state = learner.zero_state()
        self._save()
        progress(epoch_report(epoch, self.config.epochs, learner.batches.steps, is_best))
        progress(Report("training", message=f"sample:\n{textwrap.indent(sample.strip(), '  ')}"))

    def _measured_epoch(self) -> Epoch:
        position, batches = self.position, self.learner.batches
        return Epoch(
            epoch=position.epoch + 1,
            train_nats_per_character=position.loss_sum / position.step,
            validation_nats_per_character=self.learner.validation_loss(),
            characters_per_second=position.step * batches.batch_size * self.config.sequence_length / position.seconds,
            learning_rate=float(self.learner.schedule((position.epoch + 1) * batches.steps)),
            seconds=position.seconds,
        )
