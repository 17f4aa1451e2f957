"""Plans a training: makes its configuration and encodes its corpus from the given options. Does not import TensorFlow."""

from __future__ import annotations

import os
import platform
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from ..runtime.errors import CharedgeError, InvalidOption
from ..runtime.progress import Progress, Report
from ..runtime.text import Normalization, read_bytes
from ..runtime.vocabulary import Vocabulary
from .cluster import is_chief
from .config import BFLOAT16, Config, settings
from .corpus import NAMED
from .dataset import validation_start
from .encoding import Encoded, encode_corpus
from .initial_model import InitialModel, find_initial_model
from .outputs import require_apart, require_inputs_kept, require_recordable
from .presets import AUTO, by_length
from .run import Run

SHOWN_BYTES = 50_000_000
"""Size from which encoding shows a progress bar; a smaller corpus takes too little time."""
NAMED_CHARACTERS = 5
FINETUNE_RATE = {"none": 1 / 3, "cosine": 1 / 100}
"""Default learning rate of fine-tuning as a share of the run's peak, by its decay; more would undo what a decay to 0 gained."""


@dataclass(frozen=True)
class Plan:
    """A training that is ready to start."""

    run: Run
    """The run folder to write."""
    config: Config
    corpus: Encoded
    first: InitialModel | None = None
    """The model whose weights to start from; None starts from random ones."""
    resumed: Config | None = None
    """Recorded configuration of the run to resume; None starts a new run."""
    overwrite: bool = False
    """Whether a run in the folder is replaced."""

    @property
    def boundary(self) -> int:
        """Index of the first character of the validation split."""
        return validation_start(len(self.corpus.ids), self.config.validation_split)

    @property
    def teachers(self) -> list[Run]:
        """The runs to distil from."""
        return [Run(Path(path)) for path in self.config.teachers]

    def check(self) -> Plan:
        """Check the plan, and return it.

        Raises:
            InvalidOption: the run would overwrite a file that is read.
            CharedgeError: the validation split is empty.
        """
        require_inputs_kept(self.run, map(Path, self.corpus.files))
        characters = len(self.corpus.ids)
        if characters - self.boundary < 2:
            raise CharedgeError(
                f"`validation_split` {self.config.validation_split:g} of {characters:,} characters leaves nothing to validate on: "
                "give a longer text or a larger share."
            )
        return self


def plan_training(
    output: Path,
    corpus: Sequence[str],
    preset: str,
    given: Mapping[str, Any],
    vocabulary: Path | None,
    allow_unknown: bool,
    init_from: Path | None,
    teachers: Sequence[Path],
    overwrite: bool,
    progress: Progress,
) -> Plan:
    """Plan a new run.

    Args:
        output: the run folder.
        corpus: text files, folders and named corpora.
        preset: the name of a preset.
        given: the options that were given, by name.
        vocabulary: a vocabulary.txt to keep to.
        allow_unknown: whether `vocabulary` may leave out more than half of the text.
        init_from: the run folder or model file whose weights to start from, or the name of a bundled model.
        teachers: the runs to distil from.
        overwrite: whether to replace a run in the folder.
        progress: gets the bytes read, and messages.

    Raises:
        InvalidOption: an argument has an invalid value, or two exclude each other.
        CharedgeError: a text or run cannot be read, or the folder is taken.
    """
    run, values = Run(output), settings(preset, given)
    paths = {"corpus": corpus, "output": [output], "init_from": [init_from] if init_from else [], "teachers": teachers}
    require_recordable(paths)
    if not corpus:
        raise InvalidOption("corpus", "is missing: give text files, folders, or a name such as python-docs.")
    if vocabulary is not None and values["min_count"] > 1:
        raise InvalidOption(
            "min_count",
            f"{values['min_count']} and `vocabulary` {vocabulary} cannot both be given: what the vocabulary does not list is left "
            "out, however often it occurs; choose one.",
        )
    if "teacher_weight" in given and not teachers:
        raise InvalidOption("teacher_weight", f"{values['teacher_weight']:g} needs `teachers`: give one, or leave it out.")
    require_apart(run, "init_from", [] if init_from is None else [init_from])
    require_apart(run, "teachers", teachers)
    if is_chief():
        run.require_free(overwrite)
    first = None if init_from is None else find_initial_model(init_from)
    kept = {} if first is None else first.kept(given)
    values.update(kept)
    require_inputs_kept(run, [] if vocabulary is None else [vocabulary])
    fixed = None if vocabulary is None else Vocabulary.parse(read_bytes(vocabulary), str(vocabulary))
    encoded = _encode(corpus, values["normalization"], fixed, values["min_count"], progress)
    if vocabulary is not None:
        _check_left_out(vocabulary, encoded, allow_unknown)
    elif first is not None:
        fixed = Vocabulary.of([*first.vocabulary().tokens[1:], *encoded.vocabulary.tokens[1:]])
        encoded = encoded.extended(fixed)
    if preset == AUTO:
        values = _for_length(encoded, values, {**given, **kept}, kept.get("units"), progress)
    config = Config(
        **values,
        unknown=encoded.unknown,
        fixed_vocabulary=fixed is not None,
        initialized_from=None if init_from is None else str(init_from),
        teachers=[str(path) for path in teachers],
        corpus=_record(corpus, encoded),
        versions=_versions(),
    )
    return Plan(run, config, encoded, first=first, overwrite=overwrite).check()


def plan_resume(
    output: Path,
    corpus: Sequence[str],
    preset: str | None,
    given: Mapping[str, Any],
    vocabulary: Path | None,
    init_from: Path | None,
    teachers: Sequence[Path],
    progress: Progress,
) -> Plan:
    """Plan to continue a run; all given arguments but `epochs` must equal those that it was started with.

    Args:
        output: the run folder.
        corpus: the text of the run; empty reads it from where it was.
        preset: the name of a preset, if given.
        given: the options that were given, by name.
        vocabulary: the vocabulary.txt that the run was started with, if given.
        init_from: the run or model that it started from, if given.
        teachers: its teachers, if given.
        progress: gets the bytes read, and messages.

    Raises:
        InvalidOption: an argument has an invalid value.
        CharedgeError: an argument or the text differs, or the run cannot be read.
    """
    run = Run(output)
    require_recordable({"corpus": corpus, "output": [output]})
    recorded = run.config()
    asked: dict[str, Any] = {**({} if preset is None else {"preset": preset}), **given}
    asked |= {} if init_from is None else {"init_from": str(init_from)}
    asked |= {"teachers": " ".join(map(str, teachers))} if teachers else {}
    config = _with_more_epochs(run, recorded, asked)
    if vocabulary is not None and (
        recorded.unknown == "unk" or Vocabulary.parse(read_bytes(vocabulary), str(vocabulary)) != run.vocabulary()
    ):
        raise CharedgeError(
            f"`vocabulary` {vocabulary} is not the vocabulary that {run.path} was started with: leave it out, or train again with "
            "`overwrite`."
        )
    require_apart(run, "teachers", map(Path, config.teachers))
    return Plan(run, config, _same_text(run, config, corpus, progress), resumed=recorded).check()


def plan_finetuning(
    run: Run,
    output: Path,
    corpus: Sequence[str],
    quantization_aware: Literal["int4"],
    epochs: int,
    learning_rate: float | None,
    overwrite: bool,
    progress: Progress,
) -> Plan:
    """Plan a run that continues with a finished run's weights, rounded as in the model file.

    Args:
        run: the finished run.
        output: the folder of the new run.
        corpus: the text of the run; empty reads it from where it was.
        quantization_aware: the format to round to.
        epochs: passes over the text.
        learning_rate: peak learning rate; by default a share of the run's.
        overwrite: whether to replace a run in the folder.
        progress: gets the bytes read, and messages.

    Raises:
        InvalidOption: an argument has an invalid value.
        CharedgeError: the run or its text cannot be read, or the folder is taken.
    """
    require_recordable({"run": [run.path], "corpus": corpus, "output": [output]})
    recorded, tuned = run.config(), Run(output)
    require_apart(tuned, "run", [run.path])
    if is_chief():
        tuned.require_free(overwrite)
    encoded = _same_text(run, recorded, corpus, progress)
    config = replace(
        recorded,
        epochs=epochs,
        learning_rate=learning_rate or recorded.learning_rate * FINETUNE_RATE[recorded.learning_rate_decay],
        learning_rate_decay="cosine",
        warmup=0,
        patience=0,
        average=0.0,
        quantization_aware=quantization_aware,
        precision="auto" if recorded.precision == BFLOAT16 else recorded.precision,  # bfloat16 is refused on a GPU
        cpu_devices=None,
        teachers=(),
        teachers_sha256=(),
        initialized_from=str(run.path),
        corpus=_record(corpus, encoded) if corpus else recorded.corpus,
        versions=_versions(),
        ended=None,
    )
    return Plan(tuned, config, encoded, first=InitialModel(run), overwrite=overwrite).check()


def _with_more_epochs(run: Run, recorded: Config, asked: Mapping[str, Any]) -> Config:
    """The recorded configuration with more epochs.

    Raises:
        CharedgeError: the given arguments change anything else.
    """
    values = {**asdict(recorded), "init_from": recorded.initialized_from, "teachers": " ".join(recorded.teachers)}
    same = {("precision", "auto")}
    if recorded.precision == BFLOAT16:
        same.add(("precision", "float32"))  # the remedy on a GPU, which cannot continue in bfloat16
    different = {
        name: value for name, value in asked.items() if name != "epochs" and value != values.get(name) and (name, value) not in same
    }
    if different:
        shown = ", ".join(f"`{name}` {value} (was {values.get(name)})" for name, value in different.items())
        raise CharedgeError(
            f"{run.path} was started with different options: {shown}; leave them out, or train again with `overwrite`."
        )
    epochs = asked.get("epochs", recorded.epochs)
    if epochs < recorded.epochs:
        raise CharedgeError(
            f"`epochs` {epochs} is less than the {recorded.epochs} that {run.path} was started with: give more, or leave it out."
        )
    precision = "float32" if asked.get("precision") == "float32" else recorded.precision
    return replace(recorded, epochs=epochs, precision=precision)


def _encode(
    sources: Sequence[str],
    normalization: Normalization,
    vocabulary: Vocabulary | None,
    min_count: int,
    progress: Progress,
    unknown: Literal["skip", "unk"] = "skip",
) -> Encoded:
    """Encode a corpus, with progress reports if it is large."""

    def show(report: Report) -> None:
        if report.message or report.total > SHOWN_BYTES:
            progress(report)

    return encode_corpus(sources, normalization, vocabulary, min_count, show, unknown)


def _same_text(run: Run, config: Config, sources: Sequence[str], progress: Progress) -> Encoded:
    """Encode the corpus of a run again, by its vocabulary.

    Args:
        run: the run.
        config: its configuration.
        sources: where the text is now; empty reads it from the recorded places.
        progress: gets the bytes read.

    Raises:
        CharedgeError: the text differs, or cannot be read.
    """
    if not sources:
        sources = config.corpus.get("sources", ())
        if not sources:
            raise CharedgeError(f"{run.path} does not record where its text was read: give `corpus`.")
        missing = next((name for name in sources if name not in NAMED and not os.path.lexists(name)), None)
        if missing is not None:
            raise CharedgeError(f"{missing}, the text that {run.path} was trained on, is not there: give `corpus`, its place now.")
    vocabulary = run.vocabulary() if config.fixed_vocabulary else None
    encoded = _encode(sources, config.normalization, vocabulary, config.min_count, progress, config.unknown)
    if encoded.sha256 != config.corpus["sha256"]:
        raise CharedgeError(
            f"the corpus is not the one that {run.path} was trained on ({encoded.characters:,} characters now, "
            f"{config.corpus['characters']:,} then, or different ones): give the same text, or train again with `overwrite`."
        )
    return encoded


def _for_length(
    encoded: Encoded, values: Mapping[str, Any], given: Mapping[str, Any], initial_units: int | None, progress: Progress
) -> dict[str, Any]:
    """The value of every option as the preset `auto` chooses them for a text; reports what it chose."""
    characters = validation_start(len(encoded.ids), values["validation_split"])
    values = settings(AUTO, given, characters, initial_units)
    network = by_length(characters).preset if initial_units is None else "the model's network"
    message = (
        f"preset {AUTO}: {characters:,} characters to train on -> {network}, "
        f"{values['epochs']} epoch{'' if values['epochs'] == 1 else 's'}, batch size {values['batch_size']}, "
        f"learning rate {values['learning_rate']:g}, dropout {values['dropout']:g}, weight drop {values['weight_drop']:g}"
    )
    if is_chief():
        progress(Report("training", message=message))
    return values


def _check_left_out(vocabulary: Path, encoded: Encoded, allowed: bool) -> None:
    """Warn of the characters that a given vocabulary leaves out.

    Raises:
        CharedgeError: they are more than half of the text, and `allow_unknown` was not given.
    """
    if not encoded.skipped:
        return
    shown = [f"{character!r} {count:,} times" for character, count in list(encoded.left_out.items())[:NAMED_CHARACTERS]]
    if len(encoded.left_out) > NAMED_CHARACTERS:
        shown.append(f"and {len(encoded.left_out) - NAMED_CHARACTERS:,} others")
    missing = f"{encoded.skipped:,} of {encoded.characters:,} characters are not in `vocabulary` {vocabulary} ({', '.join(shown)})"
    if 2 * encoded.skipped > encoded.characters and not allowed:
        raise CharedgeError(f"{missing}: give the vocabulary of this text, or leave them out with `allow_unknown`.")
    warnings.warn(f"{missing}; they are left out.", stacklevel=2)


def _record(sources: Iterable[str], encoded: Encoded) -> dict[str, Any]:
    """The record of a corpus in config.json."""
    return {
        "sources": list(sources),
        "files": [os.fsencode(file).decode(errors="replace") for file in encoded.files],
        "characters": encoded.characters,
        "sha256": encoded.sha256,
        "skipped": encoded.skipped,
    }


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("charedge", "tensorflow", "keras", "numpy") if _installed(name)}
    return {"python": platform.python_version(), **packages}


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True
