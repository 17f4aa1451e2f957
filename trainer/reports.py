"""Progress reports of a training: one for each batch, one for each epoch."""

from __future__ import annotations

from ..runtime.progress import Report
from ..runtime.scoring import to_bits
from .checkpoints import Position
from .run import Epoch


def batch_report(
    position: Position, epochs: int, steps: int, characters: int, seconds_per_step: float, learning_rate: float
) -> Report:
    """The report after a batch.

    Args:
        position: where the training is, this batch included.
        epochs: epochs in the whole training.
        steps: batches in an epoch.
        characters: characters in a batch.
        seconds_per_step: mean time of a batch.
        learning_rate: of the next batch.
    """
    mean = position.loss_sum / position.step
    stage = f"epoch {position.epoch + 1}/{epochs}"
    figures = {
        "event": "batch",
        "epoch": position.epoch + 1,
        "step": position.step,
        "steps": steps,
        "nats_per_character": mean,
        "bits_per_character": to_bits(mean),
        "characters_per_second": characters / seconds_per_step,
        "seconds_left": seconds_per_step * ((epochs - position.epoch) * steps - position.step),
        "learning_rate": learning_rate,
    }
    return Report(stage, position.step, steps, "batches", figures=figures)


def epoch_report(epoch: Epoch, epochs: int, steps: int, is_best: bool) -> Report:
    """The report after an epoch.

    Args:
        epoch: what was measured.
        epochs: epochs in the whole training.
        steps: batches in an epoch.
        is_best: whether its validation loss is the lowest so far.
    """
    validation = epoch.validation_nats_per_character
    line = (
        f"epoch {epoch.epoch}/{epochs}  training {epoch.train_nats_per_character:.4f}  "
        f"validation {validation:.4f} nats per character ({to_bits(validation):.4f} bits)  "
        f"{epoch.characters_per_second / 1000:,.1f} k chars/s  {epoch.seconds:.0f} s{'  (best so far)' if is_best else ''}"
    )
    figures = {
        "event": "epoch",
        "epoch": epoch.epoch,
        "step": steps,
        "steps": steps,
        "nats_per_character": epoch.train_nats_per_character,
        "bits_per_character": to_bits(epoch.train_nats_per_character),
        "characters_per_second": epoch.characters_per_second,
        "seconds_left": epoch.seconds * (epochs - epoch.epoch),
        "learning_rate": epoch.learning_rate,
        "validation_nats_per_character": validation,
    }
    return Report(f"epoch {epoch.epoch}/{epochs}", message=line, figures=figures)
