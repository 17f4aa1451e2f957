"""Vocabularies: characters and their ids, and the file `vocabulary.txt` that lists them."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .errors import CharedgeError

UNKNOWN = "[UNK]"
UNKNOWN_ID = 0

ESCAPES = {"\n": r"\n", "\r": r"\r", "\t": r"\t", "\\": r"\\"}
ESCAPED_CATEGORIES = frozenset({"Cc", "Cf", "Zl", "Zp", "Zs"})  # controls, format controls, separators
ESCAPE_PATTERN = re.compile(r"\\(?:([nrt\\])|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8}))?")
SURROGATES = range(0xD800, 0xE000)  # halves of surrogate pairs, which UTF-8 cannot encode
UNESCAPED = {escape[1]: character for character, escape in ESCAPES.items()}


def escape(character: str) -> str:
    """One character as `vocabulary.txt` writes it."""
    if character in ESCAPES:
        return ESCAPES[character]
    if character != " " and unicodedata.category(character) in ESCAPED_CATEGORIES:
        code = ord(character)
        return f"\\u{code:04X}" if code <= 0xFFFF else f"\\U{code:08X}"
    return character


def unescape(text: str) -> str:
    r"""The text that an escaped one stands for: `\n` `\r` `\t` `\\` `\uXXXX` `\UXXXXXXXX`.

    Raises:
        ValueError: a backslash starts none of these, or the code is not a character.
    """

    def replace(match: re.Match[str]) -> str:
        simple, short, long = match.groups()
        if simple:
            return UNESCAPED[simple]
        if not (short or long):
            raise ValueError(f"the backslash at character {match.start()} does not start an escape; write \\\\ for a backslash")
        code = int(short or long, 16)
        if code > sys.maxunicode or code in SURROGATES:
            raise ValueError(f"{match.group()} at character {match.start()} is not a Unicode character")
        return chr(code)

    return ESCAPE_PATTERN.sub(replace, text)


LONGEST_ESCAPE = len(r"\U00000000")


def _character(line: str) -> str | None:
    """The character of a line of `vocabulary.txt`; None if the line is not one character."""
    if len(line) == 1:
        return None if line == "\\" or unicodedata.category(line) == "Cc" else line
    try:
        character = unescape(line) if line.startswith("\\") and len(line) <= LONGEST_ESCAPE else ""
    except ValueError:
        return None
    return character if len(character) == 1 else None


@dataclass(frozen=True)
class Vocabulary:
    """The tokens of a model in id order: `[UNK]`, then one character each."""

    tokens: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.tokens)

    @classmethod
    def of(cls, characters: Iterable[str]) -> Vocabulary:
        """The vocabulary of a text: its distinct characters in code point order, after `[UNK]`."""
        return cls((UNKNOWN, *sorted(set(characters))))

    @classmethod
    def parse(cls, data: bytes, where: str) -> Vocabulary:
        """Read the content of `vocabulary.txt`.

        Args:
            data: the content.
            where: the name of the file, for errors.

        Raises:
            CharedgeError: it is not UTF-8, or its lines are not `[UNK]` followed by distinct characters.
        """
        try:
            lines = data.decode("utf-8").split("\n")
        except UnicodeDecodeError as error:
            raise CharedgeError(f"{where} is not UTF-8 at byte {error.start}: copy it again, or fix it.") from None
        if lines.pop() != "" or not lines or lines[0] != UNKNOWN:
            raise CharedgeError(f"{where} must begin with the line {UNKNOWN} and end with a line feed: copy it again, or fix it.")
        for number in range(1, len(lines)):
            token = _character(lines[number])
            if token is None:
                raise CharedgeError(f"line {number + 1} of {where} is not one character: copy the file again, or fix it.")
            lines[number] = token
        vocabulary = cls(tuple(lines))
        known, _ = vocabulary._sorted
        if (known[1:] == known[:-1]).any():
            raise CharedgeError(f"{where} lists a character twice: copy it again, or fix it.")
        return vocabulary

    def to_bytes(self) -> bytes:
        """The content of `vocabulary.txt`."""
        return "".join(f"{line}\n" for line in (UNKNOWN, *map(escape, self.tokens[1:]))).encode()

    @cached_property
    def _sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """The known code points in ascending order, and their ids."""
        points = np.frombuffer("".join(self.tokens[1:]).encode("utf-32-le"), "<u4")
        order = np.argsort(points)
        return points[order], (order + 1).astype(np.int32)

    def encode(self, text: str) -> np.ndarray:
        """The ids of a text's characters: int32 [characters], `UNKNOWN_ID` for those outside the vocabulary."""
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        known, ids = self._sorted
        if not len(known):
            return np.zeros(len(points), np.int32)
        place = np.minimum(np.searchsorted(known, points), len(known) - 1)
        return np.where(known[place] == points, ids[place], np.int32(UNKNOWN_ID))

    def decode(self, ids: Iterable[int]) -> str:
        """The text of token ids; id 0 becomes `[UNK]`."""
        tokens = self.tokens
        return "".join([tokens[i] for i in ids])
