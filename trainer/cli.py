"""`charedge train` and `charedge evaluate`. TensorFlow is imported when a command runs, not before."""

from __future__ import annotations

import math
import platform
import shutil
import time
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from ..runtime.cli import JSON, PLAIN, print_json, require_tensorflow, say
from ..runtime.errors import CharedgeError, InvalidOption
from ..runtime.scoring import to_bits
from ..runtime.text import NORMALIZATIONS, Normalization, normalize, read_text
from ..runtime.vocabulary import UNKNOWN_ID, Vocabulary
from .corpus import Corpus, read_corpus, split
from .run import Cell, Config, Run

app = typer.Typer(**PLAIN)

CELLS = ("gru", "lstm")
QUANTIZATIONS = ("int4",)
PRECISIONS = ("auto", "float32", "mixed_bfloat16")
RUN = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder made by `charedge train`.", show_default=False)]
MAY_DIFFER = {"epochs", "versions", "ended"}


@app.command()
def train(
    ctx: typer.Context,
    output: Annotated[Path, typer.Option(metavar="RUN", help="The folder for the run.")],
    corpus: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CORPUS...", help="Text files, folders, .gz, or a name: python-docs, shakespeare.", show_default=False
        ),
    ] = None,
    cell: Annotated[str, typer.Option(metavar="gru|lstm", help="The recurrent cell.")] = "gru",
    units: Annotated[int, typer.Option(help="Units of each recurrent layer.")] = 512,
    layers: Annotated[int, typer.Option(help="Recurrent layers.")] = 1,
    embedding_dim: Annotated[int, typer.Option(help="Dimensions of a character's embedding.")] = 256,
    dropout: Annotated[float, typer.Option(help="Dropout on each recurrent layer's output.")] = 0.0,
    epochs: Annotated[int, typer.Option(help="Passes over the text.")] = 10,
    batch_size: Annotated[int, typer.Option(help="Windows in a batch, over all devices.")] = 64,
    sequence_length: Annotated[int, typer.Option(help="Characters in a window.")] = 100,
    learning_rate: Annotated[float, typer.Option(help="Of Adam.")] = 0.002,
    validation_split: Annotated[float, typer.Option(help="How much of the text, from its end, is held out.")] = 0.1,
    normalization: Annotated[str, typer.Option(metavar="|".join(NORMALIZATIONS), help="Unicode form of the text.")] = "NFC",
    precision: Annotated[str, typer.Option(metavar="|".join(PRECISIONS), help="auto takes what the hardware is best at.")] = "auto",
    seed: Annotated[int, typer.Option(help="Of weights, order and dropout.")] = 1,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the run in the folder; only --epochs may differ.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
) -> None:
    """Train a character model on text."""
    _check_choice("--cell", cell, CELLS)
    _check_choice("--normalization", normalization, NORMALIZATIONS)
    _check_choice("--precision", precision, PRECISIONS)
    for option, value in (
        ("--units", units),
        ("--layers", layers),
        ("--embedding-dim", embedding_dim),
        ("--epochs", epochs),
        ("--batch-size", batch_size),
        ("--sequence-length", sequence_length),
    ):
        _check(value >= 1, option, value, "a whole number from 1 up")
    _check(0 <= seed < 2**32, "--seed", seed, "a whole number from 0 to 4294967295")
    _check(0 <= dropout < 1, "--dropout", dropout, "from 0 to below 1")
    _check(0 < validation_split < 1, "--validation-split", validation_split, "between 0 and 1")
    _check(math.isfinite(learning_rate) and learning_rate > 0, "--learning-rate", learning_rate, "a number above 0")
    if resume and overwrite:
        raise InvalidOption("--resume and --overwrite cannot both be given: choose one.")
    run = Run(output)
    if resume:
        given = {name for name in ctx.params if "COMMANDLINE" in str(ctx.get_parameter_source(name))}
        recorded = run.config()
        options = {
            name: value for name, value in ctx.params.items() if name in given and name in asdict(recorded) and name != "corpus"
        }
        config = _resumed(recorded, options, run)
        sources = corpus or config.corpus["sources"]
    else:
        if not corpus:
            raise InvalidOption("CORPUS is missing: give text files, folders, or a name such as python-docs.")
        _check_new(run, overwrite)
        sources = corpus
        config = Config(
            cell=cast("Cell", cell),
            layers=layers,
            units=units,
            embedding_dim=embedding_dim,
            dropout=dropout,
            sequence_length=sequence_length,
            batch_size=batch_size,
            epochs=epochs,
            learning_rate=learning_rate,
            validation_split=validation_split,
            normalization=cast("Normalization", normalization),
            unknown="skip",
            seed=seed,
            precision=precision,
            corpus={},
            versions=_versions(),
        )
    text = _read_again(run, config, sources) if resume else read_corpus(sources, config.normalization)
    record = {"sources": list(sources), "files": text.files, "characters": len(text.text), "sha256": text.sha256}
    _train(run, replace(config, corpus=record), text, resume)


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
    learning_rate: Annotated[float, typer.Option(help="Of Adam, at the beginning; it falls to 0.")] = 0.0003,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")] = False,
) -> None:
    """Train a finished run a little more with its weights rounded as the file will have them."""
    _check_choice("--quantization-aware", quantization_aware, QUANTIZATIONS)
    _check(epochs >= 1, "--epochs", epochs, "a whole number from 1 up")
    _check(math.isfinite(learning_rate) and learning_rate > 0, "--learning-rate", learning_rate, "a number above 0")
    finished, tuned = Run(run), Run(output)
    recorded = finished.config()
    if output.resolve() == run.resolve():
        raise InvalidOption(f"--output {output} is the run itself: give a new folder.")
    _check_new(tuned, overwrite)
    config = replace(
        recorded,
        epochs=epochs,
        learning_rate=learning_rate,
        learning_rate_decay="cosine",
        quantization_aware=cast("Literal['int4']", quantization_aware),
        versions=_versions(),
        ended=None,
    )
    text = _read_again(finished, recorded, corpus)
    require_tensorflow("finetune", "train")
    from .model import load_model

    _train(tuned, config, text, resume=False, weights=load_model(finished).get_weights())


def _read_again(run: Run, config: Config, sources: list[str] | None) -> Corpus:
    """The corpus of a run, from where it was read, or from where it is now.

    Raises:
        CharedgeError: it is another text.
    """
    corpus = read_corpus(sources or config.corpus["sources"], config.normalization)
    if corpus.sha256 != config.corpus["sha256"]:
        raise CharedgeError(
            f"the corpus is not the one that {run.path} was trained on ({len(corpus.text):,} characters now, "
            f"{config.corpus['characters']:,} then, or others): give the same text, or train anew with --overwrite."
        )
    return corpus


def _train(run: Run, config: Config, corpus: Corpus, resume: bool, weights: list[Any] | None = None) -> None:
    """Train on a corpus that was read, from random weights or these, and say how it went."""
    train_text, held_out = split(corpus.text, config.validation_split)
    vocabulary = Vocabulary.of(corpus.text)
    if len(held_out) < 2:
        raise CharedgeError(
            f"--validation-split {config.validation_split:g} of {len(corpus.text):,} characters leaves nothing to validate on: "
            "give a longer text or a larger share."
        )
    require_tensorflow("train", "train")
    from .loop import Training, resolve_precision

    config = replace(config, precision=resolve_precision(config.precision))
    training = Training(run, config, vocabulary, vocabulary.encode(train_text), vocabulary.encode(held_out))
    if resume:
        training.resume()
        run.write_config(config)
    else:
        _remove_run(run)
        try:
            run.create(config, vocabulary, train_text, held_out)
        except OSError as error:
            raise CharedgeError(f"--output {run.path} cannot be written ({error.strerror}): choose another folder.") from None
        if weights:
            training.start_from(weights)
    model = f"{config.cell.upper()} {config.layers} x {config.units}"
    say(
        f"{len(corpus.text):,} characters, {len(vocabulary) - 1} distinct; {model}, {training.model.count_params():,} parameters; "
        f"{config.precision} on {training.strategy.num_replicas_in_sync} device(s)"
    )
    history = training.train()
    best = min(history, key=lambda epoch: epoch.validation_nats_per_character)
    nats = best.validation_nats_per_character
    print(
        f"{run.path}: {model}, best of {len(history)} epochs is epoch {best.epoch}: training {best.train_nats_per_character:.4f}, "
        f"validation {nats:.4f} nats ({to_bits(nats):.4f} bits)/character"
    )
    print(f"next: charedge convert {run.path} --output {run.path.name}.tflite")


def _resumed(recorded: Config, options: dict[str, object], run: Run) -> Config:
    """The recorded configuration with more epochs, if that is all that the options change."""
    values = asdict(recorded)
    different = {
        name: value
        for name, value in options.items()
        if name not in MAY_DIFFER and value != values[name] and (name, value) != ("precision", "auto")
    }
    if different:
        shown = ", ".join(f"--{name.replace('_', '-')} {value} (was {values[name]})" for name, value in different.items())
        raise CharedgeError(f"{run.path} was begun with other options: {shown}; leave them out, or train anew with --overwrite.")
    epochs = options.get("epochs", recorded.epochs)
    if int(str(epochs)) < recorded.epochs:
        raise CharedgeError(
            f"--epochs {epochs} is less than the {recorded.epochs} that {run.path} was begun with: give more, or none."
        )
    return replace(recorded, epochs=int(str(epochs)))


def _check_new(run: Run, overwrite: bool) -> None:
    """
    Raises:
        CharedgeError: the output is taken.
    """
    if run.path.exists() and not run.path.is_dir():
        raise CharedgeError(f"--output {run.path} is a file: give a folder for the run.")
    if run.exists() and not overwrite:
        raise CharedgeError(
            f"{run.path} already holds a run: go on with --resume, replace it with --overwrite, or choose another --output."
        )
    if run.path.is_dir() and not run.exists() and any(run.path.iterdir()):
        raise CharedgeError(f"--output {run.path} holds other files: choose a new folder.")


def _remove_run(run: Run) -> None:
    """Delete what a run consists of, and nothing else that may be in the folder."""
    if not run.exists():
        return
    shutil.rmtree(run.checkpoints, ignore_errors=True)
    for pattern in (
        "model.keras",
        "history.csv",
        "curves.png",
        "events.out.tfevents.*",
        "vocabulary.txt",
        "held_out.txt",
        "calibration.txt",
        "config.json",
    ):
        for path in run.path.glob(pattern):
            path.unlink()


def _versions() -> dict[str, str]:
    packages = {name: version(name) for name in ("charedge", "tensorflow", "keras", "numpy") if _installed(name)}
    return {"python": platform.python_version(), **packages}


def _installed(name: str) -> bool:
    from importlib.metadata import PackageNotFoundError

    try:
        version(name)
    except PackageNotFoundError:
        return False
    return True


def _check(fine: bool, option: str, value: object, expected: str) -> None:
    if not fine:
        raise InvalidOption(f"{option} {value} must be {expected}.")


def _check_choice(option: str, value: str, choices: tuple[str, ...]) -> None:
    _check(value in choices, option, value, f"one of {', '.join(choices)}")


@app.command()
def evaluate(
    run: RUN,
    file: Annotated[Path | None, typer.Argument(help="A text; - is stdin.  [default: the run's held-out text]")] = None,
    as_json: JSON = False,
) -> None:
    """Measure how well a run's best weights predict a text, the state carried through it."""
    require_tensorflow("evaluate", "train")
    folder = Run(run)
    config, vocabulary = folder.config(), folder.vocabulary()
    text = folder.held_out() if file is None else normalize(read_text(file), config.normalization)
    ids = vocabulary.encode(text)
    skipped = int((ids == UNKNOWN_ID).sum()) if config.unknown == "skip" else 0
    if skipped:
        say(f"warning: {skipped:,} characters are not in the vocabulary; they are left out.")
        ids = ids[ids != UNKNOWN_ID]
    if len(ids) < 2:
        raise CharedgeError(f"{file or run} has fewer than two characters that the model knows: give a longer text.")
    from .evaluation import chunk_loss, evaluate_ids
    from .model import load_model, state_size

    model = load_model(folder)
    start = time.perf_counter()
    nats = evaluate_ids(chunk_loss(model), state_size(config.cell, config.layers, config.units), ids)
    seconds = time.perf_counter() - start
    if as_json:
        print_json(
            {
                "nats_per_character": nats,
                "bits_per_character": to_bits(nats),
                "characters": len(ids),
                "skipped_characters": skipped,
                "characters_per_second": round(len(ids) / seconds, 1),
            }
        )
    else:
        print(f"{nats:.4f} nats/character, {to_bits(nats):.4f} bits/character over {len(ids):,} characters ({skipped:,} skipped)")
