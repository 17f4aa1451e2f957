"""Python API of the trainer: `train`, `finetune` and `evaluate`."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ..runtime.errors import CharedgeError, InvalidOption
from ..runtime.paths import StrPath, path_argument
from ..runtime.progress import Progress, no_progress
from ..runtime.text import Normalization, normalize, read_text
from ..runtime.vocabulary import UNKNOWN_ID
from .cluster import read_cluster
from .config import OPTIONS, POSITIVE, Cell, check_options
from .installation import require_tensorflow
from .preparation import plan_finetuning, plan_resume, plan_training
from .presets import AUTO
from .run import Run
from .training import carry_out

PROTOCOLS = ("carried", "windows", "last-character")


def train(
    corpus: StrPath | Sequence[StrPath] = (),
    output: StrPath = "",
    *,
    preset: str | None = None,
    cell: Cell | None = None,
    units: int | None = None,
    layers: int | None = None,
    embedding_dim: int | None = None,
    dropout: float | None = None,
    output_dropout: float | None = None,
    embedding_dropout: float | None = None,
    weight_drop: float | None = None,
    weight_decay: float | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    sequence_length: int | None = None,
    batching: Literal["carried", "shuffled"] | None = None,
    learning_rate: float | None = None,
    learning_rate_decay: Literal["cosine", "none"] | None = None,
    warmup: int | None = None,
    clip_norm: float | None = None,
    average: float | None = None,
    patience: int | None = None,
    keep: Literal["best", "last"] | None = None,
    validation_split: float | None = None,
    normalization: Normalization | None = None,
    min_count: int | None = None,
    teacher_weight: float | None = None,
    precision: str | None = None,
    cpu_devices: int | None = None,
    seed: int | None = None,
    vocabulary: StrPath | None = None,
    allow_unknown: bool = False,
    init_from: Run | StrPath | None = None,
    teachers: Run | StrPath | Sequence[Run | StrPath] = (),
    checkpoint_minutes: float = 10.0,
    worker_timeout: float = 300.0,
    resume: bool = False,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Run:
    """Train a character model on text.

    Options that are None have the preset's value; docs/training.md describes them.

    Args:
        corpus: a text file, a folder, a `.gz` file or the name of a sample text, or several; may be left out with `resume`.
        output: the folder for the run.
        preset: a named set of defaults: small, base, wide, large, tutorial or charrnn; auto, the default, chooses one for the
            length of the text.
        cell: recurrent cell.
        units: units of each recurrent layer.
        layers: number of recurrent layers.
        embedding_dim: dimensions of the character embedding.
        dropout: dropout rate on the output of each recurrent layer, from 0 to below 1.
        output_dropout: dropout rate on the output of the last recurrent layer; by default `dropout`.
        embedding_dropout: dropout rate on the embeddings.
        weight_drop: dropout on the recurrent matrices, drawn once per window (Merity et al. 2017).
        weight_decay: AdamW weight decay of the matrices; 0 uses plain Adam.
        epochs: passes over the text.
        batch_size: windows in a batch, over all devices.
        sequence_length: characters in a window.
        batching: streams with the state carried, or shuffled windows from zero states.
        learning_rate: peak learning rate.
        learning_rate_decay: decay of the learning rate over all epochs.
        warmup: warm-up steps.
        clip_norm: largest global norm of the gradients; 0 does not clip.
        average: decay of the exponential moving average of the weights; 0 is off.
        patience: epochs without a better validation loss before the training stops; 0 is off.
        keep: the weights to keep: those of the epoch with the best validation loss, or of the last one.
        validation_split: share of the text, from its end, that is held out.
        normalization: Unicode normalization form of the text.
        min_count: characters that occur less often become `[UNK]`.
        teacher_weight: the teachers' share of the loss, above 0 and at most 1.
        precision: a Keras dtype policy, or auto.
        cpu_devices: logical devices that the CPU is divided into; by default the number that is fastest.
        seed: seed of the weights, the data order and dropout.
        vocabulary: a vocabulary.txt; characters outside it are left out.
        allow_unknown: train even if `vocabulary` leaves out more than half of the text.
        init_from: a run, a model file, or the name of a bundled model (`shakespeare`, `shakespeare-tiny`), whose weights to
            start from.
        teachers: finished runs to distil from.
        checkpoint_minutes: longest time between two checkpoints, in minutes.
        worker_timeout: seconds to wait for the other workers that TF_CONFIG names.
        resume: continue the run in the folder; only `epochs` may be raised.
        overwrite: replace the run in the folder.
        progress: gets the batches of each epoch, and messages.

    Returns:
        The run, which `charedge.convert` takes.

    Raises:
        InvalidOption: an argument has an invalid value.
        CharedgeError: TensorFlow is missing, a text or run cannot be read, the folder is taken or cannot be written, or the
            training failed.
        KeyboardInterrupt: Ctrl-C, SIGTERM or SIGHUP came; a checkpoint was saved, from which `resume` continues.
    """
    given = {name: value for name, value in locals().items() if name in OPTIONS and value is not None}
    check_options(given)
    given.pop("preset", None)
    _require_positive(checkpoint_minutes=checkpoint_minutes, worker_timeout=worker_timeout)
    folder, sources = path_argument("output", output), _sources(corpus)
    first = None if init_from is None else path_argument("init_from", init_from)
    listed = None if vocabulary is None else path_argument("vocabulary", vocabulary)
    others = [path_argument("teachers", teacher) for teacher in _several("teachers", teachers)]
    if allow_unknown and listed is None:
        raise InvalidOption("allow_unknown", "has no effect without `vocabulary`: give both, or leave it out.")
    if resume and overwrite:
        raise InvalidOption("resume", "and `overwrite` cannot both be given: choose one.")
    read_cluster()
    if resume:
        plan = plan_resume(folder, sources, preset, given, listed, first, others, progress)
    else:
        plan = plan_training(folder, sources, preset or AUTO, given, listed, allow_unknown, first, others, overwrite, progress)
    return carry_out(plan, checkpoint_minutes, worker_timeout, progress)


def finetune(
    run: Run | StrPath,
    output: StrPath,
    corpus: StrPath | Sequence[StrPath] = (),
    *,
    quantization_aware: Literal["int4"] = "int4",
    epochs: int = 1,
    learning_rate: float | None = None,
    checkpoint_minutes: float = 10.0,
    worker_timeout: float = 300.0,
    overwrite: bool = False,
    progress: Progress = no_progress,
) -> Run:
    """Train a finished run a little longer with its weights rounded as in the model file.

    Args:
        run: the finished run.
        output: the folder for the new run.
        corpus: the text of the run; by default it is read from where it was.
        quantization_aware: how `charedge.convert` will store the weights.
        epochs: passes over the text.
        learning_rate: peak learning rate, falling to 0; by default a third of the run's, or a hundredth if that fell to 0.
        checkpoint_minutes: longest time between two checkpoints, in minutes.
        worker_timeout: seconds to wait for the other workers that TF_CONFIG names.
        overwrite: replace the run in the folder.
        progress: gets the batches of each epoch, and messages.

    Returns:
        The new run.

    Raises:
        InvalidOption, CharedgeError, KeyboardInterrupt: as for `train`.
    """
    rate = {} if learning_rate is None else {"learning_rate": learning_rate}
    check_options({"epochs": epochs, **rate})
    if quantization_aware != "int4":
        raise InvalidOption("quantization_aware", f"{quantization_aware} must be int4.")
    _require_positive(checkpoint_minutes=checkpoint_minutes, worker_timeout=worker_timeout)
    finished, folder, sources = Run.of("run", run), path_argument("output", output), _sources(corpus)
    read_cluster()
    plan = plan_finetuning(finished, folder, sources, quantization_aware, epochs, learning_rate, overwrite, progress)
    return carry_out(plan, checkpoint_minutes, worker_timeout, progress)


@dataclass(frozen=True)
class Evaluation:
    """Result of `evaluate`."""

    nats_per_character: float
    predictions: int
    """Number of characters that the mean is over."""
    characters: int
    """Characters of the text, without the skipped ones."""
    skipped_characters: int
    """Characters outside the vocabulary that were left out."""
    protocol: str


def evaluate(
    run: Run | StrPath,
    file: StrPath | None = None,
    *,
    protocol: str = "carried",
    window: int | None = None,
    stride: int = 1,
    progress: Progress = no_progress,
) -> Evaluation:
    """Measure how well a run's best weights predict a text, on the CPU, in float32.

    Args:
        run: the run.
        file: a text; `-` is stdin; by default the run's held-out text.
        protocol: `carried` (the state carried from the first character to the last), `windows` (every position of consecutive
            windows from zero states) or `last-character` (the one character after each overlapping window).
        window: characters of a window; by default 256, or 100 for `last-character`.
        stride: characters between the starts of two `last-character` windows.
        progress: gets the characters or windows read.

    Raises:
        InvalidOption: an argument has an invalid value.
        CharedgeError: TensorFlow is missing, or the run or the text cannot be read.
    """
    check_protocol(protocol, window, stride)
    folder, text = Run.of("run", run), None if file is None else path_argument("file", file)
    require_tensorflow("evaluate", "train")
    from .accelerators import hide_gpus
    from .evaluation import evaluate_by
    from .fast_recurrence import FAST_LAYERS
    from .model import load_model

    ids, skipped = _known_ids(folder, text)
    hide_gpus()
    result = evaluate_by(protocol, load_model(folder, FAST_LAYERS), ids, window, stride, progress)
    return Evaluation(result.nats_per_character, result.predictions, len(ids), skipped, protocol)


def check_protocol(protocol: str, window: int | None, stride: int) -> None:
    """Check the arguments of `evaluate` that belong to its protocol.

    Args:
        protocol: one of `PROTOCOLS`.
        window: characters of a window, or None.
        stride: characters between the starts of two windows.

    Raises:
        InvalidOption: the protocol is unknown, or does not take this window or stride.
    """
    if protocol not in PROTOCOLS:
        raise InvalidOption("protocol", f"{protocol} must be one of {', '.join(PROTOCOLS)}.")
    if window is not None and protocol == "carried":
        raise InvalidOption("window", f"{window} needs the protocol windows or last-character.")
    if window is not None and (type(window) is not int or window < 1):
        raise InvalidOption("window", f"{window} must be a whole number from 1 up.")
    if type(stride) is not int or stride < 1:
        raise InvalidOption("stride", f"{stride} must be a whole number from 1 up.")
    if stride != 1 and protocol != "last-character":
        raise InvalidOption("stride", f"{stride} needs the protocol last-character.")


def _several(name: str, values: Any) -> Sequence[Any]:
    """Convert an argument, one path or a list of paths, to a list.

    Raises:
        InvalidOption: it is neither.
    """
    if isinstance(values, (str, os.PathLike)):
        return [values]
    if not isinstance(values, Sequence):
        raise InvalidOption(name, f"{values!r} must be a path, or a list of paths.")
    return values


def _sources(corpus: StrPath | Sequence[StrPath]) -> list[str]:
    """The paths and names of a corpus as strings."""
    sources = _several("corpus", corpus)
    for source in sources:
        path_argument("corpus", source)
    return [os.fspath(source) for source in sources]


def _require_positive(**values: float) -> None:
    for name, value in values.items():
        if not POSITIVE.allows(value):
            raise InvalidOption(name, f"{value} must be {POSITIVE.expected}.")


def _known_ids(run: Run, file: Path | None) -> tuple[np.ndarray, int]:
    """Encode a text, or the run's held-out text, by the run's vocabulary.

    Returns:
        The ids int [n], and the number of characters that were left out.

    Raises:
        CharedgeError: fewer than two characters are left.
    """
    config = run.config()
    text = run.held_out() if file is None else normalize(read_text(file), config.normalization)
    if not text:
        raise CharedgeError(f"{file or run.path} is empty: give a text.")
    ids = run.vocabulary().encode(text)
    skipped = int((ids == UNKNOWN_ID).sum()) if config.unknown == "skip" else 0
    if skipped:
        warnings.warn(f"{skipped:,} characters are not in the vocabulary; they are left out.", stacklevel=3)
        ids = ids[ids != UNKNOWN_ID]
    if len(ids) < 2:
        raise CharedgeError(f"{file or run.path} has fewer than two characters that the model knows: give a longer text.")
    return ids, skipped
