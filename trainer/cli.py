"""Command line of the trainer: `charedge train`, `finetune` and `evaluate`."""

from __future__ import annotations

import inspect
import shlex
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from ..console import JSON, PLAIN, print_json, say, shown_loss
from ..display import Display
from ..runtime.interrupts import Interrupted
from ..runtime.scoring import to_bits
from . import api
from .cluster import is_chief
from .config import DEFAULTS, OPTIONS, Choice
from .corpus import find_sources
from .dataset import validation_start, validation_streams
from .outputs import require_log_apart
from .run import Run, kept_epoch
from .summary import Assessment, assess_run

app = typer.Typer(**PLAIN)

RUN = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder made by `charedge train`.", show_default=False)]
OUTPUT = Annotated[Path, typer.Option(metavar="RUN", help="The folder for the run.")]
OVERWRITE = Annotated[bool, typer.Option("--overwrite", help="Replace the run in the folder.")]
CHECKPOINT_MINUTES = Annotated[float, typer.Option(help="Longest time between two checkpoints, in minutes.")]
WORKER_TIMEOUT = Annotated[
    float, typer.Option(metavar="SECONDS", help="Seconds to wait for the other workers that TF_CONFIG names.")
]
QUIET = Annotated[bool, typer.Option("--quiet", help="Show only warnings and the result.")]
JSON_LOG = Annotated[Path | None, typer.Option(metavar="FILE", help="Append the progress to FILE, one JSON object per line.")]


def with_config_options(command: Callable[..., None]) -> Callable[..., None]:
    """Replace a command's `**options` by one option for each option of `Config`, None if it is not given.

    Args:
        command: a function for Typer.
    """
    signature = inspect.signature(command, eval_str=True)
    own = [parameter for parameter in signature.parameters.values() if parameter.kind is not inspect.Parameter.VAR_KEYWORD]
    shared = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=_annotation(name)) for name in OPTIONS
    ]
    required = [parameter for parameter in own if parameter.default is inspect.Parameter.empty]
    others = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in own if parameter not in required]
    positional = [parameter for parameter in others if parameter.name == "corpus"]
    rest = [parameter for parameter in others if parameter.name != "corpus"]
    command.__signature__ = signature.replace(parameters=[*required, *positional, *shared, *rest])  # type: ignore[attr-defined]
    command.__annotations__ = {parameter.name: parameter.annotation for parameter in (*own, *shared)}
    return command


def _annotation(name: str) -> Any:
    """A Typer option for a field of `Config`, its help and default from the table there."""
    option, default = OPTIONS[name], DEFAULTS[name]
    flag = f"--{name.replace('_', '-')}"
    help = option.help.replace("`vocabulary`", "--vocabulary")
    shown = option.unset.replace("`dropout`", "--dropout") if default is None else default
    metavar = "|".join(option.values.names) if isinstance(option.values, Choice) else None
    return Annotated[option.values.kind | None, typer.Option(flag, metavar=metavar, help=f"{help}  [default: {shown}]")]


@app.command()
@with_config_options
def train(
    output: OUTPUT,
    corpus: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CORPUS...", help="Text files, folders, .gz, or a name: python-docs, shakespeare.", show_default=False
        ),
    ] = None,
    vocabulary: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A vocabulary.txt; characters outside it are left out.")
    ] = None,
    allow_unknown: Annotated[
        bool, typer.Option("--allow-unknown", help="Train even if --vocabulary leaves out more than half of the text.")
    ] = False,
    init_from: Annotated[
        Path | None,
        typer.Option(
            metavar="RUN|MODEL",
            help="Start from the weights of a run, a model file, or a bundled model: shakespeare, shakespeare-tiny.",
        ),
    ] = None,
    teachers: Annotated[
        list[Path] | None,
        typer.Option(
            "--teacher", metavar="RUN", help="Distil from this finished run; may be given several times.", show_default=False
        ),
    ] = None,
    checkpoint_minutes: CHECKPOINT_MINUTES = 10.0,
    worker_timeout: WORKER_TIMEOUT = 300.0,
    quiet: QUIET = False,
    json_log: JSON_LOG = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the run in the folder; only --epochs may be raised.")] = False,
    overwrite: OVERWRITE = False,
    **options: Any,
) -> None:
    """Train a character model on text.

    The defaults shown are those of the preset base. Without --preset, a text of up to 400,000 characters gets others, which fit
    its length.
    """
    if json_log is not None:
        files = Run(output).config().corpus["files"] if resume else [source.name for source in find_sources(corpus or [])]
        read = [*map(Path, files), *_given(vocabulary, init_from)]
        require_log_apart(json_log, read, map(Run, _given(output, init_from, *(teachers or []))))
    with _display(quiet, json_log, output) as display:
        run = api.train(
            corpus or (),
            output,
            vocabulary=vocabulary,
            allow_unknown=allow_unknown,
            init_from=init_from,
            teachers=teachers or (),
            checkpoint_minutes=checkpoint_minutes,
            worker_timeout=worker_timeout,
            resume=resume,
            overwrite=overwrite,
            progress=display,
            **options,
        )
    _say_result(run, quiet)


@app.command()
def finetune(
    run: RUN,
    output: Annotated[Path, typer.Option(metavar="RUN", help="The folder for the new run.")],
    corpus: Annotated[
        list[str] | None,
        typer.Argument(metavar="CORPUS...", help="The text of the run.  [default: read from where it was]", show_default=False),
    ] = None,
    quantization_aware: Annotated[
        str, typer.Option(metavar="int4", help="How `charedge convert` will store the weights.")
    ] = "int4",
    epochs: Annotated[int, typer.Option(help="Passes over the text.")] = 1,
    learning_rate: Annotated[
        float | None,
        typer.Option(help="Peak learning rate, falling to 0.  [default: 1/3 of the run's, 1/100 if that fell to 0]"),
    ] = None,
    checkpoint_minutes: CHECKPOINT_MINUTES = 10.0,
    worker_timeout: WORKER_TIMEOUT = 300.0,
    quiet: QUIET = False,
    json_log: JSON_LOG = None,
    overwrite: OVERWRITE = False,
) -> None:
    """Train a finished run a little longer with its weights rounded as in the model file."""
    if json_log is not None:
        files = [source.name for source in find_sources(corpus)] if corpus else Run(run).config().corpus["files"]
        require_log_apart(json_log, map(Path, files), map(Run, (run, output)))
    with _display(quiet, json_log, output) as display:
        tuned = api.finetune(
            run,
            output,
            corpus or (),
            quantization_aware=quantization_aware,  # type: ignore[arg-type]  # checked there
            epochs=epochs,
            learning_rate=learning_rate,
            checkpoint_minutes=checkpoint_minutes,
            worker_timeout=worker_timeout,
            overwrite=overwrite,
            progress=display,
        )
    _say_result(tuned, quiet)


@app.command()
def evaluate(
    run: RUN,
    file: Annotated[Path | None, typer.Argument(help="A text; - is stdin.  [default: the run's held-out text]")] = None,
    protocol: Annotated[
        str,
        typer.Option(
            metavar="|".join(api.PROTOCOLS),
            help="carried: state carried through the text; windows: from zero states; last-character: one prediction per window.",
        ),
    ] = "carried",
    window: Annotated[int | None, typer.Option(help="Characters of a window.  [default: 256; last-character 100]")] = None,
    stride: Annotated[int, typer.Option(help="Characters between the starts of two last-character windows.")] = 1,
    as_json: JSON = False,
) -> None:
    """Measure how well a run's best weights predict a text."""
    api.check_protocol(protocol, window, stride)
    say(f"reading {run}")
    with Display() as display:
        start = time.perf_counter()
        result = api.evaluate(run, file, protocol=protocol, window=window, stride=stride, progress=display)
        seconds = time.perf_counter() - start
    nats = result.nats_per_character
    if as_json:
        print_json(
            {
                "nats_per_character": nats,
                "bits_per_character": to_bits(nats),
                "characters": result.characters,
                "skipped_characters": result.skipped_characters,
                "predictions": result.predictions,
                "protocol": protocol,
                "characters_per_second": round(result.predictions / seconds, 1),
            }
        )
        return
    source = "stdin" if file == Path("-") else file
    text = f"held-out characters of {run}" if file is None else f"characters of {source}"
    skipped = f" ({result.skipped_characters:,} skipped)" if result.skipped_characters else ""
    print(f"{shown_loss(nats)} over {result.characters:,} {text}{skipped}, {_shown_protocol(result, window, stride)}")


def _shown_protocol(result: api.Evaluation, window: int | None, stride: int) -> str:
    """How a text was read."""
    from .evaluation import WINDOWS

    if result.protocol == "carried":
        return "one stream with the state carried"
    size = window or WINDOWS[result.protocol]
    if result.protocol == "windows":
        return f"{result.predictions:,} predictions in windows of {size} from zero states"
    return f"{result.predictions:,} predictions, each after a window of {size} from a zero state, stride {stride}"


@contextmanager
def _display(quiet: bool, json_log: Path | None, output: Path) -> Iterator[Display]:
    """The progress display of a training; if it is interrupted, prints how to continue."""
    with Display(quiet, json_log) as display:
        try:
            yield display
        except Interrupted:
            if is_chief() and Run(output).has_checkpoint:
                display.say(f"continue with: charedge train --resume --output {shlex.quote(str(output))}")
            elif is_chief():
                display.say("nothing was saved yet: train again with --overwrite")
            raise


def _given(*paths: Path | None) -> Iterable[Path]:
    return (path for path in paths if path is not None)


def _counted(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def _explained(assessment: Assessment, finished: int, epochs: int) -> Iterator[str]:
    """Sentences that say what the losses mean, and what would make the model better.

    Args:
        assessment: of the training.
        finished: epochs that were trained.
        epochs: epochs that were asked for.
    """
    if finished < epochs:
        yield f"stopped after {finished} of {epochs} epochs, because the validation loss did not fall any more (--patience)"
    if not assessment.has_words:
        yield (
            "this model will generate text with hardly any words: on the held-out text it predicts no better than the last two "
            f"characters allow ({assessment.trigram:.2f} nats per character)"
        )
    longer = "train with a larger --patience" if finished < epochs else f"train longer (--resume --epochs {2 * epochs})"
    meaning = {
        "memorised": "the network memorised the text: more text helps most; then more noise (--weight-drop, --dropout), or a start "
        "from a model (--init-from)",
        "unfinished": f"the network can still learn from this text: {longer}, or with a smaller --batch-size",
        "good": "about as good as this network gets with this text"
        if assessment.has_words
        else "more text helps most; then a start from a model (--init-from)",
    }
    yield f"training loss {assessment.train:.2f}, held-out {assessment.validation:.2f}: {meaning[assessment.finding]}"


def _say_result(run: Run, quiet: bool) -> None:
    """Print the losses of the epoch that is kept with what each is over, what they mean, and the command that converts the run.

    Args:
        run: the finished run.
        quiet: whether to leave out what they mean.
    """
    if not is_chief():
        return
    config, history = run.config(), run.history()
    kept = kept_epoch(config, history) or history[-1]
    characters = config.corpus["characters"] - config.corpus.get("skipped", 0)
    trained_on = validation_start(characters, config.validation_split)
    held_out = characters - trained_on
    network = f"{config.cell.upper()} {config.layers} x {config.units}"
    print(f"{run.path}: {network}, weights of epoch {kept.epoch} of {len(history)}, the {config.keep} one")
    print(
        f"training loss: {shown_loss(kept.train_nats_per_character)} over the first {trained_on:,} characters, "
        f"mean of the batches of epoch {kept.epoch}"
    )
    print(
        f"validation loss: {shown_loss(kept.validation_nats_per_character)} over the {held_out:,} held-out characters, "
        f"{_counted(validation_streams(held_out), 'stream')} with the state carried"
    )
    if not quiet:
        for sentence in _explained(assess_run(run), len(history), config.epochs):
            say(sentence)
    rounded = f" --quantization {config.quantization_aware}" if config.quantization_aware else ""
    file = f"{run.path.resolve().name}.tflite"
    output = file if run.path.name else f"../{file}"  # beside the current folder, if that is the run
    print(f"next: charedge convert {shlex.quote(str(run.path))} --output {shlex.quote(output)}{rounded}")
