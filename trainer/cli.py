"""`charedge train`, `finetune` and `evaluate`. TensorFlow is imported when a command runs, not before."""

from __future__ import annotations

import math
import os
import platform
import shutil
import time
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import asdict, fields, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..console import JSON, PLAIN, print_json, say
from ..runtime.errors import CharedgeError, InvalidOption
from ..runtime.scoring import to_bits
from ..runtime.text import NORMALIZATIONS, Normalization, normalize, read_bytes, read_text
from ..runtime.vocabulary import UNKNOWN_ID, Vocabulary
from .bars import Bars
from .cluster import is_chief, read_cluster, workers
from .encoding import Encoded, encode_corpus
from .installation import require_tensorflow
from .lock import locked
from .memory import require_memory
from .outputs import require_inputs_kept
from .presets import DEFAULT, PRESETS
from .rendezvous import wait_for_workers
from .run import BFLOAT16, CALIBRATION_CHARACTERS, MAX_HELD_OUT_CHARACTERS, RUN_FILES, Config, Run

if TYPE_CHECKING:
    import numpy as np

    from .accelerators import Hardware

app = typer.Typer(**PLAIN)

SHOWN_BYTES = 50_000_000
NAMED_CHARACTERS = 5
QUANTIZATIONS = ("int4",)
PROTOCOLS = ("carried", "windows", "last-character")
CHOICES: dict[str, tuple[str, ...]] = {
    "cell": ("gru", "lstm"),
    "batching": ("carried", "shuffled"),
    "learning_rate_decay": ("cosine", "none"),
    "normalization": NORMALIZATIONS,
    "precision": ("auto", "float32", "mixed_bfloat16", "mixed_float16"),
    "preset": tuple(PRESETS),
}
WHOLE: dict[str, tuple[int, int]] = {
    "layers": (1, 64),
    "units": (1, 65_536),
    "embedding_dim": (1, 65_536),
    "epochs": (1, 1_000_000),
    "batch_size": (1, 1_000_000),
    "sequence_length": (1, 1_000_000),
    "warmup": (0, 1_000_000_000),
    "patience": (0, 1_000_000),
    "min_count": (1, 1_000_000_000),
    "seed": (0, 2**32 - 1),
    "cpu_devices": (1, 64),
}
"""The least and the most of options that are whole numbers; a model file has bounds, too."""
SHARES = ("dropout", "output_dropout", "embedding_dropout", "weight_drop", "average")
RESUMABLE = {
    *("epochs", "corpus", "output", "resume", "checkpoint_minutes", "worker_timeout", "quiet", "json_log"),
    *("vocabulary", "allow_unknown"),
}
"""What may be given with --resume whatever the run was started with; a vocabulary is compared by its content."""
FINETUNE_RATE = {"none": 1 / 3, "cosine": 1 / 100}
"""Of the highest learning rate: where it has fallen to 0, more would lose what that gained."""
SHAPE = ("cell", "layers", "units", "embedding_dim")

RUN = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder made by `charedge train`.", show_default=False)]
OUTPUT = Annotated[Path, typer.Option(metavar="RUN", help="The folder for the run.")]
CHECKPOINT_MINUTES = Annotated[float, typer.Option(help="How long an epoch may go on without a checkpoint.")]
WORKER_TIMEOUT = Annotated[
    float, typer.Option(metavar="SECONDS", help="Seconds to wait for the other workers that TF_CONFIG names.")
]
QUIET = Annotated[bool, typer.Option("--quiet", help="Show warnings and the result alone.")]
JSON_LOG = Annotated[Path | None, typer.Option(metavar="FILE", help="Add a JSON object a line about the progress.")]


@app.command()
def train(
    ctx: typer.Context,
    output: OUTPUT,
    corpus: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CORPUS...", help="Text files, folders, .gz, or a name: python-docs, shakespeare.", show_default=False
        ),
    ] = None,
    preset: Annotated[str, typer.Option(metavar="|".join(PRESETS), help="What holds where no option says otherwise.")] = DEFAULT,
    cell: Annotated[str | None, typer.Option(metavar="gru|lstm", help="The recurrent cell.")] = None,
    units: Annotated[int | None, typer.Option(help="Units of each recurrent layer.")] = None,
    layers: Annotated[int | None, typer.Option(help="Recurrent layers.")] = None,
    embedding_dim: Annotated[int | None, typer.Option(help="Dimensions of a character's embedding.")] = None,
    dropout: Annotated[float | None, typer.Option(help="Dropout on each recurrent layer's output.")] = None,
    output_dropout: Annotated[float | None, typer.Option(help="On the last layer's, in place of --dropout.")] = None,
    embedding_dropout: Annotated[float | None, typer.Option(help="Dropout on the embeddings.")] = None,
    weight_drop: Annotated[float | None, typer.Option(help="Dropout on the recurrent matrices.")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Of AdamW; 0 is Adam.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Passes over the text.")] = None,
    batch_size: Annotated[int | None, typer.Option(help="Windows in a batch, over all devices.")] = None,
    sequence_length: Annotated[int | None, typer.Option(help="Characters in a window.")] = None,
    batching: Annotated[
        str | None, typer.Option(metavar="carried|shuffled", help="Streams with the state carried, or windows in random order.")
    ] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Of Adam, at its highest.")] = None,
    learning_rate_decay: Annotated[str | None, typer.Option(metavar="cosine|none", help="How it falls over all epochs.")] = None,
    warmup: Annotated[int | None, typer.Option(help="Steps in which it rises.")] = None,
    clip_norm: Annotated[float | None, typer.Option(help="The largest norm of the gradients; 0 leaves them.")] = None,
    average: Annotated[float | None, typer.Option(help="What the weights' moving average keeps each step; 0 is none.")] = None,
    patience: Annotated[int | None, typer.Option(help="Epochs without a better validation before the end; 0 is all.")] = None,
    validation_split: Annotated[float | None, typer.Option(help="How much of the text, from its end, is held out.")] = None,
    normalization: Annotated[str | None, typer.Option(metavar="|".join(NORMALIZATIONS), help="Unicode form of the text.")] = None,
    vocabulary: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A vocabulary.txt; other characters are left out.")
    ] = None,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Train even if --vocabulary leaves out more than half of the text.")
    ] = False,
    min_count: Annotated[
        int | None, typer.Option(help="Characters that occur less often become [UNK]; not with --vocabulary.")
    ] = None,
    init_from: Annotated[Path | None, typer.Option(metavar="RUN", help="Begin with the weights of another run.")] = None,
    teacher: Annotated[
        list[Path] | None,
        typer.Option(metavar="RUN", help="Learn from this run's predictions, too; from the mean of several.", show_default=False),
    ] = None,
    teacher_weight: Annotated[float, typer.Option(help="How much of the loss is theirs.")] = 0.5,
    precision: Annotated[
        str, typer.Option(metavar="|".join(CHOICES["precision"]), help="auto: bfloat16 on a CPU that has it, else float32.")
    ] = "auto",
    cpu_devices: Annotated[
        int | None,
        typer.Option(help="Devices to divide the CPU into, which share each batch.  [default: as many as are faster]"),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of weights, order and dropout.")] = 1,
    checkpoint_minutes: CHECKPOINT_MINUTES = 10.0,
    worker_timeout: WORKER_TIMEOUT = 300.0,
    quiet: QUIET = False,
    json_log: JSON_LOG = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the run in the folder; only --epochs may be raised.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
) -> None:
    """Train a character model on text."""
    given = {name: value for name, value in ctx.params.items() if "COMMANDLINE" in str(ctx.get_parameter_source(name))}
    _check_options(given)
    require_utf8(output)
    read_cluster()
    if resume and overwrite:
        raise InvalidOption("--resume and --overwrite cannot both be given: choose one.")
    run = Run(output)
    show = {"checkpoint_minutes": checkpoint_minutes, "worker_timeout": worker_timeout, "quiet": quiet, "json_log": json_log}
    _check_recordable(
        {"CORPUS": corpus or (), "--output": [output], "--init-from": [init_from] if init_from else (), "--teacher": teacher or ()}
    )
    if resume:
        recorded = run.config()
        config = _resumed(run, recorded, given)
        _check_apart(run, "--teacher", map(Path, config.teachers))
        encoded = _same_text(run, config, corpus)
        _train(run, config, encoded, resumed=recorded, **show)
        return
    if not corpus:
        raise InvalidOption("CORPUS is missing: give text files, folders, or a name such as python-docs.")
    if vocabulary is not None and (min_count or 1) > 1:
        raise InvalidOption(
            f"--min-count {min_count} and --vocabulary {vocabulary} cannot both be given: what the vocabulary does not list is "
            "left out, however often it occurs; choose one."
        )
    _check_apart(run, "--init-from", [] if init_from is None else [init_from])
    _check_apart(run, "--teacher", teacher or [])
    if is_chief():
        _check_new(run, overwrite)
    names = {field.name for field in fields(Config)}
    values = {
        **PRESETS[preset],
        "precision": precision,
        "seed": seed,
        "cpu_devices": None,
        **{k: v for k, v in given.items() if k in names},
    }
    if init_from is not None:
        values.update(_shape_of(Run(init_from), given))
    if "teacher_weight" in given and not teacher:
        raise InvalidOption(f"--teacher-weight {teacher_weight:g} needs a --teacher: give one, or leave it out.")
    require_inputs_kept(run, json_log, [] if vocabulary is None else [vocabulary], [])
    fixed = None if vocabulary is None else Vocabulary.parse(read_bytes(vocabulary), str(vocabulary))
    encoded = _encode(corpus, values["normalization"], fixed, values["min_count"])
    if vocabulary is not None:
        _check_left_out(vocabulary, encoded, allow_unknown)
    elif init_from is not None:
        known = Run(init_from).vocabulary()
        fixed = Vocabulary.of([*known.tokens[1:], *encoded.vocabulary.tokens[1:]])
        encoded = encoded.extended(fixed)
    values.update(
        preset=preset,
        unknown=encoded.unknown,
        fixed_vocabulary=fixed is not None,
        initialized_from=None if init_from is None else str(init_from),
        teachers=[str(path) for path in teacher or ()],
        corpus=_record(corpus, encoded),
        versions=_versions(),
    )
    first = None if init_from is None else Run(init_from)
    _train(run, Config(**values), encoded, first=first, overwrite=overwrite, **show)


def _check_recordable(paths: Mapping[str, Iterable[object]]) -> None:
    """Check that config.json, Keras and TensorFlow can hold some paths.

    Args:
        paths: by the name of the option.

    Raises:
        CharedgeError: one is not valid UTF-8.
    """
    for option, given in paths.items():
        for path in given:
            if os.fsencode(str(path)).decode(errors="replace") != str(path):
                raise CharedgeError(f"{option} {path} is a path that is not valid UTF-8: rename it.")


def _check_apart(new: Run, option: str, others: Iterable[Path]) -> None:
    """
    Raises:
        InvalidOption: a run to read is the folder to write, or one of the two lies in the other.
    """
    for other in others:
        if _is_in(new.path, other) or _is_in(other, new.path):
            place = "the same folder" if _is_in(new.path, other) and _is_in(other, new.path) else "one folder in the other"
            read = f"{option} {other}".lstrip()
            raise InvalidOption(
                f"--output {new.path} and {read} are {place}, which would be written while it is read: give a new folder."
            )


def _is_in(inner: Path, outer: Path) -> bool:
    """Whether a path is another one or in it, whatever links lead there."""
    real, place = Path(os.path.realpath(inner)), os.path.realpath(outer)
    return any(
        str(folder) == place or (folder.exists() and outer.exists() and folder.samefile(outer)) for folder in (real, *real.parents)
    )


def _check_left_out(vocabulary: Path, encoded: Encoded, allowed: bool) -> None:
    """Say which characters of the text a given vocabulary leaves out.

    Raises:
        CharedgeError: they are more than half of the text, and that was not allowed.
    """
    if not encoded.skipped:
        return
    shown = [f"{character!r} {count:,} times" for character, count in list(encoded.left_out.items())[:NAMED_CHARACTERS]]
    if len(encoded.left_out) > NAMED_CHARACTERS:
        shown.append(f"and {len(encoded.left_out) - NAMED_CHARACTERS:,} others")
    missing = f"{encoded.skipped:,} of {encoded.characters:,} characters are not in --vocabulary {vocabulary} ({', '.join(shown)})"
    if 2 * encoded.skipped > encoded.characters and not allowed:
        raise CharedgeError(f"{missing}: give the vocabulary of this text, or leave them out with --allow-unknown.")
    say(f"warning: {missing}; they are left out.")


def _encode(
    sources: list[str],
    normalization: Normalization,
    vocabulary: Vocabulary | None,
    min_count: int,
    unknown: Literal["skip", "unk"] = "skip",
) -> Encoded:
    """A corpus as ids, with a bar if it takes long enough to look at one."""
    with Bars("bytes") as bars:

        def show(done: int, total: int) -> None:
            if total > SHOWN_BYTES:
                bars.show("encoding", done, total)

        return encode_corpus(sources, normalization, vocabulary, min_count, show, unknown)


def _check_options(given: Mapping[str, Any]) -> None:
    """
    Raises:
        InvalidOption: an option has a value that cannot be.
    """
    for name, value in given.items():
        option = f"--{name.replace('_', '-')}"
        if name in CHOICES:
            _check(value in CHOICES[name], option, value, f"one of {', '.join(CHOICES[name])}")
        elif name in WHOLE:
            low, high = WHOLE[name]
            _check(low <= value <= high, option, value, f"a whole number from {low} to {high}")
        elif name in SHARES:
            _check(0 <= value < 1, option, value, "from 0 to below 1")
        elif name == "validation_split":
            _check(0 < value < 1, option, value, "between 0 and 1")
        elif name == "teacher_weight":
            _check(0 < value <= 1, option, value, "above 0, and 1 at most")
        elif name in ("learning_rate", "checkpoint_minutes", "worker_timeout"):
            _check(math.isfinite(value) and value > 0, option, value, "a number above 0")
        elif name in ("clip_norm", "weight_decay"):
            _check(math.isfinite(value) and value >= 0, option, value, "a number from 0 up")


def _resumed(run: Run, recorded: Config, given: Mapping[str, Any]) -> Config:
    """The recorded configuration with more epochs, if that is all that the options change.

    Raises:
        CharedgeError: they change something else.
    """
    values = {**asdict(recorded), "init_from": recorded.initialized_from, "teacher": " ".join(recorded.teachers)}
    if "teacher" in given:
        given = {**given, "teacher": " ".join(map(str, given["teacher"]))}
    same = {("precision", "auto")}
    if recorded.precision == BFLOAT16:
        same.add(("precision", "float32"))  # the way out on a GPU, which cannot go on in bfloat16
    different = {
        name: value
        for name, value in given.items()
        if name not in RESUMABLE and str(value) != str(values.get(name)) and (name, value) not in same
    }
    if different:
        shown = ", ".join(f"--{name.replace('_', '-')} {value} (was {values.get(name)})" for name, value in different.items())
        raise CharedgeError(
            f"{run.path} was started with different options: {shown}; leave them out, or train again with --overwrite."
        )
    file = given.get("vocabulary")
    if file is not None and (recorded.unknown == "unk" or Vocabulary.parse(read_bytes(Path(file)), file) != run.vocabulary()):
        raise CharedgeError(
            f"--vocabulary {file} is not the vocabulary that {run.path} was started with: leave it out, or train again with "
            "--overwrite."
        )
    epochs = given.get("epochs", recorded.epochs)
    if epochs < recorded.epochs:
        raise CharedgeError(
            f"--epochs {epochs} is less than the {recorded.epochs} that {run.path} was started with: give more, or none."
        )
    precision = "float32" if given.get("precision") == "float32" else recorded.precision
    return replace(recorded, epochs=epochs, precision=precision)


def _same_text(run: Run, config: Config, sources: list[str] | None) -> Encoded:
    """The corpus of a run by its vocabulary, from where it was read, or from where it is now.

    Raises:
        CharedgeError: it is another text.
    """
    sources = sources or config.corpus.get("sources")
    if not sources:
        raise CharedgeError(f"{run.path} does not record where its text was read: give CORPUS.")
    vocabulary = run.vocabulary() if config.fixed_vocabulary else None
    encoded = _encode(sources, config.normalization, vocabulary, config.min_count, config.unknown)
    if encoded.sha256 != config.corpus["sha256"]:
        raise CharedgeError(
            f"the corpus is not the one that {run.path} was trained on ({encoded.characters:,} characters now, "
            f"{config.corpus['characters']:,} then, or others): give the same text, or train again with --overwrite."
        )
    return encoded


def _record(sources: list[str], encoded: Encoded) -> dict[str, Any]:
    """What config.json says of the text."""
    return {
        "sources": list(sources),
        "files": [os.fsencode(file).decode(errors="replace") for file in encoded.files],
        "characters": encoded.characters,
        "sha256": encoded.sha256,
        "skipped": encoded.skipped,
    }


def _shape_of(run: Run, given: Mapping[str, Any]) -> dict[str, Any]:
    """The network of the run to begin with.

    Raises:
        InvalidOption: the options ask for another one.
    """
    config = run.config()
    for name in SHAPE:
        if name in given and given[name] != getattr(config, name):
            raise InvalidOption(
                f"--{name.replace('_', '-')} {given[name]} is not what {run.path} has ({getattr(config, name)}): leave it out."
            )
    return {name: getattr(config, name) for name in SHAPE}


def _transferred(run: Run, vocabulary: Vocabulary) -> tuple[list[np.ndarray], str]:
    """A run's weights for another vocabulary: rows of characters that it knows are kept, others begin at random.

    Returns:
        The weights, and the hash of those that the run has.
    """
    from .model import load_model, transferred_weights, weights_sha256

    model = load_model(run)
    return transferred_weights(model, run.config(), run.vocabulary(), vocabulary), weights_sha256(model)


@app.command()
def finetune(
    run: RUN,
    output: Annotated[Path, typer.Option(metavar="RUN", help="The folder for the new run.")],
    corpus: Annotated[
        list[str] | None,
        typer.Argument(metavar="CORPUS...", help="The text of the run.  [default: from where it was read]", show_default=False),
    ] = None,
    quantization_aware: Annotated[
        str, typer.Option(metavar="|".join(QUANTIZATIONS), help="How `charedge convert` will store the weights.")
    ] = "int4",
    epochs: Annotated[int, typer.Option(help="Passes over the text.")] = 1,
    learning_rate: Annotated[
        float | None, typer.Option(help="Of Adam, falling to 0.  [default: 1/3 of the run's, 1/100 if that fell to 0]")
    ] = None,
    checkpoint_minutes: CHECKPOINT_MINUTES = 10.0,
    worker_timeout: WORKER_TIMEOUT = 300.0,
    quiet: QUIET = False,
    json_log: JSON_LOG = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
) -> None:
    """Train a finished run a little more with its weights rounded as the file will have them."""
    _check(quantization_aware in QUANTIZATIONS, "--quantization-aware", quantization_aware, f"one of {', '.join(QUANTIZATIONS)}")
    rates = {} if learning_rate is None else {"learning_rate": learning_rate}
    _check_options({"epochs": epochs, "checkpoint_minutes": checkpoint_minutes, "worker_timeout": worker_timeout, **rates})
    require_utf8(output)
    read_cluster()
    _check_recordable({"RUN": [run], "CORPUS": corpus or (), "--output": [output]})
    finished, tuned = Run(run), Run(output)
    recorded = finished.config()
    _check_apart(tuned, "RUN", [run])
    if is_chief():
        _check_new(tuned, overwrite)
    encoded = _same_text(finished, recorded, corpus)
    config = replace(
        recorded,
        epochs=epochs,
        learning_rate=learning_rate or recorded.learning_rate * FINETUNE_RATE[recorded.learning_rate_decay],
        learning_rate_decay="cosine",
        warmup=0,
        patience=0,
        average=0.0,
        quantization_aware="int4",
        precision="auto" if recorded.precision == BFLOAT16 else recorded.precision,  # a GPU takes no bfloat16
        cpu_devices=None,
        teachers=(),
        teachers_sha256=(),
        initialized_from=str(run),
        versions=_versions(),
        ended=None,
    )
    show = {"checkpoint_minutes": checkpoint_minutes, "worker_timeout": worker_timeout, "quiet": quiet, "json_log": json_log}
    _train(tuned, config, encoded, first=finished, overwrite=overwrite, **show)


def _train(
    run: Run,
    config: Config,
    encoded: Encoded,
    *,
    checkpoint_minutes: float,
    worker_timeout: float,
    quiet: bool,
    json_log: Path | None,
    resumed: Config | None = None,
    first: Run | None = None,
    overwrite: bool = False,
) -> None:
    """Train on a corpus that was encoded, and say how it went.

    Args:
        run: where to.
        config: what to do.
        encoded: the corpus.
        checkpoint_minutes: how long an epoch may take without a checkpoint.
        worker_timeout: seconds to wait for other workers.
        quiet: whether only warnings and the result are shown.
        json_log: a file for the progress.
        resumed: what the run's config.json said; None starts a new run.
        first: the run whose weights to start from; None starts from random ones.
        overwrite: whether a run in the folder is replaced.
    """
    vocabulary, ids = encoded.vocabulary, encoded.ids
    read = [*([first] if first else []), *(Run(Path(path)) for path in config.teachers)]
    require_inputs_kept(run, json_log, map(Path, encoded.files), read)
    boundary = int(len(ids) * (1 - config.validation_split))
    if len(ids) - boundary < 2:
        raise CharedgeError(
            f"--validation-split {config.validation_split:g} of {len(ids):,} characters leaves nothing to validate on: "
            "give a longer text or a larger share."
        )
    require_tensorflow("train", "train")
    from .accelerators import memory_explained
    from .distribution import choose_strategy
    from .loop import Data, Training
    from .progress import Progress

    config, hardware = _prepared(run, config, resumed is not None, boundary // config.sequence_length)
    smaller = replace(config, batch_size=min(config.batch_size, boundary // config.sequence_length))
    require_memory(len(vocabulary), smaller, [Run(Path(path)).config() for path in config.teachers], hardware)
    data = Data(vocabulary, ids.part(0, boundary), ids.part(boundary, len(ids)))
    with locked(run.path) if is_chief() else nullcontext(), memory_explained(config, hardware):
        wait_for_workers(worker_timeout, None if quiet else say)
        strategy = choose_strategy(hardware)  # before TensorFlow does anything else
        weights, weights_hash = (None, config.initialized_from_sha256) if first is None else _transferred(first, vocabulary)
        config = replace(config, initialized_from_sha256=weights_hash)
        if is_chief():
            _check_unchanged(run, resumed, overwrite)
        training = Training(run, config, data, hardware, strategy, checkpoint_minutes * 60)
        progress = Progress(config.epochs, training.batches.steps, quiet or not training.writes, json_log)
        if resumed is not None:
            training.resume(progress.warn)
            if training.writes:
                run.write_config(training.config)
        elif training.writes:
            _remove_run(run)
            _create(run, training.config, encoded, boundary)
        if weights is not None:
            training.start_from(weights)
        model = f"{config.cell.upper()} {config.layers} x {config.units}"
        left_out = f" ({encoded.skipped:,} others left out)" if encoded.skipped else ""
        progress.say(
            f"{len(ids):,} characters{left_out}, {len(vocabulary) - 1} distinct; {model}, {training.model.count_params():,} "
            f"parameters; {config.precision} on {hardware}"
        )
        history = training.train(progress)
    if training.writes:
        _say_result(run, model, history)


def _check_unchanged(run: Run, resumed: Config | None, overwrite: bool) -> None:
    """Check again, while the folder is locked, what was true before the corpus was read.

    Raises:
        CharedgeError: another training has used the folder meanwhile.
    """
    if resumed is None:
        _check_new(run, overwrite)
    elif run.config() != resumed:
        raise CharedgeError(f"{run.path} was changed by another training meanwhile: try again.")


def _create(run: Run, config: Config, encoded: Encoded, boundary: int) -> None:
    """Make the run folder of a text whose validation split starts at `boundary`.

    Raises:
        CharedgeError: it cannot be written.
    """
    from .checkpoints import unwritable

    ids = encoded.ids
    train_text = ids.text(max(0, boundary - CALIBRATION_CHARACTERS), boundary)
    held_out = ids.text(boundary, min(len(ids), boundary + MAX_HELD_OUT_CHARACTERS))
    try:
        run.create(config, encoded.vocabulary, train_text, held_out)
    except OSError as error:
        raise unwritable(run.path, run.path, error) from None


def _prepared(run: Run, config: Config, resume: bool, windows: int) -> tuple[Config, Hardware]:
    """Find out what to train on, and settle what depends on it: the precision, and how many devices the CPU is divided into.

    Raises:
        InvalidOption: the options ask for what this hardware cannot do.
        CharedgeError: a GPU cannot be used, or a resume would go wrong on it.
    """
    from .accelerators import Hardware, cpu_threads, find_gpus, resolve_precision
    from .distribution import divide_cpu, faster_cpu_devices

    def warn(message: str) -> None:
        say(f"warning: {message}")

    gpus = find_gpus(warn)
    if resume and gpus and config.precision == BFLOAT16:
        raise CharedgeError(
            f"{run.path} was trained in {BFLOAT16} on {config.hardware or 'unrecorded hardware'}, and that precision gives wrong "
            "gradients on a GPU: add --precision float32 to go on, or train again with --overwrite if it was on a GPU before."
        )
    config = replace(config, precision=resolve_precision(config.precision, gpus))
    if gpus or workers() > 1:
        if config.cpu_devices is not None and config.cpu_devices > 1 and not resume:
            raise InvalidOption(
                f"--cpu-devices {config.cpu_devices} is for one process on a CPU, and this training runs on "
                f"{'a GPU' if gpus else 'several workers'}: leave it out."
            )
        hardware = Hardware(gpus, threads_per_device=cpu_threads(), workers=workers())
    else:
        devices = config.cpu_devices or faster_cpu_devices(config, windows)
        hardware = divide_cpu(devices)
        if hardware.cpu_devices < devices:
            warn("TensorFlow was started before this training, whose CPU can no longer be divided: it is slower on one device.")
        config = replace(config, cpu_devices=devices if resume else hardware.cpu_devices)
    return replace(config, hardware=str(hardware)), hardware


def _say_result(run: Run, model: str, history: list[Any]) -> None:
    best = min(history, key=lambda epoch: epoch.validation_nats_per_character)
    nats = best.validation_nats_per_character
    print(
        f"{run.path}: {model}, best of {len(history)} epochs is epoch {best.epoch}: training {best.train_nats_per_character:.4f}, "
        f"validation {nats:.4f} nats ({to_bits(nats):.4f} bits)/character"
    )
    print(f"next: charedge convert {run.path} --output {run.path.name}.tflite")


def require_utf8(output: Path) -> None:
    """
    Raises:
        CharedgeError: TensorFlow cannot write to a path with this name.
    """
    try:
        str(output.absolute()).encode()
    except UnicodeEncodeError:
        raise CharedgeError(f"--output {output} is not UTF-8, which TensorFlow needs: give another path.") from None


def _check_new(run: Run, overwrite: bool) -> None:
    """
    Raises:
        CharedgeError: the output is taken.
    """
    if run.path.exists() and not run.path.is_dir():
        raise CharedgeError(f"--output {run.path} is a file: give a folder for the run.")
    if run.exists() and not overwrite:
        raise CharedgeError(
            f"{run.path} already holds a run: continue it with --resume, replace it with --overwrite, or choose another --output."
        )
    if run.path.is_dir() and not run.exists() and any(path.name != ".lock" for path in run.path.iterdir()):
        raise CharedgeError(f"--output {run.path} holds other files: choose a new folder.")


def _remove_run(run: Run) -> None:
    """Delete what a run consists of, and nothing else that may be in the folder."""
    if not run.exists():
        return
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    for pattern in RUN_FILES:
        for path in run.path.glob(pattern):
            path.unlink()


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("charedge", "tensorflow", "keras", "numpy") if _installed(name)}
    return {"python": platform.python_version(), **packages}


def _installed(name: str) -> bool:
    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _check(fine: bool, option: str, value: object, expected: str) -> None:
    if not fine:
        raise InvalidOption(f"{option} {value} must be {expected}.")


@app.command()
def evaluate(
    run: RUN,
    file: Annotated[Path | None, typer.Argument(help="A text; - is stdin.  [default: the run's held-out text]")] = None,
    protocol: Annotated[
        str, typer.Option(metavar="|".join(PROTOCOLS), help="The state carried, windows from zero, or only what follows each.")
    ] = "carried",
    window: Annotated[int | None, typer.Option(help="Characters of a window.  [default: 256; last-character 100]")] = None,
    stride: Annotated[int, typer.Option(help="How far a last-character window begins after the one before.")] = 1,
    as_json: JSON = False,
) -> None:
    """Measure how well a run's best weights predict a text."""
    _check(protocol in PROTOCOLS, "--protocol", protocol, f"one of {', '.join(PROTOCOLS)}")
    _check(window is None or (protocol != "carried" and window >= 1), "--window", window, "from 1 up, and of windows")
    _check(
        stride == 1 or (protocol == "last-character" and stride >= 1), "--stride", stride, "from 1 up, of last-character windows"
    )
    say(f"reading {run}")
    require_tensorflow("evaluate", "train")
    folder = Run(run)
    config = folder.config()
    ids, skipped = _known_ids(folder, config, file)
    from .accelerators import hide_gpus
    from .evaluation import evaluate_by
    from .fast_recurrence import FAST_LAYERS
    from .model import load_model

    hide_gpus()
    start = time.perf_counter()
    with Bars("characters" if protocol == "carried" else "windows") as bars:
        model = load_model(folder, FAST_LAYERS)
        result = evaluate_by(protocol, model, ids, window, stride, partial(bars.show, "evaluating"))
    seconds = time.perf_counter() - start
    if as_json:
        print_json(
            {
                "nats_per_character": result.nats_per_character,
                "bits_per_character": to_bits(result.nats_per_character),
                "characters": len(ids),
                "skipped_characters": skipped,
                "predictions": result.predictions,
                "protocol": protocol,
                "characters_per_second": round(result.predictions / seconds, 1),
            }
        )
        return
    nats = result.nats_per_character
    counted = "" if protocol == "carried" else f", {result.predictions:,} predictions by {protocol}"
    figures = f"{nats:.4f} nats/character, {to_bits(nats):.4f} bits/character"
    print(f"{figures} over {len(ids):,} characters ({skipped:,} skipped){counted}")


def _known_ids(run: Run, config: Config, file: Path | None) -> tuple[np.ndarray, int]:
    """The ids of a text, or of what the run held out, and how many characters were left out.

    Raises:
        CharedgeError: there is nothing to predict.
    """
    text = run.held_out() if file is None else normalize(read_text(file), config.normalization)
    ids = run.vocabulary().encode(text)
    skipped = int((ids == UNKNOWN_ID).sum()) if config.unknown == "skip" else 0
    if skipped:
        say(f"warning: {skipped:,} characters are not in the vocabulary; they are left out.")
        ids = ids[ids != UNKNOWN_ID]
    if len(ids) < 2:
        raise CharedgeError(f"{file or run.path} has fewer than two characters that the model knows: give a longer text.")
    return ids, skipped
