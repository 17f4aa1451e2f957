"""Text from a model file."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from .errors import CharedgeError, InvalidOption
from .interpreter import Step
from .package import Manifest, Package, read_package
from .sampling import Sampler, random_rows
from .scoring import Score, require_probe, score_ids, to_bits
from .text import normalize
from .vocabulary import UNKNOWN_ID, Vocabulary, escape

DEFAULT_LENGTH = 500
DEFAULT_TEMPERATURE = 0.8
MAX_NAMED_CHARACTERS = 10


class UnknownCharacters(UserWarning):
    """A text has characters that the model's vocabulary lacks; they were left out."""


class Generator:
    """A model that generates and scores text. Make one with `Generator.load`; every call starts from a zero state."""

    def __init__(self, package: Package, step: Step) -> None:
        self._package = package
        self._step = step

    @classmethod
    def load(cls, path: str | Path, threads: int = 1, interpreter: str | None = None) -> Generator:
        """Load a model file, in the order of trust: ZIP and manifest, SHA-256, interpreter, shapes, probe.

        Args:
            path: a file made by `charedge convert`.
            threads: for the interpreter; 1 is the fastest for one text.
            interpreter: `ai-edge-litert` or `tflite-runtime`; by default the first that is installed and fits.

        Raises:
            CharedgeError: the file is damaged, or it does not work on this machine.
        """
        package = read_package(path)
        step = Step(package, threads, interpreter)
        require_probe(step, package)
        return cls(package, step)

    @property
    def manifest(self) -> Manifest:
        """What the file says of itself."""
        return self._package.manifest

    @property
    def vocabulary(self) -> Vocabulary:
        return self._package.vocabulary

    @property
    def interpreter(self) -> str:
        """The interpreter in use and its version, as in `ai-edge-litert 2.3.0`."""
        return str(self._step.interpreter)

    def generate(
        self,
        prompt: str = "",
        length: int = DEFAULT_LENGTH,
        temperature: float = DEFAULT_TEMPERATURE,
        seed: int | None = None,
        strict: bool = False,
    ) -> str:
        """Continue a text.

        Args:
            prompt: what comes before; without one the model begins from its `start_text`.
            length: how many characters to write.
            temperature: below 1 safer, above 1 wilder; 0 takes the likeliest character always.
            seed: the same seed gives the same text on the same interpreter and kind of machine; None draws a new one.
            strict: refuse characters outside the vocabulary, rather than leave them out with an `UnknownCharacters` warning.

        Returns:
            The new characters, without the prompt.

        Raises:
            InvalidOption: an argument cannot be.
            CharedgeError: `strict`, and the prompt has unknown characters.
        """
        return "".join(self.stream(prompt, length, temperature, seed, strict))

    def stream(
        self,
        prompt: str = "",
        length: int = DEFAULT_LENGTH,
        temperature: float = DEFAULT_TEMPERATURE,
        seed: int | None = None,
        strict: bool = False,
    ) -> Iterator[str]:
        """Continue a text piece by piece: as `generate`, but each piece comes as soon as it is made."""
        tokens = self.vocabulary.tokens
        return (tokens[ids[0]] for ids in self._rows([prompt], length, temperature, seed, strict))

    def generate_batch(
        self,
        prompts: Sequence[str],
        length: int = DEFAULT_LENGTH,
        temperature: float = DEFAULT_TEMPERATURE,
        seed: int | None = None,
        strict: bool = False,
    ) -> list[str]:
        """Continue several texts in one step loop: as `generate` for each, row k drawing from `SeedSequence(seed).spawn(N)[k]`."""
        if not prompts:
            return []
        steps = list(self._rows(prompts, length, temperature, seed, strict))
        return [self.vocabulary.decode(row) for row in np.stack(steps, axis=1)]

    def score(self, text: str, strict: bool = False) -> Score:
        """How well the model predicts a text, from a zero state.

        Raises:
            CharedgeError: fewer than two known characters are left to score, or `strict` and there are unknown ones.
        """
        ids = self._encode(text, "the text", strict)
        if len(ids) < 2:
            raise CharedgeError("the text has fewer than two characters that the model knows: give a longer one.")
        nats = score_ids(self._step, ids)
        skipped = len(normalize(text, self.manifest.normalization)) - len(ids)
        return Score(nats, to_bits(nats), len(ids), skipped)

    def _rows(
        self, prompts: Sequence[str], length: int, temperature: float, seed: int | None, strict: bool
    ) -> Iterator[np.ndarray]:
        """Check the arguments at once; then, step by step, the next token of every row: int32 [rows]."""
        if length < 1:
            raise InvalidOption(f"--length {length} must be at least 1.")
        sampler = Sampler(len(self.vocabulary), temperature, random_rows(seed, len(prompts)))
        encoded = {prompt: self._encode(prompt, "the prompt", strict) for prompt in prompts}
        start = self._encode(self.manifest.start_text, "the start text", strict=True)
        return self._loop([encoded[prompt] if len(encoded[prompt]) else start for prompt in prompts], length, sampler)

    def _loop(self, prompts: list[np.ndarray], length: int, sampler: Sampler) -> Iterator[np.ndarray]:
        """Feed each distinct prompt once, then step all rows together."""
        fed = {ids.tobytes(): self._feed(ids) for ids in prompts}
        logits = np.concatenate([fed[ids.tobytes()][0] for ids in prompts])  # [rows, V]
        state = np.concatenate([fed[ids.tobytes()][1] for ids in prompts])  # [rows, S]
        for remaining in range(length - 1, -1, -1):
            tokens = sampler(logits)
            yield tokens
            if remaining:
                logits, state = self._step(tokens, state)

    def _feed(self, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The logits [1, V] and the state [1, S] after a prompt."""
        logits, state = np.zeros((1, len(self.vocabulary)), np.float32), self._step.zeros()
        for token in ids.reshape(-1, 1):
            logits, state = self._step(token, state)
        return logits, state

    def _encode(self, text: str, what: str, strict: bool) -> np.ndarray:
        """The ids of a text, normalised first; unknown characters are id 0 or left out, as the model was trained."""
        text = normalize(text, self.manifest.normalization)
        ids = self.vocabulary.encode(text)
        unknown = ids == UNKNOWN_ID
        if self.manifest.unknown == "unk" or not unknown.any():
            return ids
        sentence = f"{what} has characters that the model does not know: {_names(text, unknown)}"
        if strict:
            raise CharedgeError(f"{sentence}; leave them out, or drop --strict.")
        warnings.warn(f"{sentence}; they are left out.", UnknownCharacters, stacklevel=4)
        return ids[~unknown]


def _names(text: str, unknown: np.ndarray) -> str:
    """The unknown characters of a text, the most frequent first: `'é' U+00E9 (3 times)`."""
    counts = Counter(text[i] for i in np.flatnonzero(unknown))
    names = []
    for character, count in counts.most_common(MAX_NAMED_CHARACTERS):
        shown = escape(character) if character.isprintable() else ""
        names.append(f"{shown!r} U+{ord(character):04X} ({count} {'time' if count == 1 else 'times'})".removeprefix("'' "))
    more = len(counts) - len(names)
    return ", ".join(names) + (f" and {more} more" if more > 0 else "")
