"""A run's best weights as model files in memory, measured against the Keras model. TensorFlow is imported when it is needed."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.errors import CharedgeError
from ..runtime.progress import Progress, Report
from ..trainer.installation import require_installed, require_tensorflow
from ..trainer.run import Run
from .profiles import PROFILES

if TYPE_CHECKING:
    from .build import Built

VERIFIED_CHARACTERS = 20_000


def build_run(
    run: Run,
    quantizations: Sequence[str],
    texts: dict[str, str | None],
    fit: bool,
    temperature: float | None,
    progress: Progress,
) -> list[Built]:
    """Read a run with Keras, and build and measure its files.

    Args:
        run: the run.
        quantizations: names in `PROFILES`.
        texts: `name`, `author`, `license` and `notes`.
        fit: whether to divide the logits by a fitted temperature.
        temperature: a temperature to divide them by without fitting, or None.
        progress: called with reports.

    Raises:
        CharedgeError: TensorFlow is not installed, the run is damaged or its files do not match, or no interpreter is installed.
    """
    require_installed("convert", "convert")
    config, vocabulary = run.config(), run.vocabulary()
    progress(Report("converting", message=f"converting {run.path} to {', '.join(quantizations)}"))
    require_tensorflow("convert", "convert")
    from ..trainer.accelerators import hide_gpus
    from ..trainer.fast_recurrence import FAST_LAYERS
    from ..trainer.logits import read_text
    from ..trainer.model import load_model
    from .build import build_model_files
    from .description import Description
    from .read_run import calibration_ids, held_out_ids, read_weights, start_text, training_record
    from .temperature import apply_temperature

    hide_gpus()
    model = load_model(run, FAST_LAYERS)
    logit_temperature = apply_temperature(model, run, fit, temperature, progress)
    held_out = held_out_ids(run, VERIFIED_CHARACTERS)
    # GPTQ makes weights worse that were trained to be rounded: they already are near the values that int4 can store.
    gptq = not config.quantization_aware
    calibrated = "int8-static" in quantizations or ("int4" in quantizations and gptq)
    notes = {"notes": texts["notes"]} if texts["notes"] else {}
    description = Description(
        name=texts["name"] or _folder_name(run),
        author=texts["author"] or "",
        license=texts["license"] or "",
        notes=texts["notes"] or "",
        created=config.ended or "",
        normalization=config.normalization,
        unknown=config.unknown,
        start_text=start_text(run),
        training={**notes, **training_record(run, config)},
        logit_temperature=logit_temperature,
    )
    return build_model_files(
        read_weights(model, config),
        vocabulary,
        description,
        quantizations,
        held_out,
        reference=read_text(model, held_out),
        calibration=calibration_ids(run) if calibrated else None,
        gptq=gptq,
        progress=progress,
    )


def require_quality(built: Built, output: Path, tolerance: float | None) -> None:
    """
    Raises:
        CharedgeError: the file loses more than the tolerance against Keras, or its probe is not the same on all interpreters.
    """
    allowed = PROFILES[built.quantization].tolerance if tolerance is None else tolerance
    worst = built.worst
    if not worst.loss <= allowed:  # nor NaN
        raise CharedgeError(
            f"{output} was not written: it would lose {worst.loss:.4f} nats per character against Keras on {worst.interpreter}, "
            f"and {allowed:g} are allowed; choose another `quantization`, or raise `tolerance`."
        )
    allowed = PROFILES[built.quantization].probe_tolerance
    if not built.probe_difference <= allowed:
        raise CharedgeError(
            f"{output} was not written: the interpreters differ by {built.probe_difference:.4f} nats per character on its probe, "
            f"and {allowed:g} are allowed; choose another `quantization`."
        )


def _folder_name(run: Run) -> str:
    """The name of the run folder, as one printable line."""
    name = os.fsencode(run.path.resolve().name).decode(errors="replace")
    return "".join([c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name])
