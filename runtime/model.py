"""Text from a model file."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from numbers import Integral

import numpy as np

from .adaptation import DEFAULT_RATE, Learned, Learner, checked_rate, hidden_columns, matrix_bytes
from .boundaries import Boundary, require_boundary
from .bundled import DEFAULT, find_model
from .errors import CharedgeError, InvalidOption
from .interpreter import Step
from .manifest import Manifest
from .model_file import ModelFile, read_model_file
from .pace import Pace, paced
from .paths import StrPath, path_argument
from .pattern import MATCH_SECONDS, Pattern
from .sampling import Sampling, random_rows
from .saved_text import SavedText
from .scoring import Score, Scorer, require_probe
from .session import Session, locked, require_place, require_room
from .step_loop import Fed, Plan, Reader, write
from .stopping import StopStrings
from .text import normalize_part, normalized_chunks
from .vocabulary import UNKNOWN_ID, Vocabulary

DEFAULT_LENGTH = 500
MAX_NAMED_CHARACTERS = 10


class UnknownCharacters(UserWarning):
    """A text has characters that the model's vocabulary lacks; they were left out."""


def load(path: StrPath = DEFAULT, threads: int = 1, interpreter: str | None = None) -> Model:
    """Load a model file and check it: ZIP and manifest, SHA-256, interpreter, shapes, probe.

    Args:
        path: a file made by `charedge.convert`, or the name of a model that comes with charedge: `shakespeare` or
            `shakespeare-tiny`; by default the first of these.
        threads: threads of the interpreter; 1 uses the least processor time, more are faster if cores are idle.
        interpreter: `ai-edge-litert` or `tflite-runtime`; by default the first that is installed and fits.

    Returns:
        The model, ready to generate and score text.

    Raises:
        InvalidOption: an argument has an invalid value.
        CharedgeError: the file is damaged, or it does not work on this machine.
    """
    file = read_model_file(find_model(path_argument("path", path)))
    step = Step.load(file, threads, interpreter)
    require_probe(step, file)
    return Model(file, step)


class Model:
    """A loaded model, which generates and scores text; every call starts from a zero state.

    Threads may share it: a lock is held for each step of the model, and every call and stream keeps its own state.
    """

    def __init__(self, file: ModelFile, step: Step) -> None:
        """
        Args:
            file: the model file.
            step: from `Step.load`.
        """
        self.file, self.step = file, step

    @property
    def manifest(self) -> Manifest:
        """The manifest of the model file."""
        return self.file.manifest

    @property
    def vocabulary(self) -> Vocabulary:
        """The characters that the model knows."""
        return self.file.vocabulary

    @property
    def interpreter(self) -> str:
        """The interpreter in use and its version, for example `ai-edge-litert 2.3.0`."""
        return str(self.step.interpreter)

    def generate(
        self,
        prompt: str | Iterable[str] = "",
        length: int = DEFAULT_LENGTH,
        *,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        repetition_window: int = 64,
        banned: str = "",
        logit_bias: Mapping[str, float] | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        pattern: str | None = None,
        end_at: Boundary | None = None,
        session: StrPath | None = None,
        strict: bool = False,
        adapt: bool = False,
        adapt_rate: float = DEFAULT_RATE,
    ) -> str:
        """Continue a text: the pieces of `stream`, joined. A session is saved when the text is complete, not earlier.

        Args:
            prompt, length, ...: as for `stream`; the length cannot be 0.

        Returns:
            The new characters, without the prompt.

        Raises:
            InvalidOption, CharedgeError: as `stream`.
        """
        controls = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, repetition_window, banned, logit_bias or {})
        plan = self.plan(1, _finite(length), controls, seed, stop, pattern, end_at)
        rate = checked_rate(adapt, adapt_rate, self.manifest)
        ids = self._prompt_ids(prompt, strict)
        if session is None:
            return "".join(self._pieces(plan, ids, rate))
        with self._saved_text(session, plan, ids, rate) as text:
            written = "".join(text)
            text.handed_over()
        return written

    def stream(
        self,
        prompt: str | Iterable[str] = "",
        length: int = DEFAULT_LENGTH,
        *,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        repetition_window: int = 64,
        banned: str = "",
        logit_bias: Mapping[str, float] | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        pattern: str | None = None,
        end_at: Boundary | None = None,
        characters_per_second: float | None = None,
        session: StrPath | None = None,
        strict: bool = False,
        adapt: bool = False,
        adapt_rate: float = DEFAULT_RATE,
    ) -> Generator[str, None, None]:
        """Continue a text piece by piece, each piece as soon as it is known to belong to the text.

        Args:
            prompt: the text to continue, or an iterable of its pieces, which takes constant memory; without one the model
                starts from its `start_text`.
            length: maximum number of characters to write, or with `end_at` the minimum; 0 writes without end, in constant memory.
            temperature: below 1 the text is safer, above 1 more varied; 0 takes the most likely character.
            top_k: keep the k most likely characters; 0 is off.
            top_p: keep the most likely characters of this total probability; 1 is off.
            min_p: keep characters at least this fraction as likely as the top one; 0 is off.
            repetition_penalty: make the characters of the last `repetition_window` less likely; 1 is off.
            repetition_window: number of recent characters, at most 1024.
            banned: characters that are never written.
            logit_bias: values to add to the logits of characters.
            seed: the same seed gives the same text on the same interpreter and kind of machine; None draws a new one.
            stop: one or several strings; the text ends before the first that occurs.
            pattern: a regular expression that the new characters match as a whole; they then come in one piece at the end.
            end_at: end after the next `sentence`, `line` or `paragraph` that is complete at `length` characters or later; if the
                model writes none, the text ends 2,000 characters after `length`.
            characters_per_second: a pace, from 0.001 to 1,000,000: the stream sleeps until a piece is due; by default never.
            session: a file that stores the text's state. If it exists, the text continues from there with the prompt added, and
                `seed` has no effect. It is saved every ten seconds, and when the text ends or the stream is closed; until then
                it is locked, for this process too. It covers a piece once the next one is requested or the stream is closed.
            strict: refuse characters outside the vocabulary, instead of leaving them out with an `UnknownCharacters` warning.
            adapt: learn from the prompt while it is read, never from what the model writes. A session keeps what was learned; a
                call without `adapt` uses it and learns nothing more.
            adapt_rate: the learning rate of `adapt`: above 0, at most 1.

        Raises:
            InvalidOption: an argument has an invalid value; raised by the call, before the first piece is requested.
            CharedgeError: the prompt has unknown characters and `strict` is set; the pattern cannot be matched; or, raised by the
                call, the session cannot be read or written, or another text is being written in it.
        """
        controls = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, repetition_window, banned, logit_bias or {})
        plan = self.plan(1, length, controls, seed, stop, pattern, end_at)
        pace = None if characters_per_second is None else Pace(characters_per_second)
        if pace is not None and pattern is not None:
            raise InvalidOption("characters_per_second", "cannot pace a `pattern`, whose text comes in one piece: leave out one.")
        rate = checked_rate(adapt, adapt_rate, self.manifest)
        ids = self._prompt_ids(prompt, strict)
        if session is None:
            return self._pieces(plan, ids, rate, pace)
        pieces = self._saved_pieces(session, plan, ids, rate, pace)
        next(pieces)  # locks and reads the session
        return pieces

    @contextmanager
    def in_session(
        self,
        session: StrPath,
        prompt: str | Iterable[str] = "",
        length: int = DEFAULT_LENGTH,
        *,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        repetition_window: int = 64,
        banned: str = "",
        logit_bias: Mapping[str, float] | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        pattern: str | None = None,
        end_at: Boundary | None = None,
        strict: bool = False,
        adapt: bool = False,
        adapt_rate: float = DEFAULT_RATE,
    ) -> Iterator[SavedText]:
        """Continue a text as `stream` does, for a caller that reports how much of it was delivered.

        The session is locked in the block; at its end, what was delivered is saved.

        Args:
            session, prompt, length, ...: as for `stream`.

        Raises:
            InvalidOption, CharedgeError: as `stream`.
        """
        controls = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, repetition_window, banned, logit_bias or {})
        plan = self.plan(1, length, controls, seed, stop, pattern, end_at)
        rate = checked_rate(adapt, adapt_rate, self.manifest)
        with self._saved_text(session, plan, self._prompt_ids(prompt, strict), rate) as text:
            yield text

    def generate_batch(
        self,
        prompts: Sequence[str],
        length: int = DEFAULT_LENGTH,
        *,
        temperature: float = 0.8,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        repetition_penalty: float = 1.0,
        repetition_window: int = 64,
        banned: str = "",
        logit_bias: Mapping[str, float] | None = None,
        seed: int | None = None,
        stop: str | Sequence[str] = (),
        pattern: str | None = None,
        end_at: Boundary | None = None,
        strict: bool = False,
        adapt: bool = False,
        adapt_rate: float = DEFAULT_RATE,
    ) -> list[str]:
        """Continue several texts in one step loop.

        Args:
            prompts: the texts to continue; row k of N draws from `numpy.random.SeedSequence(seed).spawn(N)[k]`. With `adapt`, each
                learns from its own prompt.
            length, ...: as for `generate`.

        Returns:
            The new characters for each prompt; those of row 0 are what `generate` gives with the same seed.

        Raises:
            InvalidOption, CharedgeError: as `stream`.
        """
        if isinstance(prompts, str):
            raise InvalidOption("prompts", "is one text: give a list of texts, as in [text].")
        controls = Sampling(temperature, top_k, top_p, min_p, repetition_penalty, repetition_window, banned, logit_bias or {})
        plan = self.plan(len(prompts), _finite(length), controls, seed, stop, pattern, end_at)
        rate = checked_rate(adapt, adapt_rate, self.manifest, texts=len(set(prompts)))
        if not prompts:
            return []
        fed = {prompt: self._feed(self._prompt_ids(prompt, strict), rate) for prompt in dict.fromkeys(prompts)}
        texts = [""] * len(prompts)
        for row, piece in write(self.step, self.vocabulary.tokens, plan, [fed[prompt] for prompt in prompts]):
            texts[row] += piece
        return texts

    def score(
        self, text: str | Iterable[str], strict: bool = False, *, adapt: bool = False, adapt_rate: float = DEFAULT_RATE
    ) -> Score:
        """Measure how well the model predicts a text, from a zero state.

        Args:
            text: the text, or an iterable of its pieces, which takes constant memory.
            strict: refuse characters outside the vocabulary, instead of leaving them out with an `UnknownCharacters` warning.
            adapt: learn from each character after it was scored.
            adapt_rate: the learning rate of `adapt`: above 0, at most 1.

        Returns:
            The mean loss in nats and in bits per character, and how many characters it is over.

        Raises:
            InvalidOption: an argument has an invalid value.
            CharedgeError: the text has fewer than two known characters; or it has unknown ones and `strict` is set.
        """
        return self.scorer(strict, adapt=adapt, adapt_rate=adapt_rate)(text)

    def scorer(
        self,
        strict: bool = False,
        *,
        adapt: bool = False,
        adapt_rate: float = DEFAULT_RATE,
        left_out: Counter[str] | None = None,
    ) -> Callable[[str | Iterable[str]], Score]:
        """A function that scores one text after another, such as the lines of a log: each as `score` does, from a zero state.

        With `adapt`, what was learned from a text is used for the texts after it; the function is then for one thread at a time.

        Args:
            strict, adapt, adapt_rate: as for `score`.
            left_out: counts the characters that are left out of all texts; by default, there is a warning for each text.

        Returns:
            A function of a text, which returns its score and raises what `score` raises.

        Raises:
            InvalidOption: an argument has an invalid value.
        """
        learner = self.learner(checked_rate(adapt, adapt_rate, self.manifest))

        def score(text: str | Iterable[str]) -> Score:
            scorer, unknown = Scorer(self.step, learner=learner), Counter[str]()
            encode = self._encode if left_out is None else self.encode
            for ids in encode(text, "text", strict, unknown):
                scorer.add(ids)
            if left_out is not None:
                left_out.update(unknown)
            return scorer.score(skipped=unknown.total() if self.manifest.unknown == "skip" else 0)

        return score

    def learner(self, rate: float | None, start: Learned | None = None) -> Learner | None:
        """What learns from a text that is read, after what was learned before; None if the model does not adapt."""
        if rate is None and start is None:
            return None
        return Learner(self.step.advance, start or Learned.nothing(self.manifest), rate or 0.0)

    def plan(
        self,
        rows: int,
        length: int,
        controls: Sampling,
        seed: int | None,
        stop: str | Sequence[str],
        pattern: str | None,
        end_at: str | None,
        pattern_seconds: float = MATCH_SECONDS,
    ) -> Plan:
        """Check the options of texts, and convert them to the model's Unicode form.

        Args:
            rows: number of texts.
            pattern_seconds: the most time for the matches of one character.
            length, ...: as for `stream`.

        Raises:
            InvalidOption: an argument has an invalid value.
        """
        if not isinstance(length, Integral) or length < 0:
            raise InvalidOption("length", f"{length!r} must be an integer from 1 up, or 0 for a text without end.")
        for option, value in (("pattern", pattern), ("end_at", end_at)):
            if length == 0 and value is not None:
                raise InvalidOption("length", f"0 writes without end, but `{option}` ends the text: leave out one of them.")
        if pattern is not None and end_at is not None:
            raise InvalidOption("end_at", "cannot be given together with `pattern`, which ends the text itself: leave out one.")
        form = self.manifest.normalization
        stops = [stop] if isinstance(stop, str) else list(stop)
        if not all(isinstance(text, str) for text in stops):
            raise InvalidOption("stop", f"{stop!r} must be a text, or a list of texts.")
        stops = [normalize_part(text, form) for text in stops]
        StopStrings(stops)
        bias = controls.bias(self.vocabulary, form)
        return Plan(
            length=int(length),
            sampling=controls,
            bias=bias,
            randoms=random_rows(seed, rows),
            stop=stops,
            pattern=None if pattern is None else Pattern(pattern, form, pattern_seconds),
            end_at=None if end_at is None else require_boundary(end_at, self._writable(bias)),
        )

    def _writable(self, bias: np.ndarray) -> Iterator[str]:
        """The characters that a model writes with a bias: float32 [V], -inf for those that it does not."""
        return (self.vocabulary.tokens[i] for i in np.flatnonzero(np.isfinite(bias)))

    def _pieces(
        self, plan: Plan, ids: Iterable[np.ndarray], rate: float | None, pace: Pace | None = None
    ) -> Generator[str, None, None]:
        pieces = (piece for _, piece in write(self.step, self.vocabulary.tokens, plan, [self._feed(ids, rate)]))
        yield from paced(pieces, pace)

    @contextmanager
    def _saved_text(self, session: StrPath, plan: Plan, ids: Iterable[np.ndarray], rate: float | None) -> Iterator[SavedText]:
        """A text in a session, which is locked in the block and saved at its end."""
        path, sha256, size = path_argument("session", session), self.manifest.flatbuffer_sha256, self.step.state_size
        require_place(path)
        with locked(path):
            hidden = hidden_columns(self.manifest)
            saved = Session.load(path, sha256, size, len(self.vocabulary), hidden) if path.exists() else None
            adapts = rate is not None or (saved is not None and saved.learned is not None)
            require_room(path, size, matrix_bytes(self.manifest) if adapts else 0)
            if saved is not None:
                plan = replace(plan, start=saved.position)
            text = SavedText(self.step, self.vocabulary, sha256, path, plan, lambda: self._feed(ids, rate, saved))
            try:
                yield text
            finally:
                text.save()

    def _saved_pieces(
        self, session: StrPath, plan: Plan, ids: Iterable[np.ndarray], rate: float | None, pace: Pace | None
    ) -> Generator[str, None, None]:
        """An empty piece as soon as the session is locked and read, then the pieces of the text."""
        with self._saved_text(session, plan, ids, rate) as text:
            yield ""
            for piece in paced(text, pace):
                try:
                    yield piece
                except GeneratorExit:
                    text.handed_over()
                    raise
                text.handed_over()
                if text.due:
                    text.save()
            text.handed_over()

    def _prompt_ids(self, prompt: str | Iterable[str], strict: bool) -> Iterable[np.ndarray]:
        """The ids of a prompt; a string is encoded at once, so that errors come before any text."""
        ids = self._encode(prompt, "prompt", strict, Counter())
        return list(ids) if isinstance(prompt, str) else ids

    def _feed(self, ids: Iterable[np.ndarray], rate: float | None, session: Session | None = None) -> Fed:
        """The model after a prompt, starting from zeros or from a session; after the start text if the prompt is empty.

        Args:
            ids: of the prompt, piece by piece.
            rate: at which the model learns from the prompt; None learns nothing.
            session: the text before the prompt.
        """
        reader = self.reader(rate, session)
        for chunk in ids:
            reader.read(chunk)
        fed = reader.fed()
        if rate is not None and fed.learned is not None and not fed.learned.characters:
            message = "`adapt` has learned nothing: the prompt has fewer than two characters that the model knows."
            warnings.warn(message, stacklevel=_callers_level())
        return fed if len(fed.recent) else self.start()

    def reader(
        self, rate: float | None, session: Session | None = None, observe: Callable[[np.ndarray, int], None] | None = None
    ) -> Reader:
        """What reads a prompt, from a zero state or after the text of a session.

        Args:
            rate: at which the model learns from the prompt; None learns nothing.
            session: the text before the prompt.
            observe: as for `Reader`.
        """
        if session is None:
            return Reader(self.step, None, self.learner(rate), observe)
        logits, state = self.step(np.array([session.token], np.int32), session.state)
        if session.learned is not None:
            session.learned.add(logits[0], state[0])
        before = Fed(logits, state, self.vocabulary.encode(session.tail))
        return Reader(self.step, before, self.learner(rate, session.learned), observe)

    def start(self) -> Fed:
        """The model after its start text."""
        reader = Reader(self.step)
        for ids in self._encode(self.manifest.start_text, "start_text", strict=True, unknown=Counter()):
            reader.read(ids)
        return reader.fed()

    def _encode(self, text: str | Iterable[str], what: str, strict: bool, unknown: Counter[str]) -> Iterator[np.ndarray]:
        """Encode a text as `encode` does; the characters that are left out are named in one warning at the end."""
        yield from self.encode(text, what, strict, unknown)
        if unknown:
            warnings.warn(about_left_out(what, unknown), UnknownCharacters, stacklevel=_callers_level())

    def encode(self, text: str | Iterable[str], what: str, strict: bool, unknown: Counter[str]) -> Iterator[np.ndarray]:
        """Normalise and encode a text piece by piece; unknown characters become id 0 or are left out, as in training.

        Args:
            text: the text, or an iterable of its pieces.
            what: the name of the text in errors.
            strict: refuse characters that would be left out.
            unknown: counts those that are left out.

        Yields:
            Token ids: int32 [any].

        Raises:
            InvalidOption: the text is not a text.
            CharedgeError: it has unknown characters and `strict` is set.
        """
        if not isinstance(text, (str, Iterable)):
            raise InvalidOption(what, f"{text!r} must be a text, or an iterable of texts.")
        chunks = normalized_chunks([text] if isinstance(text, str) else text, self.manifest.normalization)
        for chunk in chunks:
            ids = self.vocabulary.encode(chunk)
            if self.manifest.unknown == "skip" and not ids.all():
                unknown.update(chunk[i] for i in np.flatnonzero(ids == UNKNOWN_ID))
                if strict:
                    rest = chunks if isinstance(text, str) else ()
                    for part in rest:
                        unknown.update(part[i] for i in np.flatnonzero(self.vocabulary.encode(part) == UNKNOWN_ID))
                    names = _names(unknown)
                    raise CharedgeError(
                        f"the {what} has characters that the model does not know: {names}; remove them, or leave out `strict`."
                    )
                ids = ids[ids != UNKNOWN_ID]
            yield ids


def about_left_out(what: str, unknown: Counter[str]) -> str:
    """The sentence about the characters of a text that were left out."""
    return f"the {what} has characters that the model does not know: {_names(unknown)}; they are left out."


def _finite(length: int) -> int:
    """A length, for texts that are returned as a whole.

    Raises:
        InvalidOption: it is 0.
    """
    if length == 0:
        raise InvalidOption("length", "0 writes without end, which only `stream` and `in_session` can do: give a number from 1 up.")
    return length


def _callers_level() -> int:
    """The `stacklevel` for `warnings.warn` that points at the caller's line, outside this package."""
    frame, level = sys._getframe(1), 1
    while frame.f_back is not None and frame.f_globals.get("__package__") == __package__:
        frame, level = frame.f_back, level + 1
    return level


def _names(unknown: Counter[str]) -> str:
    """The unknown characters, the most frequent first: `'é' U+00E9 (3 times)`."""
    names = []
    for character, count in unknown.most_common(MAX_NAMED_CHARACTERS):
        shown = f"{character!r} " if character.isprintable() else ""
        names.append(f"{shown}U+{ord(character):04X} ({count} {'time' if count == 1 else 'times'})")
    more = len(unknown) - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")
