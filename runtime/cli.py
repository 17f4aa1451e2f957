"""The command line. The device's commands are here; those of the workstation are mounted by name when they are called."""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from .bundled import DEFAULT, NAMES, find_model
from .errors import CharedgeError, InvalidOption
from .interrupts import HANGUP, Interrupted, deferred_interrupts
from .streams import STDOUT, drop, to_json, write_error
from .text import read_chunks, split_lines

if TYPE_CHECKING:
    from .generator import Generator
    from .saved_text import SavedText

WORKSTATION_COMMANDS = {
    "train": "charedge.trainer.cli",
    "finetune": "charedge.trainer.cli",
    "evaluate": "charedge.trainer.cli",
    "convert": "charedge.converter.cli",
    "demo": "charedge.converter.cli",
}
SAMPLE_SEPARATOR = "----"
ClickException: Any = typer.BadParameter.__mro__[2]
"""A wrong option or argument; depending on its version, Typer takes the class from Click or has one of its own."""
MAX_SAMPLES = 10_000
MAX_CHARACTERS = 10_000_000  # of a benchmark, which keeps the time of each
LISTED = 8  # names of files that `info` shows; its JSON has all
TOLD_CHARACTERS, TOLD_SECONDS = 10_000, 10.0


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
            drop(sys.stdout)
            raise typer.Exit(0) from None
        except KeyboardInterrupt as interrupt:  # from Ctrl-C, or from `__main__.Terminated`
            raise typer.Exit(getattr(interrupt, "status", 130)) from None
        except MemoryError:
            say("the memory of this machine is not enough: give less text or fewer --samples.")
            raise typer.Exit(1) from None
        except OSError as error:
            raise typer.Exit(_say_system_error(error)) from None


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
    status = _run(arguments)
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        drop(sys.stdout)
    except OSError as error:
        return _say_system_error(error)
    return status


def _run(arguments: Sequence[str]) -> int:
    """Run the command line; some of the output may wait to be written."""
    if any("\0" in argument for argument in arguments):
        say("an argument has a zero byte: leave it out.")
        return 2
    try:
        return app(list(arguments), prog_name="charedge", standalone_mode=False) or 0
    except ClickException as error:
        if arguments:
            command = error.ctx.command_path if error.ctx else "charedge"
            say(f"{error.format_message().rstrip('.')}: run `{command} --help` for the options.")
        else:
            write_error(error.format_message())  # the help
        return error.exit_code
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except OSError as error:  # the help cannot be written
        return _say_system_error(error)


def _say_system_error(error: OSError) -> int:
    """Say what the system could not do, and return the exit status."""
    reason = error.strerror or error
    if error.filename == STDOUT:
        drop(sys.stdout)
        say(f"stdout cannot be written ({reason}): send it to a file or a program that takes it.")
    else:
        say(f"{error.filename or 'the system'}: {reason}.")
    return 1


def say(message: object) -> None:
    """One line on stderr, where everything goes that is not the result."""
    write_error(f"charedge: {message}".replace("\n", "\\n"))


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
    os.environ["KERAS_BACKEND"] = "tensorflow"  # also where the user's own programs run Keras on another one
    from .interpreter import quiet_stderr

    with quiet_stderr():
        import_module("tensorflow")
        backend = import_module("keras").config.backend()
    if backend != "tensorflow":  # a program that calls charedge has imported Keras before
        raise CharedgeError(
            f"`charedge {command}` needs Keras on TensorFlow, and this process runs it on {backend}: use a new one."
        )


def print_json(fields: dict[str, Any]) -> None:
    print(to_json(fields, indent=2))


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


MODEL = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        callback=find_model,
        help=f"A .tflite file made by `charedge convert`, or one that comes with charedge: {', '.join(NAMES)}.",
        show_default=False,
    ),
]
THREADS = Annotated[int, typer.Option("--threads", help="Threads of the interpreter, at most 128.")]
INTERPRETER = Annotated[
    str | None,
    typer.Option("--interpreter", metavar="NAME", help="ai-edge-litert or tflite-runtime.  [default: the first that fits]"),
]
JSON = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]
STRICT = Annotated[bool, typer.Option("--strict", help="Refuse characters that the model does not know, rather than skip them.")]


@app.command()
def generate(
    model: MODEL = DEFAULT,
    prompt: Annotated[str | None, typer.Option(help=r"The text to continue; \n, \t and \uXXXX are understood.")] = None,
    prompt_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Read the prompt from a file, or - for stdin.")] = None,
    length: Annotated[int, typer.Option(help="How many characters to write at most.")] = 500,
    temperature: Annotated[float, typer.Option(help="Below 1 safer, above 1 wilder; 0 takes the likeliest character.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Draw from the k likeliest characters; 0 is off.")] = 0,
    top_p: Annotated[float, typer.Option(help="Draw from the likeliest characters of this total probability; 1 is off.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Draw from characters this times as likely as the likeliest; 0 is off.")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Make recent characters less likely; 1 is off.")] = 1.0,
    repetition_window: Annotated[int, typer.Option(help="How many characters are recent.")] = 64,
    ban: Annotated[str, typer.Option(metavar="CHARACTERS", help="Characters that are never written.")] = "",
    logit_bias: Annotated[list[str] | None, typer.Option(metavar="C=VALUE", help="Add to a character's logit; repeatable.")] = None,
    stop: Annotated[list[str] | None, typer.Option(metavar="TEXT", help="End before this text; repeatable.")] = None,
    pattern: Annotated[str | None, typer.Option(metavar="REGEX", help="Write text that matches a regular expression.")] = None,
    session: Annotated[Path | None, typer.Option(metavar="FILE", help="Save the text's state in FILE, and resume from it.")] = None,
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

    if not 1 <= samples <= MAX_SAMPLES:
        raise InvalidOption(f"--samples {samples} must be from 1 to {MAX_SAMPLES:,}.")
    if session is not None and samples > 1:
        raise InvalidOption("--session keeps one text: leave out --samples.")
    if prompt_file is not None and (prompt is not None or samples > 1):
        raise InvalidOption("--prompt-file cannot be given together with --prompt or --samples: choose one.")
    options: dict[str, Any] = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "repetition_window": repetition_window,
        "banned": _unescape("--ban", ban),
        "logit_bias": _biases(logit_bias or []),
        "stop": [_unescape("--stop", text) for text in stop or []],
        "pattern": pattern,
        "seed": seed,
        "strict": strict,
    }
    text = _unescape("--prompt", prompt or "")
    generator = Generator.load(model, threads, interpreter)
    write = _writer()
    echo = _nothing if as_json or no_echo else write
    start = time.perf_counter()

    def finish(texts: Sequence[str]) -> None:
        if as_json:
            characters, seconds = sum(map(len, texts)), time.perf_counter() - start
            fields = {"texts": texts, "characters": characters, "characters_per_second": round(characters / seconds, 1)}
            print_json({"prompt": text, **fields, "seed": seed, "interpreter": generator.interpreter})
        elif sys.stdout.isatty():
            write("\n")

    if samples > 1:
        texts = generator.generate_batch([text] * samples, length, **options)
        if not as_json:
            write(f"\n{SAMPLE_SEPARATOR}\n".join(("" if no_echo else text) + written for written in texts))
        finish(texts)
        return
    source = text if prompt_file is None else _echoing(read_chunks(prompt_file), echo)
    with nullcontext() if session is None else generator.in_session(session, source, length, **options) as saved:
        pieces = generator.stream(source, length, **options) if saved is None else iter(saved)
        if prompt_file is None:
            echo(text)
        collected: list[str] = []
        _write_pieces(pieces, collected.append if as_json else write, None if as_json else saved)
        finish(["".join(collected)])
        if saved is not None:
            _hand_over(saved)


def _write_pieces(pieces: Iterator[str], take: Callable[[str], object], saved: SavedText | None) -> None:
    """Pass pieces on. Ctrl-C, SIGTERM and SIGHUP end the text between two of them, once there is a first one.

    Args:
        pieces: a text.
        take: writes a piece.
        saved: the text's session, which is saved now and then and in the end, if it is to cover what `take` got.
    """
    at_once = sys.stdout.isatty()  # where `take` hands over itself
    piece = next(pieces, None)
    with deferred_interrupts() as request:
        try:
            while piece is not None:
                take(piece)
                if saved is not None:
                    if at_once:
                        saved.handed_over()
                    if saved.due or request.number is not None:
                        _hand_over(saved)
                if request.number is not None:
                    raise Interrupted(request.number)
                piece = next(pieces, None)
            if saved is not None:
                _hand_over(saved)
        except OSError as error:
            closed = at_once and error.errno == errno.EIO  # a terminal, whose signal may be still to come
            number = HANGUP if closed and request.number is None else request.number
            if number is None:
                raise
            drop(sys.stdout)
            raise Interrupted(number) from None


def _hand_over(saved: SavedText) -> None:
    """Let what was written reach its reader, or the disk where stdout is a file; then save the session."""
    sys.stdout.flush()
    try:
        descriptor = sys.stdout.fileno()
    except OSError:  # stdout was replaced by an object without a file
        pass
    else:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            os.fsync(descriptor)
    saved.handed_over()
    saved.save()


def _unescape(option: str, text: str) -> str:
    from .vocabulary import unescape

    try:
        text = text.encode("utf-8", "surrogateescape").decode("utf-8")  # in a locale without UTF-8 Python leaves it undecoded
    except UnicodeError:
        raise InvalidOption(f"{option} is not UTF-8 text: use a terminal with UTF-8, or escapes such as \\u00E9.") from None
    try:
        return unescape(text)
    except ValueError as error:
        raise InvalidOption(f"{option} cannot be read: {error}.") from None


def _biases(entries: Sequence[str]) -> dict[str, float]:
    """The biases by character; those of one character add up."""
    biases: dict[str, float] = {}
    for character, value in map(_bias, entries):
        biases[character] = biases.get(character, 0.0) + value
    return biases


def _bias(entry: str) -> tuple[str, float]:
    """`c=1.5` -> ("c", 1.5)."""
    character, _, value = entry.rpartition("=")
    try:
        return _unescape("--logit-bias", character), float(value)
    except ValueError:
        raise InvalidOption(f"--logit-bias {entry!r} must be a character, an equals sign and a number, as in 'e=-2'.") from None


def _echoing(chunks: Iterator[str], echo: Callable[[str], object]) -> Iterator[str]:
    """The pieces of a long prompt, each written as it is read."""
    for chunk in chunks:
        echo(chunk)
        yield chunk


def _writer() -> Callable[[str], object]:
    """The function that writes text to stdout: at once on a terminal, by the block elsewhere."""
    write, flush = sys.stdout.write, sys.stdout.flush
    if not sys.stdout.isatty():
        return write

    def write_at_once(text: str) -> None:
        write(text)
        flush()

    return write_at_once


def _nothing(text: str) -> None:
    pass


@app.command()
def info(model: MODEL, as_json: JSON = False) -> None:
    """Show what a model file says of itself."""
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
    for label, value in rows:
        print(f"{label:<12} {value}")


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join([*map(str, value[:LISTED]), *(["and others"] if len(value) > LISTED else [])])
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
    lines: Annotated[bool, typer.Option("--lines", help="Score each line as a text of its own.")] = False,
    strict: STRICT = False,
    threads: THREADS = 1,
    interpreter: INTERPRETER = None,
    as_json: JSON = False,
) -> None:
    """Measure how well a model predicts a text, in nats and bits a character."""
    from .generator import Generator

    generator = Generator.load(model, threads, interpreter)
    if lines:
        _score_lines(generator, file, strict, as_json)
        return
    start = time.perf_counter()
    result = generator.score(_told(read_chunks(file)), strict)
    seconds = time.perf_counter() - start
    if as_json:
        speed = round((result.characters - 1) / seconds, 1)
        print_json({**asdict(result), "characters_per_second": speed, "interpreter": generator.interpreter})
        return
    print(
        f"{result.nats_per_character:.4f} nats/character, {result.bits_per_character:.4f} bits/character "
        f"over {result.characters:,} characters ({result.skipped_characters:,} skipped)"
    )


def _told(chunks: Iterator[str]) -> Iterator[str]:
    """The pieces of a text, and a line on stderr now and then for as long as they take."""
    done, told = 0, time.monotonic()
    for chunk in chunks:
        for start in range(0, len(chunk), TOLD_CHARACTERS):
            yield chunk[start : start + TOLD_CHARACTERS]
            done += min(TOLD_CHARACTERS, len(chunk) - start)
            if time.monotonic() - told >= TOLD_SECONDS:
                say(f"{done:,} characters scored")
                told = time.monotonic()


def _score_lines(generator: Generator, file: Path, strict: bool, as_json: bool) -> None:
    """A line of output for each line of the file: nats/character, a tab, the line; or a JSON object."""
    from .scoring import TooShort

    for number, line in enumerate(split_lines(read_chunks(file)), start=1):
        try:
            result = generator.score(line, strict)
        except TooShort:
            result = None
        except CharedgeError as error:
            raise CharedgeError(f"line {number} of {file}: {error}") from None
        if as_json:
            fields = asdict(result) if result else {"nats_per_character": None}
            print(to_json({"line": number, **fields, "text": line}))
        else:
            print(f"{result.nats_per_character:.4f}" if result else "-", line, sep="\t")


@app.command()
def bench(
    model: MODEL,
    characters: Annotated[int, typer.Option(help="How many characters to generate for each figure.")] = 2000,
    interpreter: INTERPRETER = None,
    as_json: JSON = False,
) -> None:
    """Measure how fast a model file runs on this machine."""
    if not 1 <= characters <= MAX_CHARACTERS:
        raise InvalidOption(f"--characters {characters} must be from 1 to {MAX_CHARACTERS:,}.")
    from .benchmark import run_benchmark

    result = run_benchmark(model, characters, interpreter)
    if as_json:
        print_json(asdict(result))
        return
    print(f"machine      {', '.join(result.machine.values())}")
    print(f"interpreter  {result.interpreter}")
    print(f"load         {result.load_milliseconds:.1f} ms, the probe included")
    print(f"a character  {result.microseconds_per_character:.1f} us (median), {result.microseconds_per_character_p99:.1f} us (p99)")
    for entry in result.rates:
        rows = "1 text " if entry.rows == 1 else f"{entry.rows} texts"
        threads = "1 thread " if entry.threads == 1 else f"{entry.threads} threads"
        print(f"{rows}      {entry.characters_per_second:,.0f} characters/s on {threads}")
    print(f"memory       {result.peak_rss_bytes / 2**20:.1f} MiB at most")
