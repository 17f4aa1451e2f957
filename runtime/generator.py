"""Text from a model file."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Generator as Pieces
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from .bundled import find_model
from .errors import CharedgeError, InvalidOption
from .interpreter import Step
from .manifest import Manifest
from .model_file import ModelFile, read_model_file
from .pattern import Pattern
from .sampling import MAX_WINDOW, Sampling, random_rows
from .saved_text import SavedText
from .scoring import Score, Scorer, require_probe
from .session import Session, locked, require_place, require_room
from .stopping import StopStrings
from .text import normalize_part, normalized_chunks
from .vocabulary import UNKNOWN_ID, Vocabulary
from .writing import Fed, Plan, write

DEFAULT_LENGTH = 500
MAX_NAMED_CHARACTERS = 10


class UnknownCharacters(UserWarning):
    """A text has characters that the model's vocabulary lacks; they were left out."""


class Generator:
    """A model that generates and scores text. Make one with `Generator.load`; every call starts from a zero state.

    Threads may share it: a lock is held for each step of the model, and every call and stream keeps its own state.
    """

    def __init__(self, file: ModelFile, step: Step) -> None:
        self._file = file
        self._step = step

    @classmethod
    def load(cls, path: str | Path, threads: int = 1, interpreter: str | None = None) -> Generator:
        """Load a model file, in the order of trust: ZIP and manifest, SHA-256, interpreter, shapes, probe.

        Args:
            path: a file made by `charedge convert`, or the name of a model that comes with charedge (`bundled.NAMES`).
            threads: for the interpreter; 1 costs the least processor time, more are faster where cores are idle.
            interpreter: `ai-edge-litert` or `tflite-runtime`; by default the first that is installed and fits.

        Raises:
            CharedgeError: the file is damaged, or it does not work on this machine.
        """
        file = read_model_file(find_model(path))
        step = Step.load(file, threads, interpreter)
        require_probe(step, file)
        return cls(file, step)

    @property
    def manifest(self) -> Manifest:
        """What the file says of itself."""
        return self._file.manifest

    @property
    def vocabulary(self) -> Vocabulary:
        """The characters that the model knows."""
        return self._file.vocabulary

    @property
    def interpreter(self) -> str:
        """The interpreter in use and its version, as in `ai-edge-litert 2.3.0`."""
        return str(self._step.interpreter)

    def generate(self, prompt: str | Iterable[str] = "", length: int = DEFAULT_LENGTH, **options: Any) -> str:
        """Continue a text: the pieces of `stream`, joined. A session is saved when the whole text is there, and not before.

        Returns:
            The new characters, without the prompt.
        """
        session = options.pop("session", None)
        if session is None:
            return "".join(self.stream(prompt, length, **options))
        with self.in_session(session, prompt, length, **options) as text:
            written = "".join(text)
            text.handed_over()
        return written

    def stream(
        self,
        prompt: str | Iterable[str] = "",
        length: int = DEFAULT_LENGTH,
        *,
        seed: int | None = None,
        stop: Sequence[str] = (),
        pattern: str | None = None,
        session: str | Path | None = None,
        strict: bool = False,
        **sampling: Any,
    ) -> Pieces[str, None, None]:
        """Continue a text piece by piece, each piece as soon as it is known to belong to the text.

        Args:
            prompt: what comes before, or an iterable of its pieces, which takes constant memory; without one the model begins
                from its `start_text`.
            length: how many characters to write at most.
            seed: the same seed gives the same text on the same interpreter and kind of machine; None draws a new one.
            stop: strings before the first of which the text ends.
            pattern: a regular expression that the new characters match as a whole; they then come in one piece at the end.
            session: a file that keeps the text's state. If it exists the text continues from there, the prompt being added to
                it, and `seed` has no effect. It is saved when the text ends or is left, and every ten seconds; until then it
                is locked, for this process too. It covers a piece once the next one is asked for or the stream is closed.
            strict: refuse characters outside the vocabulary, rather than leave them out with an `UnknownCharacters` warning.
            **sampling: the fields of `charedge.runtime.Sampling`: temperature, top_k, top_p, min_p, repetition_penalty, ...

        Raises:
            InvalidOption: an argument cannot be; raised by the call, before the first piece is asked for.
            CharedgeError: `strict`, and the prompt has unknown characters; the pattern cannot be matched; the session cannot
                be read or written, or another text is being written in it, which the call raises.
        """
        if session is not None:
            options = {"seed": seed, "stop": stop, "pattern": pattern, "strict": strict, **sampling}
            pieces = self._saved_pieces(session, prompt, length, options)
            next(pieces)  # locks and reads the session
            return pieces
        plan = self._plan(1, length, seed, stop, pattern, sampling)
        return self._pieces(plan, self._prompt_ids(prompt, strict))

    @contextmanager
    def in_session(
        self,
        session: str | Path,
        prompt: str | Iterable[str] = "",
        length: int = DEFAULT_LENGTH,
        *,
        seed: int | None = None,
        stop: Sequence[str] = (),
        pattern: str | None = None,
        strict: bool = False,
        **sampling: Any,
    ) -> Iterator[SavedText]:
        """Continue a text as `stream` does, for a caller that reports itself how much has been handed over.

        The session is locked until the block is left, which saves what was handed over.

        Raises:
            InvalidOption, CharedgeError: as `stream`.
        """
        plan = self._plan(1, length, seed, stop, pattern, sampling)
        ids = self._prompt_ids(prompt, strict)
        path, sha256, size = Path(session), self.manifest.flatbuffer_sha256, self._step.state_size
        require_place(path)
        with locked(path):
            begun = Session.load(path, sha256, size, len(self.vocabulary)) if path.exists() else None
            require_room(path, size)
            if begun is not None:
                plan = replace(plan, start=begun.position)
            text = SavedText(self._step, self.vocabulary, sha256, path, plan, lambda: self._feed_session(begun, ids))
            try:
                yield text
            finally:
                text.save()

    def generate_batch(
        self,
        prompts: Sequence[str],
        length: int = DEFAULT_LENGTH,
        *,
        seed: int | None = None,
        stop: Sequence[str] = (),
        pattern: str | None = None,
        strict: bool = False,
        **sampling: Any,
    ) -> list[str]:
        """Continue several texts in one step loop: as `generate` for each, row k drawing from `SeedSequence(seed).spawn(N)[k]`."""
        if not prompts:
            return []
        plan = self._plan(len(prompts), length, seed, stop, pattern, sampling)
        ids = {prompt: self._prompt_ids(prompt, strict) for prompt in prompts}
        fed = {prompt: self._feed(ids[prompt]) for prompt in ids}
        texts = [""] * len(prompts)
        for row, piece in write(self._step, self.vocabulary.tokens, plan, [fed[prompt] for prompt in prompts]):
            texts[row] += piece
        return texts

    def score(self, text: str | Iterable[str], strict: bool = False) -> Score:
        """How well the model predicts a text, from a zero state.

        Args:
            text: the text, or an iterable of its pieces, which takes constant memory.
            strict: refuse characters outside the vocabulary, rather than leave them out with an `UnknownCharacters` warning.

        Raises:
            CharedgeError: fewer than two known characters are left to score, or `strict` and there are unknown ones.
        """
        scorer, unknown = Scorer(self._step), Counter[str]()
        for ids in self._encode(text, "the text", strict, unknown):
            scorer.add(ids)
        return scorer.score(skipped=unknown.total() if self.manifest.unknown == "skip" else 0)

    def _plan(
        self, rows: int, length: int, seed: int | None, stop: Sequence[str], pattern: str | None, sampling: dict[str, Any]
    ) -> Plan:
        """
        Raises:
            InvalidOption: an argument cannot be.
        """
        if length < 1:
            raise InvalidOption(f"--length {length} must be at least 1.")
        form = self.manifest.normalization
        stop = [normalize_part(text, form) for text in ([stop] if isinstance(stop, str) else stop)]
        StopStrings(stop)
        controls = Sampling(**sampling)
        return Plan(
            length=length,
            sampling=controls,
            bias=controls.bias(self.vocabulary, form),
            randoms=random_rows(seed, rows),
            stop=stop,
            pattern=None if pattern is None else Pattern(pattern, form),
        )

    def _pieces(self, plan: Plan, ids: Iterable[np.ndarray]) -> Pieces[str, None, None]:
        yield from (piece for _, piece in write(self._step, self.vocabulary.tokens, plan, [self._feed(ids)]))

    def _saved_pieces(
        self, session: str | Path, prompt: str | Iterable[str], length: int, options: dict[str, Any]
    ) -> Pieces[str, None, None]:
        """An empty piece once the session is locked and read, then those of the text."""
        with self.in_session(session, prompt, length, **options) as text:
            yield ""
            for piece in text:
                try:
                    yield piece
                except GeneratorExit:
                    text.handed_over()
                    raise
                text.handed_over()
                if text.due:
                    text.save()
            text.handed_over()

    def _feed_session(self, session: Session | None, ids: Iterable[np.ndarray]) -> Fed:
        """The model after a session and a prompt."""
        if session is None:
            return self._feed(ids)
        logits, state = self._step(np.array([session.token], np.int32), session.state)
        return self._feed_on(Fed(logits, state, self.vocabulary.encode(session.tail)), ids)

    def _prompt_ids(self, prompt: str | Iterable[str], strict: bool) -> Iterable[np.ndarray]:
        """The ids of a prompt; of a string at once, so that what is wrong with it is known before anything is written."""
        ids = self._encode(prompt, "the prompt", strict, Counter())
        return list(ids) if isinstance(prompt, str) else ids

    def _feed(self, ids: Iterable[np.ndarray]) -> Fed:
        """The model after a prompt, from zeros; after the start text where nothing of the prompt is known."""
        nothing = Fed(self._step.empty_logits(), self._step.zeros(), np.empty(0, np.int32))
        fed = self._feed_on(nothing, ids)
        return fed if len(fed.recent) else self._feed_on(nothing, self._prompt_ids(self.manifest.start_text, strict=True))

    def _feed_on(self, fed: Fed, chunks: Iterable[np.ndarray]) -> Fed:
        """The model after some more text."""
        logits, state, recent = fed.logits.copy(), fed.state.copy(), fed.recent
        advance = self._step.advance
        for ids in chunks:
            for token in ids.reshape(-1, 1):
                advance(token, state, logits)
            recent = np.concatenate([recent, ids])[-MAX_WINDOW:]
        return Fed(logits, state, recent)

    def _encode(self, text: str | Iterable[str], what: str, strict: bool, unknown: Counter[str]) -> Iterator[np.ndarray]:
        """The ids of a text, piece by piece, normalised first; unknown characters are id 0 or left out, as the model was trained.

        They are counted in `unknown` and, in the end, named in one warning.
        """
        for chunk in normalized_chunks([text] if isinstance(text, str) else text, self.manifest.normalization):
            ids = self.vocabulary.encode(chunk)
            if self.manifest.unknown == "skip" and not ids.all():
                unknown.update(chunk[i] for i in np.flatnonzero(ids == UNKNOWN_ID))
                if strict:
                    raise CharedgeError(
                        f"{what} has characters that the model does not know: {_names(unknown)}; leave them out, or drop --strict."
                    )
                ids = ids[ids != UNKNOWN_ID]
            yield ids
        if unknown:
            sentence = f"{what} has characters that the model does not know: {_names(unknown)}; they are left out."
            warnings.warn(sentence, UnknownCharacters, stacklevel=2)


def _names(unknown: Counter[str]) -> str:
    """The unknown characters, the most frequent first: `'é' U+00E9 (3 times)`."""
    names = []
    for character, count in unknown.most_common(MAX_NAMED_CHARACTERS):
        shown = f"{character!r} " if character.isprintable() else ""
        names.append(f"{shown}U+{ord(character):04X} ({count} {'time' if count == 1 else 'times'})")
    more = len(unknown) - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")
