"""Carries out a planned training: finds the hardware, locks the run folder, waits for the workers, trains."""

from __future__ import annotations

import warnings
from contextlib import nullcontext
from dataclasses import replace
from typing import TYPE_CHECKING

from ..runtime.errors import CharedgeError, InvalidOption
from ..runtime.progress import Progress, Report, no_progress
from .cluster import is_chief, workers
from .config import BFLOAT16, Config
from .installation import require_tensorflow
from .lock import locked
from .memory import require_memory
from .preparation import Plan
from .rendezvous import wait_for_workers
from .run import CALIBRATION_CHARACTERS, MAX_HELD_OUT_CHARACTERS, Run

if TYPE_CHECKING:
    import numpy as np

    from ..runtime.vocabulary import Vocabulary
    from .accelerators import Hardware
    from .initial_model import InitialModel


def carry_out(plan: Plan, checkpoint_minutes: float, worker_timeout: float, progress: Progress) -> Run:
    """Carry out a training.

    Args:
        plan: from `plan_training`, `plan_resume` or `plan_finetuning`.
        checkpoint_minutes: longest time between two checkpoints, in minutes.
        worker_timeout: seconds to wait for the other workers.
        progress: gets the batches of each epoch, and messages.

    Returns:
        The run, whose best weights and history are in its folder.

    Raises:
        InvalidOption: this hardware does not support the configuration.
        CharedgeError: the training cannot start, or the loss is not finite.
        Interrupted: a signal came; a checkpoint was saved.
    """
    require_tensorflow("train", "train")
    from .accelerators import memory_explained
    from .dataset import Data
    from .distribution import choose_strategy
    from .loop import Training

    vocabulary, ids, boundary, run = plan.corpus.vocabulary, plan.corpus.ids, plan.boundary, plan.run
    windows = boundary // plan.config.sequence_length
    config, hardware = _on_this_hardware(plan, windows)
    smaller = replace(config, batch_size=max(min(config.batch_size, windows), hardware.cpu_devices), cpu_devices=None)
    require_memory(len(vocabulary), smaller, [teacher.config() for teacher in plan.teachers], hardware)
    data = Data(vocabulary, ids.part(0, boundary), ids.part(boundary, len(ids)))
    with locked(run.path) if is_chief() else nullcontext(), memory_explained(config, hardware):
        wait_for_workers(worker_timeout, lambda message: progress(Report("workers", message=message)))
        strategy = choose_strategy(hardware)  # it must come before any other use of TensorFlow
        weights = None
        if plan.first is not None:
            weights, sha256 = _transferred(plan.first, plan.config, vocabulary, progress)
            config = replace(config, initialized_from_sha256=sha256)
        if is_chief():
            _require_unchanged(plan)
        training = Training(run, config, data, hardware, strategy, checkpoint_minutes * 60)
        if not training.writes:
            progress = no_progress  # the chief reports for all workers
        if plan.resumed is not None:
            training.resume()
            if training.writes:
                run.write_config(training.config)
        elif training.writes:
            run.remove()
            _create(plan, training.config)
        if weights is not None:
            training.start_from(weights)
        left_out = f" ({plan.corpus.skipped:,} others left out)" if plan.corpus.skipped else ""
        line = (
            f"{len(ids):,} characters{left_out}, {len(vocabulary) - 1} distinct; {config.cell.upper()} {config.layers} x "
            f"{config.units}, {training.learner.model.count_params():,} parameters; {config.precision} on {hardware}"
        )
        progress(Report("training", message=line))
        training.train(progress)
    return run


def _on_this_hardware(plan: Plan, windows: int) -> tuple[Config, Hardware]:
    """Find the hardware, and resolve the options that depend on it: precision and the number of CPU devices.

    Raises:
        InvalidOption: this hardware does not support an option.
        CharedgeError: a GPU cannot be used, or a resumed run would compute wrong gradients on it.
    """
    from .accelerators import Hardware, cpu_threads, find_gpus, resolve_precision
    from .distribution import divide_cpu, faster_cpu_devices

    config, resume = plan.config, plan.resumed is not None
    gpus = find_gpus(_warn)
    if resume and gpus and config.precision == BFLOAT16:
        raise CharedgeError(
            f"{plan.run.path} was trained in {BFLOAT16} on {config.hardware or 'unrecorded hardware'}, and that precision gives "
            "wrong gradients on a GPU: continue with `precision` float32, or train again with `overwrite` if it was on a GPU."
        )
    config = replace(config, precision=resolve_precision(config.precision, gpus))
    if gpus or workers() > 1:
        if config.cpu_devices is not None and config.cpu_devices > 1 and not resume:
            raise InvalidOption(
                "cpu_devices",
                f"{config.cpu_devices} is for one process on a CPU, and this training runs on "
                f"{'a GPU' if gpus else 'several workers'}: leave it out.",
            )
        hardware = Hardware(gpus, threads_per_device=cpu_threads(), workers=workers())
    else:
        devices = config.cpu_devices or faster_cpu_devices(config, windows)
        hardware = divide_cpu(devices)
        if hardware.cpu_devices < devices:
            _warn("TensorFlow was initialised before this training, so the CPU cannot be divided into devices: training is slower.")
        config = replace(config, cpu_devices=devices if resume else hardware.cpu_devices)
    return replace(config, hardware=str(hardware)), hardware


def _warn(message: str) -> None:
    warnings.warn(message, stacklevel=2)


def _transferred(first: InitialModel, config: Config, vocabulary: Vocabulary, progress: Progress) -> tuple[list[np.ndarray], str]:
    """A model's weights for another vocabulary: rows of shared characters are kept, others are random.

    Returns:
        The weights, and the SHA-256 of the model's own weights.

    Raises:
        CharedgeError: the weights cannot be read, or are not those of the configured network.
    """
    from .model import transferred_weights, weight_shapes

    weights, sha256 = first.weights(progress if is_chief() else no_progress)
    known = first.vocabulary()
    if [weight.shape for weight in weights] != weight_shapes(len(known), config):
        raise CharedgeError(f"{first.path} disagrees with itself (its weights and its description): copy it again.")
    return transferred_weights(weights, config, known, vocabulary), sha256


def _require_unchanged(plan: Plan) -> None:
    """Check, with the folder locked, that no other training has used it while the corpus was read.

    Raises:
        CharedgeError: another training has used it.
    """
    if plan.resumed is None:
        plan.run.require_free(plan.overwrite)
    elif plan.run.config() != plan.resumed:
        raise CharedgeError(f"{plan.run.path} was changed by another training in the meantime: try again.")


def _create(plan: Plan, config: Config) -> None:
    """Make the run folder.

    Raises:
        CharedgeError: the folder cannot be written.
    """
    from .checkpoints import unwritable

    ids, boundary, run = plan.corpus.ids, plan.boundary, plan.run
    train_text = ids.text(max(0, boundary - CALIBRATION_CHARACTERS), boundary)
    held_out = ids.text(boundary, min(len(ids), boundary + MAX_HELD_OUT_CHARACTERS))
    try:
        run.create(config, plan.corpus.vocabulary, train_text, held_out)
    except OSError as error:
        raise unwritable(run.path, run.path, error) from None
