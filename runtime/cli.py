"""The device's commands: `charedge generate`, `score`, `info`, `verify` and `bench`."""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..console import JSON, PLAIN, print_json, say, shown_loss
from ..streams import drop, to_json
from .bundled import DEFAULT, NAMES, find_model
from .errors import CharedgeError, InvalidOption
from .interrupts import HANGUP, Interrupted, deferred_interrupts
from .pace import Pace
from .text import read_chunks, shown_name, split_lines

if TYPE_CHECKING:
    from .manifest import LogitTemperature, Manifest, Verified
    from .model import Model
    from .saved_text import SavedText
    from .vocabulary import Vocabulary

app = typer.Typer(**PLAIN)

SAMPLE_SEPARATOR = "----"
SHOWN_TOKENS = 80
MAX_SAMPLES = 10_000
MAX_CHARACTERS = 10_000_000  # of a benchmark, which keeps the time of each
LINE_ESCAPES = str.maketrans({"\n": r"\n", "\r": r"\r", "\t": r"\t"})
"""For texts of a file that could otherwise look like other lines of `info`."""
LISTED = 8  # names of files that `info` shows; its JSON has all
PROGRESS_CHARACTERS, PROGRESS_SECONDS = 10_000, 10.0


MODEL = Annotated[
    Path,
    typer.Argument(
        metavar="MODEL",
        callback=find_model,
        help=f"A .tflite file made by `charedge convert`, or a bundled model: {', '.join(NAMES)}.",
        show_default=False,
    ),
]
GENERATOR = Annotated[
    Path,
    typer.Argument(
        metavar="[MODEL]",
        callback=find_model,
        help=f"A .tflite file made by `charedge convert`, or a bundled model: {', '.join(NAMES)}.  [default: {NAMES[0]}]",
        show_default=False,
    ),
]
THREADS = Annotated[int, typer.Option("--threads", help="Threads of the interpreter, at most 128.")]
INTERPRETER = Annotated[
    str | None,
    typer.Option("--interpreter", metavar="NAME", help="ai-edge-litert or tflite-runtime.  [default: the first that fits]"),
]
STRICT = Annotated[bool, typer.Option("--strict", help="Refuse characters outside the vocabulary instead of skipping them.")]
ADAPT_RATE = Annotated[float | None, typer.Option(help="Learning rate of --adapt: above 0, at most 1.  [default: 0.0002]")]


@app.command()
def generate(
    model: GENERATOR = DEFAULT,
    prompt: Annotated[
        str | None, typer.Option(help=r"Text to continue; \n, \t and \uXXXX are escapes.  [default: the model's start text]")
    ] = None,
    prompt_file: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Read the prompt from a file, or - for stdin.  [default: none]")
    ] = None,
    length: Annotated[
        int, typer.Option(help="Maximum number of characters to write, with --end-at the minimum; 0 writes without end.")
    ] = 500,
    temperature: Annotated[float, typer.Option(help="Below 1 safer, above 1 more varied; 0 takes the top character.")] = 0.8,
    top_k: Annotated[int, typer.Option(help="Keep the k most likely characters; 0 is off.")] = 0,
    top_p: Annotated[float, typer.Option(help="Keep the most likely characters of this total probability; 1 is off.")] = 1.0,
    min_p: Annotated[float, typer.Option(help="Keep characters at least this fraction as likely as the top one; 0 is off.")] = 0.0,
    repetition_penalty: Annotated[float, typer.Option(help="Make recent characters less likely; 1 is off.")] = 1.0,
    repetition_window: Annotated[int, typer.Option(help="Number of recent characters that --repetition-penalty counts.")] = 64,
    banned: Annotated[
        str, typer.Option("--ban", metavar="CHARACTERS", help="Characters that are never written.  [default: none]")
    ] = "",
    logit_bias: Annotated[
        list[str] | None,
        typer.Option(metavar="C=VALUE", help="Add VALUE to the logit of character C; repeatable.  [default: none]"),
    ] = None,
    stop: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Stop before this text; repeatable.  [default: none]")
    ] = None,
    pattern: Annotated[
        str | None, typer.Option(metavar="REGEX", help="Write text that matches a regular expression.  [default: none]")
    ] = None,
    end_at: Annotated[
        str | None,
        typer.Option(metavar="UNIT", help="End after the next sentence, line or paragraph, at --length or later.  [default: none]"),
    ] = None,
    characters_per_second: Annotated[
        float | None, typer.Option(metavar="N", help="Write at this pace, asleep in between.  [default: as fast as possible]")
    ] = None,
    session: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Save the text's state in FILE, and resume from it.  [default: none]")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same text.  [default: random]")] = None,
    samples: Annotated[int, typer.Option(help=f"Number of texts, separated by a line {SAMPLE_SEPARATOR}.")] = 1,
    no_echo: Annotated[bool, typer.Option("--no-echo", help="Leave the prompt out of the output.")] = False,
    adapt: Annotated[bool, typer.Option("--adapt", help="Learn from the prompt; a session keeps what was learned.")] = False,
    adapt_rate: ADAPT_RATE = None,
    strict: STRICT = False,
    threads: THREADS = 1,
    interpreter: INTERPRETER = None,
    as_json: JSON = False,
) -> None:
    """Write text, character by character."""
    from .model import load

    if not 1 <= samples <= MAX_SAMPLES:
        raise InvalidOption("samples", f"{samples} must be from 1 to {MAX_SAMPLES:,}.")
    if session is not None and samples > 1:
        raise InvalidOption("session", "keeps one text: leave out `samples`.")
    if prompt_file is not None and (prompt is not None or samples > 1):
        raise InvalidOption("prompt_file", "cannot be given together with `prompt` or `samples`: choose one.")
    for given, option in ((samples > 1, "samples"), (as_json, "json"), (pattern is not None, "pattern")):
        if given and length == 0:
            raise InvalidOption("length", f"0 writes without end, but `{option}` gives whole texts: leave out one of them.")
        if given and characters_per_second is not None:
            raise InvalidOption("characters_per_second", f"cannot pace `{option}`, which gives whole texts: leave out one of them.")
    learning = _learning(adapt, adapt_rate)
    if as_json and no_echo:
        raise InvalidOption("no_echo", "has no effect with `json`, which has the prompt in a field of its own: leave it out.")
    pace = None if characters_per_second is None else Pace(characters_per_second)
    options: dict[str, Any] = {
        "temperature": temperature,
        "top_k": top_k,
        "top_p": top_p,
        "min_p": min_p,
        "repetition_penalty": repetition_penalty,
        "repetition_window": repetition_window,
        "banned": _unescape("banned", banned),
        "logit_bias": _biases(logit_bias or []),
        "stop": [_unescape("stop", text) for text in stop or []],
        "pattern": pattern,
        "end_at": end_at,
        "seed": seed,
        "strict": strict,
        **learning,
    }
    text = _unescape("prompt", prompt or "")
    loaded = load(model, threads, interpreter)
    write = _writer(at_once=sys.stdout.isatty() or pace is not None)
    read: list[str] = []
    echo = read.append if as_json else _nothing if no_echo else write
    if prompt_file is not None and echo is write:
        _require_not_stdout("prompt_file", prompt_file, "write to another file, or give `no_echo`")
    start = time.perf_counter()

    def finish(texts: Sequence[str], saved: SavedText | None = None) -> None:
        if as_json:
            characters, seconds = sum(map(len, texts)), time.perf_counter() - start
            fields = {"texts": texts, "characters": characters, "characters_per_second": round(characters / seconds, 1)}
            adapted = adapt or (saved is not None and saved.adapted)
            fields |= {"adapted": adapted, "seed": seed, "interpreter": loaded.interpreter}
            print_json({"prompt": text if prompt_file is None else "".join(read), **fields})
        elif sys.stdout.isatty():
            write("\n")

    if samples > 1:
        texts = loaded.generate_batch([text] * samples, length, **options)
        if not as_json:
            write(f"\n{SAMPLE_SEPARATOR}\n".join(("" if no_echo else text) + written for written in texts))
        finish(texts)
        return
    source = text if prompt_file is None else _echoing(read_chunks(prompt_file), echo)
    with nullcontext() if session is None else loaded.in_session(session, source, length, **options) as saved:
        pieces = loaded.stream(source, length, **options) if saved is None else iter(saved)
        if prompt_file is None:
            echo(text)
        collected: list[str] = []
        _write_pieces(pieces, collected.append if as_json else write, None if as_json else saved, pace)
        finish(["".join(collected)], saved)
        if saved is not None:
            _hand_over(saved)


def _write_pieces(pieces: Iterator[str], take: Callable[[str], object], saved: SavedText | None, pace: Pace | None = None) -> None:
    """Write the pieces of a text; after the first one, Ctrl-C, SIGTERM and SIGHUP stop between two pieces.

    Args:
        pieces: of the text.
        take: called with each piece.
        saved: the text's session, saved every ten seconds and at the end; it covers what `take` was given. None saves nothing.
        pace: when each piece is written, at once by `take`; None writes as fast as possible.
    """
    on_terminal = sys.stdout.isatty()
    handed_over = on_terminal or (pace is not None and _regular_stdout() is None)  # a file is only after a sync
    piece = next(pieces, None)
    with deferred_interrupts() as request:
        try:
            while piece is not None:
                if pace is not None:
                    pace.wait(len(piece), request.sleep)
                take(piece)
                if saved is not None:
                    if handed_over:
                        saved.handed_over()
                    if saved.due or request.number is not None:
                        _hand_over(saved)
                if request.number is not None:
                    if on_terminal:
                        take("\n")
                    raise Interrupted(request.number)
                piece = next(pieces, None)
            if saved is not None:
                _hand_over(saved)
        except OSError as error:
            closed = on_terminal and error.errno == errno.EIO  # a terminal, whose signal may not have arrived yet
            number = HANGUP if closed and request.number is None else request.number
            if number is None:
                raise
            drop(sys.stdout)
            raise Interrupted(number) from None


def _hand_over(saved: SavedText) -> None:
    """Flush stdout, to the disk if it is a file; then save the session."""
    sys.stdout.flush()
    if (descriptor := _regular_stdout()) is not None:
        os.fsync(descriptor)
    saved.handed_over()
    saved.save()


def _regular_stdout() -> int | None:
    """The descriptor of stdout if it is a regular file; else None."""
    try:
        descriptor = sys.stdout.fileno()
    except OSError:  # stdout was replaced by an object without a file
        return None
    return descriptor if stat.S_ISREG(os.fstat(descriptor).st_mode) else None


def _unescape(option: str, text: str) -> str:
    from .vocabulary import unescape

    try:
        text = text.encode("utf-8", "surrogateescape").decode("utf-8")  # in a locale without UTF-8 Python leaves it undecoded
    except UnicodeError:
        raise InvalidOption(option, "is not UTF-8 text: use a terminal with UTF-8, or escapes such as \\u00E9.") from None
    try:
        return unescape(text)
    except ValueError as error:
        raise InvalidOption(option, f"cannot be read: {error}.") from None


def _biases(entries: Sequence[str]) -> dict[str, float]:
    """The biases by character; the values given for one character are added."""
    biases: dict[str, float] = {}
    for character, value in map(_bias, entries):
        biases[character] = biases.get(character, 0.0) + value
    return biases


def _bias(entry: str) -> tuple[str, float]:
    """`c=1.5` -> ("c", 1.5)."""
    character, _, value = entry.rpartition("=")
    try:
        return _unescape("logit_bias", character), float(value)
    except ValueError:
        raise InvalidOption("logit_bias", f"{entry!r} must be a character, an equals sign and a number, as in 'e=-2'.") from None


def _echoing(chunks: Iterator[str], echo: Callable[[str], object]) -> Iterator[str]:
    """Pass on the pieces of a long prompt, and write each as it is read."""
    for chunk in chunks:
        echo(chunk)
        yield chunk


def _writer(at_once: bool) -> Callable[[str], object]:
    """The function that writes text to stdout: unbuffered, or in blocks."""
    write, flush = sys.stdout.write, sys.stdout.flush
    if not at_once:
        return write

    def write_at_once(text: str) -> None:
        write(text)
        flush()

    return write_at_once


def _nothing(text: str) -> None:
    pass


@app.command()
def info(model: MODEL, as_json: JSON = False) -> None:
    """Show the metadata of a model file."""
    from .model_file import read_model_file

    contents = read_model_file(model)
    manifest = contents.manifest
    size = model.stat().st_size
    if as_json:
        print_json({"file": str(model), "bytes": size, **manifest.to_dict()})
        return
    layers = f"{manifest.cell.upper()} {manifest.layers} x {manifest.units}"
    table = "input table folded" if manifest.input_table_folded else "embedding kept apart"
    rows = [
        ("model", f"{manifest.name}: {layers}, embedding {manifest.embedding_dim}, {manifest.vocabulary_size} tokens"),
        ("file", f"{size:,} bytes, {manifest.quantization}, {table}"),
        ("made by", f"{manifest.created_by}, trained until {manifest.created}, licence {manifest.license}"),
        ("text", f"normalised to {manifest.normalization}, unknown characters: {manifest.unknown}"),
        *(("runs on", place) for place in _places(manifest)),
        *(("temperature", line) for line in _temperature(manifest.logit_temperature)),
        *(("verified", _verified(entry, manifest.logit_temperature)) for entry in manifest.verified),
        *(("training", f"{key.replace('_', ' ')}: {_plain(value)}") for key, value in manifest.training.items()),
        ("vocabulary", _shown_vocabulary(contents.vocabulary)),
    ]
    for label, value in rows:
        print(f"{label:<12} {value.translate(LINE_ESCAPES)}")


def _places(manifest: Manifest) -> Iterator[str]:
    """Where a file may run: on computers, in a browser, on a microcontroller."""
    from .interpreter import INT4, MODULES

    micro = manifest.microcontroller
    yield " or ".join(f"{entry.name} {entry.minimum_version} and later" for entry in manifest.interpreters if entry.name in MODULES)
    if manifest.quantization != INT4:
        yield "a browser, with LiteRT.js, or in the page of `charedge convert --format html`"
    if micro:
        yield f"microcontrollers, with TensorFlow Lite Micro and an arena of {micro.arena_bytes:,} bytes"
    if manifest.quantization in ("int8", "int8-static"):
        yield "microcontrollers, with the step in C that `charedge convert --format c` writes"


def _temperature(temperature: LogitTemperature | None) -> Iterator[str]:
    """What the logits were divided by, and the loss on text that this was not fitted on."""
    if temperature is None:
        return
    fit = temperature.fit
    if fit is None:
        divided = temperature.value != 1
        yield f"logits divided by {temperature.value:.4g}, which was given" if divided else "logits not divided: 1 was given"
        return
    text = f"the first {fit.characters:,} held-out characters"
    if temperature.value == 1:
        yield f"logits not divided: fitted on one half of {text}, no temperature helps on the other half"
        return
    yield f"logits divided by {temperature.value:.4f}, fitted on {text}"
    yield (
        f"{fit.cross_validated_nats_per_character:.4f} nats per character in Keras over them, each half with the temperature "
        f"fitted on the other half ({fit.undivided_nats_per_character:.4f} undivided)"
    )


def _verified(entry: Verified, temperature: LogitTemperature | None) -> str:
    """What conversion measured on one interpreter; the loss itself only on text that the temperature was not fitted on."""
    over = f"over {entry.characters:,} held-out characters on {entry.interpreter} {entry.version}"
    if temperature is not None and temperature.fitted_on_verified:
        return f"{entry.loss:+.4f} nats per character against Keras {over}"
    return f"{entry.nats_per_character:.4f} nats per character ({entry.loss:+.4f} against Keras) {over}"


def _shown_vocabulary(vocabulary: Vocabulary) -> str:
    """The tokens, escaped as in vocabulary.txt, as many as fit on a line or two."""
    tokens = vocabulary.to_bytes().decode().split("\n")[1:-1]
    more = len(tokens) - SHOWN_TOKENS
    return "".join(tokens[:SHOWN_TOKENS]) + (f" and {more:,} more" if more > 0 else "")


def _plain(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_plain(item)}" for key, item in value.items())
    if isinstance(value, list):
        return " ".join([*map(str, value[:LISTED]), *(["and others"] if len(value) > LISTED else [])])
    return f"{value:.4f}" if isinstance(value, float) else str(value)


@app.command()
def verify(
    model: MODEL,
    allowed_signers: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Refuse MODEL unless a signer in FILE (ssh-keygen(1)) has signed it.  [default: none]"),
    ] = None,
    signature: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Signature for --allowed-signers.  [default: MODEL.sig]")
    ] = None,
    threads: THREADS = 1,
    interpreter: INTERPRETER = None,
    as_json: JSON = False,
) -> None:
    """Check that a model file is intact and works on this machine as it did on the workstation."""
    from .interpreter import Step
    from .model_file import read_model_file
    from .scoring import run_probe

    contents, signer = read_model_file(model), None
    if allowed_signers is not None:
        from .signature import check_signature, signature_of

        signer = check_signature(model, signature or signature_of(model), allowed_signers)
    elif signature is not None:
        raise InvalidOption("signature", "has no effect without `allowed_signers`: give both, or leave it out.")
    step = Step.load(contents, threads, interpreter)
    result = run_probe(step, contents)
    difference = result.nats_per_character - result.expected_nats_per_character
    if as_json:
        print_json(
            {
                "passed": result.passed,
                "nats_per_character": result.nats_per_character,
                "expected_nats_per_character": result.expected_nats_per_character,
                "tolerance": result.tolerance,
                "interpreter": str(step.interpreter),
                "signer": signer,
            }
        )
    else:
        print(f"file         {model}: ZIP, manifest and SHA-256 are in order")
        if signer is not None:
            print(f"signed by    {signer}")
        print(f"interpreter  {step.interpreter}")
        print(
            f"probe        {result.nats_per_character:.6f} nats per character, recorded {result.expected_nats_per_character:.6f}, "
            f"difference {difference:+.6f}, allowed {result.tolerance:g}"
        )
        print("verified" if result.passed else "FAILED")
    if not result.passed:
        raise CharedgeError(f"{model} does not work with {step.interpreter} on this machine: convert the run again.")


def _learning(adapt: bool, rate: float | None) -> dict[str, Any]:
    """The arguments of `Model` for --adapt and --adapt-rate.

    Raises:
        InvalidOption: a rate is given, and nothing adapts.
    """
    if rate is None:
        return {"adapt": adapt}
    if not adapt:
        raise InvalidOption("adapt_rate", "has no effect without `adapt`: give both, or leave it out.")
    return {"adapt": adapt, "adapt_rate": rate}


def _require_not_stdout(field: str, file: Path, remedy: str) -> None:
    """
    Raises:
        InvalidOption: stdout appends to the file, so that what is read would never end.
    """
    descriptor = _regular_stdout()
    with suppress(OSError):  # reading it says why
        given = os.fstat(0) if str(file) == "-" else file.stat()
        if descriptor is not None and os.path.samestat(given, os.fstat(descriptor)):
            raise InvalidOption(field, f"{shown_name(file)} is also the output, which would be read as it is written: {remedy}.")


@app.command()
def score(
    model: MODEL,
    file: Annotated[Path, typer.Argument(help="The text; - is stdin.")] = Path("-"),
    lines: Annotated[bool, typer.Option("--lines", help="Score each line separately.")] = False,
    adapt: Annotated[
        bool, typer.Option("--adapt", help="Learn from each character after it was scored, with --lines across lines.")
    ] = False,
    adapt_rate: ADAPT_RATE = None,
    strict: STRICT = False,
    threads: THREADS = 1,
    interpreter: INTERPRETER = None,
    as_json: JSON = False,
) -> None:
    """Measure how well a model predicts a text, in nats and bits per character."""
    from .model import load
    from .scoring import TooShort

    learning = _learning(adapt, adapt_rate)
    loaded = load(model, threads, interpreter)
    if lines:
        _require_not_stdout("file", file, "write to another file")
        _score_lines(file, loaded, strict, learning, as_json)
        return
    start = time.perf_counter()
    try:
        result = loaded.score(_with_progress(read_chunks(file)), strict, **learning)
    except TooShort:
        raise CharedgeError(f"{shown_name(file)} has fewer than two characters that the model knows: give a longer text.") from None
    seconds = time.perf_counter() - start
    if as_json:
        speed = round((result.characters - 1) / seconds, 1)
        print_json({**asdict(result), "characters_per_second": speed, "interpreter": loaded.interpreter})
        return
    print(
        f"{shown_loss(result.nats_per_character)} over {result.characters:,} characters "
        f"({result.skipped_characters:,} skipped), one stream with the state carried{', adapted while reading' if adapt else ''}"
    )


def _with_progress(chunks: Iterator[str]) -> Iterator[str]:
    """Pass on the pieces of a text, and say on stderr every ten seconds how many characters were scored."""
    done, last_line = 0, time.monotonic()
    for chunk in chunks:
        for start in range(0, len(chunk), PROGRESS_CHARACTERS):
            yield chunk[start : start + PROGRESS_CHARACTERS]
            done += min(PROGRESS_CHARACTERS, len(chunk) - start)
            if time.monotonic() - last_line >= PROGRESS_SECONDS:
                say(f"{done:,} characters scored")
                last_line = time.monotonic()


def _score_lines(file: Path, model: Model, strict: bool, learning: dict[str, Any], as_json: bool) -> None:
    """Print for each line of the file its nats per character, a tab and the line; or a JSON object."""
    from .model import UnknownCharacters, about_left_out
    from .scoring import TooShort

    adapt, left_out, number = learning["adapt"], Counter[str](), 0
    score = model.scorer(strict, left_out=left_out, **learning)
    if adapt and not as_json:
        say("adapted while reading: each line is scored by a model that has learned from the lines before it")
    for number, line in enumerate(split_lines(read_chunks(file)), start=1):
        try:
            result = score(line)
        except TooShort:
            result = None
        except CharedgeError as error:
            raise CharedgeError(f"line {number} of {file}: {error}") from None
        if as_json:
            fields = asdict(result) if result else {"nats_per_character": None, "adapted": adapt}
            print(to_json({"line": number, **fields, "text": line}))
        else:
            print(f"{result.nats_per_character:.4f}" if result else "-", line, sep="\t")
    if not number:
        raise CharedgeError(f"{shown_name(file)} has no lines: give a text.")
    if left_out:
        warnings.warn(about_left_out("text", left_out), UnknownCharacters, stacklevel=2)


@app.command()
def bench(
    model: MODEL,
    characters: Annotated[int, typer.Option(help="Characters to generate for each figure.")] = 2000,
    interpreter: INTERPRETER = None,
    as_json: JSON = False,
) -> None:
    """Measure how fast a model file runs on this machine."""
    if not 1 <= characters <= MAX_CHARACTERS:
        raise InvalidOption("characters", f"{characters} must be from 1 to {MAX_CHARACTERS:,}.")
    from .benchmark import run_benchmark

    result = run_benchmark(model, characters, interpreter)
    if as_json:
        print_json(asdict(result))
        return
    print(f"machine        {', '.join(result.machine.values())}")
    print(f"interpreter    {result.interpreter}")
    print(f"load           {result.load_milliseconds:.1f} ms, the probe included")
    median, slowest = result.microseconds_per_character, result.microseconds_per_character_p99
    print(f"per character  {median:.1f} us (median), {slowest:.1f} us (p99)")
    for entry in result.rates:
        rows = "1 text " if entry.rows == 1 else f"{entry.rows} texts"
        threads = "1 thread" if entry.threads == 1 else f"{entry.threads} threads"
        print(f"{rows}        {entry.characters_per_second:,.0f} characters/s on {threads}")
    print(f"peak memory    {result.peak_rss_bytes / 2**20:.1f} MiB")
