"""The command line. The device's commands are here; those of the workstation are mounted by name when they are called."""

from __future__ import annotations

import io
import json
import os
import sys
import time
import warnings
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from .errors import CharedgeError, InvalidOption

WORKSTATION_COMMANDS = {
    "train": "charedge.trainer.cli",
    "evaluate": "charedge.trainer.cli",
    "convert": "charedge.converter.cli",
    "demo": "charedge.converter.cli",
}
SAMPLE_SEPARATOR = "----"


class Commands(TyperGroup):
    """All commands of charedge; an error in any of them becomes a sentence on stderr and an exit status."""

    def list_commands(self, ctx: Any) -> list[str]:
        return [*WORKSTATION_COMMANDS, *super().list_commands(ctx)]

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        if cmd_name not in WORKSTATION_COMMANDS:
            return super().get_command(ctx, cmd_name)
        group = typer.main.get_group(import_module(WORKSTATION_COMMANDS[cmd_name]).app)
        return group.commands[cmd_name]

    def invoke(self, ctx: Any) -> Any:
        warnings.showwarning = lambda message, *_, **__: say(f"warning: {message}")
        try:
            return super().invoke(ctx)
        except InvalidOption as error:
            say(error)
            raise typer.Exit(2) from None
        except CharedgeError as error:
            say(error)
            raise typer.Exit(1) from None
        except BrokenPipeError:
            _drop_stdout()
            raise typer.Exit(0) from None
        except KeyboardInterrupt as interrupt:  # from Ctrl-C, or from `__main__.Terminated`
            raise typer.Exit(getattr(interrupt, "status", 130)) from None
        except MemoryError:
            say("the memory of this machine is not enough: give less text or fewer --samples.")
            raise typer.Exit(1) from None
        except OSError as error:
            say(f"{error.filename or 'the system'}: {error.strerror or error}.")
            raise typer.Exit(1) from None


PLAIN: dict[str, Any] = {"add_completion": False, "rich_markup_mode": None, "pretty_exceptions_enable": False}
"""How every part of the command line is set up: errors are one line, and help is plain text that needs no rich."""

app = typer.Typer(
    cls=Commands,
    name="charedge",
    help="Character-level language models from text to a small device.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    **PLAIN,
)


def run(arguments: Sequence[str]) -> int:
    """Run the command line with some arguments.

    Returns:
        The exit status. A closed pipe ends quietly, as if all had been read.
    """
    try:
        app(list(arguments))
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
        try:
            sys.stdout.flush()
        except BrokenPipeError:
            _drop_stdout()
        return status
    return 0


def _drop_stdout() -> None:
    """Let the interpreter's last flush go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def say(message: object) -> None:
    """One line on stderr, where everything goes that is not the result."""
    print(f"charedge: {message}", file=sys.stderr, flush=True)


def require_tensorflow(command: str, extra: str) -> None:
    """Import TensorFlow, without its greetings.

    Raises:
        CharedgeError: TensorFlow is not installed.
    """
    if find_spec("tensorflow") is None:
        raise CharedgeError(
            f"`charedge {command}` needs TensorFlow, which a device does without: run `pip install 'charedge[{extra}]'`."
        )
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its greetings would bury our own lines
    from .interpreter import quiet_stderr

    with quiet_stderr():
        import_module("tensorflow")


def print_json(fields: dict[str, Any]) -> None:
    print(json.dumps(fields, ensure_ascii=False, indent=2))


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        print(f"charedge {version('charedge')}")
        raise typer.Exit


@app.callback()
def charedge(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


MODEL = Annotated[Path, typer.Argument(metavar="MODEL", help="A .tflite file made by `charedge convert`.", show_default=False)]
THREADS = Annotated[int, typer.Option("--threads", help="Threads of the interpreter.")]
INTERPRETER = Annotated[
    str | None,
    typer.Option("--interpreter", metavar="NAME", help="ai-edge-litert or tflite-runtime.  [default: the first that fits]"),
]
JSON = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
STRICT = Annotated[bool, typer.Option("--strict", help="Refuse characters that the model does not know, rather than skip them.")]


@app.command()
def generate(
    model: MODEL,
    prompt: Annotated[str | None, typer.Option(help=r"The text to continue; \n, \t and \uXXXX are understood.")] = None,
    prompt_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Read the prompt from a file, or - for stdin.")] = None,
    length: Annotated[int, typer.Option(help="How many characters to write.")] = 500,
    temperature: Annotated[float, typer.Option(help="Below 1 safer, above 1 wilder; 0 takes the likeliest character.")] = 0.8,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same text.  [default: another each time]")] = None,
    samples: Annotated[int, typer.Option(help=f"How many texts to write, separated by a line {SAMPLE_SEPARATOR}.")] = 1,
    no_echo: Annotated[bool, typer.Option("--no-echo", help="Leave the prompt out of the output.")] = False,
    strict: STRICT = False,
    threads: THREADS = 1,
    interpreter: INTERPRETER = None,
    as_json: JSON = False,
) -> None:
    """Write text, character by character."""
    from .generator import Generator

    text = _prompt(prompt, prompt_file)
    if samples < 1:
        raise InvalidOption(f"--samples {samples} must be at least 1.")
    generator = Generator.load(model, threads, interpreter)
    start = time.perf_counter()
    if as_json:
        texts = generator.generate_batch([text] * samples, length, temperature, seed, strict)
        seconds = time.perf_counter() - start
        print_json(
            {
                "prompt": text,
                "texts": texts,
                "characters": length * samples,
                "seed": seed,
                "characters_per_second": round(length * samples / seconds, 1),
                "interpreter": generator.interpreter,
            }
        )
        return
    _prepare_stdout()
    echoed = "" if no_echo else text
    if samples == 1:
        pieces = generator.stream(text, length, temperature, seed, strict)
        _write(echoed)
        for piece in pieces:
            _write(piece)
    else:
        texts = generator.generate_batch([text] * samples, length, temperature, seed, strict)
        _write(f"\n{SAMPLE_SEPARATOR}\n".join(echoed + written for written in texts))
    if sys.stdout.isatty():
        _write("\n")


def _prompt(prompt: str | None, prompt_file: Path | None) -> str:
    """The prompt that the options give; none is the empty one."""
    from .text import read_text
    from .vocabulary import unescape

    if prompt_file is not None:
        if prompt is not None:
            raise InvalidOption("--prompt and --prompt-file cannot both be given: choose one.")
        return read_text(prompt_file)
    try:
        return unescape(prompt or "")
    except (ValueError, OverflowError) as error:
        raise InvalidOption(f"--prompt cannot be read: {error}.") from None


def _prepare_stdout() -> None:
    """A pipe or a file gets UTF-8 in every locale; a terminal keeps its encoding and shows what it can."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        if sys.stdout.isatty():
            sys.stdout.reconfigure(errors="replace", newline="\n")
        else:
            sys.stdout.reconfigure(encoding="utf-8", errors="replace", newline="\n")


def _write(text: str) -> None:
    """Write to stdout: at once on a terminal, by the block elsewhere."""
    sys.stdout.write(text)
    if sys.stdout.isatty():
        sys.stdout.flush()


@app.command()
def info(model: MODEL, as_json: JSON = False) -> None:
    """Show what a model file says of itself."""
    from dataclasses import asdict

    from .package import read_package

    package = read_package(model)
    manifest = package.manifest
    size = model.stat().st_size
    if as_json:
        print_json({"file": str(model), "bytes": size, **asdict(manifest)})
        return
    layers = f"{manifest.cell.upper()} {manifest.layers} x {manifest.units}"
    table = "input table folded" if manifest.input_table_folded else "embedding kept apart"
    rows = [
        ("model", f"{manifest.name}: {layers}, embedding {manifest.embedding_dim}, {manifest.vocabulary_size} tokens"),
        ("file", f"{size:,} bytes, {manifest.quantization}, {table}"),
        ("made by", f"{manifest.created_by}, trained until {manifest.created}, licence {manifest.license}"),
        ("text", f"normalised to {manifest.normalization}, unknown characters: {manifest.unknown}"),
        ("runs on", " or ".join(f"{entry.name} {entry.minimum_version} and later" for entry in manifest.interpreters)),
        *(
            (
                "verified",
                f"{v.nats_per_character:.4f} nats/character ({v.loss:+.4f} against Keras) "
                f"over {v.characters:,} held-out characters on {v.interpreter} {v.version}",
            )
            for v in manifest.verified
        ),
        *(("training", f"{key.replace('_', ' ')}: {_plain(value)}") for key, value in manifest.training.items()),
        ("vocabulary", "".join(package.vocabulary.to_bytes().decode().split("\n")[1:81])),
    ]
    _prepare_stdout()
    for label, value in rows:
        print(f"{label:<12} {value}")


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join(map(str, value))
    return f"{value:.4f}" if isinstance(value, float) else str(value)


@app.command()
def verify(model: MODEL, threads: THREADS = 1, interpreter: INTERPRETER = None, as_json: JSON = False) -> None:
    """Check that a model file is whole and works on this machine as it did where it was made."""
    from .interpreter import Step
    from .package import read_package
    from .scoring import run_probe

    package = read_package(model)
    step = Step(package, threads, interpreter)
    result = run_probe(step, package)
    difference = result.nats_per_character - result.expected_nats_per_character
    if as_json:
        print_json(
            {
                "passed": result.passed,
                "nats_per_character": result.nats_per_character,
                "expected_nats_per_character": result.expected_nats_per_character,
                "tolerance": result.tolerance,
                "interpreter": str(step.interpreter),
            }
        )
    else:
        print(f"file         {model}: ZIP, manifest and SHA-256 are in order")
        print(f"interpreter  {step.interpreter}")
        print(
            f"probe        {result.nats_per_character:.6f} nats/character, recorded {result.expected_nats_per_character:.6f}, "
            f"difference {difference:+.6f}, allowed {result.tolerance:g}"
        )
        print("verified" if result.passed else "FAILED")
    if not result.passed:
        raise CharedgeError(f"{model} does not work with {step.interpreter} on this machine: convert the run again.")


@app.command()
def score(
    model: MODEL,
    file: Annotated[Path, typer.Argument(help="The text; - is stdin.")] = Path("-"),
    strict: STRICT = False,
    threads: THREADS = 1,
    interpreter: INTERPRETER = None,
    as_json: JSON = False,
) -> None:
    """Measure how well a model predicts a text, in nats and bits a character."""
    from dataclasses import asdict

    from .generator import Generator
    from .text import read_text

    generator = Generator.load(model, threads, interpreter)
    text = read_text(file)
    start = time.perf_counter()
    result = generator.score(text, strict)
    seconds = time.perf_counter() - start
    if as_json:
        speed = round((result.characters - 1) / seconds, 1)
        print_json({**asdict(result), "characters_per_second": speed, "interpreter": generator.interpreter})
        return
    print(
        f"{result.nats_per_character:.4f} nats/character, {result.bits_per_character:.4f} bits/character "
        f"over {result.characters:,} characters ({result.skipped_characters:,} skipped)"
    )
