"""Where a text may end: after a sentence, a line or a paragraph, in the model's own language."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from typing import Literal, get_args

from .errors import InvalidOption

Boundary = Literal["sentence", "line", "paragraph"]
BOUNDARIES: tuple[Boundary, ...] = get_args(Boundary)
MOST_MORE = 2000
"""Maximum number of characters after `length`, if the model does not write a boundary."""


def _expanded(ranges: str) -> frozenset[str]:
    """The characters of ranges such as `0021 083D-083E`."""
    bounds = ([int(code, 16) for code in part.split("-")] for part in ranges.split())
    return frozenset(chr(code) for low, *high in bounds for code in range(low, (high or [low])[0] + 1))


SENTENCE_TERMINALS = _expanded(
    "0021 002E 003F 0589 061D-061F 06D4 0700-0702 07F9 0837 0839 083D-083E 0964-0965 104A-104B 1362 1367-1368 166E 1735-1736 "
    "17D4-17D5 1803 1809 1944-1945 1AA8-1AAB 1B4E-1B4F 1B5A-1B5B 1B5E-1B5F 1B7D-1B7F 1C3B-1C3C 1C7E-1C7F 2024 203C-203D "
    "2047-2049 2CF9-2CFB 2E2E 2E3C 2E53-2E54 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F A9C8-A9C9 AA5D-AA5F "
    "AAF0-AAF1 ABEB FE12 FE15-FE16 FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59 10F86-10F89 11047-11048 "
    "110BE-110C1 11141-11143 111C5-111C6 111CD 111DE-111DF 11238-11239 1123B-1123C 112A9 113D4-113D5 1144B-1144C 115C2-115C3 "
    "115C9-115D7 11641-11642 1173C-1173E 11944 11946 11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F "
    "16AF5 16B37-16B38 16B44 16D6E-16D6F 16E98 1BC9F 1DA88"
)
"""The characters with the property Sentence_Terminal (PropList.txt of Unicode 16.0), which Python's unicodedata lacks."""
FULL_STOPS = frozenset(".\u2024\ufe52\uff0e")
"""The sentence terminals that also stand within a word or a number (Sentence_Break=ATerm in Unicode's annex 29)."""
UNSEEN = frozenset(("Mn", "Me", "Mc", "Cf"))
"""The categories of marks on the character before, and of format characters: they end nothing (annex 29, rule SB5)."""
STRAIGHT_QUOTES = frozenset("\"'\uff02\uff07")


class BoundaryFinder:
    """Finds the first boundary at or after a number of characters of a text."""

    def __init__(self, boundary: Boundary, length: int) -> None:
        """
        Args:
            boundary: the kind.
            length: the text has at least this number of characters.
        """
        self._remaining = length
        self._end = _Sentence() if boundary == "sentence" else _LineFeeds(1 if boundary == "line" else 2)

    def ends_before(self, character: str) -> bool:
        """Whether the text ends before this character, which is otherwise added to it."""
        if self._remaining <= 0 and self._end.is_before(character):
            return True
        self._remaining -= 1
        self._end.add(character)
        return False


class _LineFeeds:
    """The end of a line, or of a paragraph: a number of line feeds, one after the other."""

    def __init__(self, number: int) -> None:
        self._number, self._found = number, 0

    def is_before(self, character: str) -> bool:
        return self._found >= self._number

    def add(self, character: str) -> None:
        self._found = self._found + 1 if character == "\n" else 0


class _Sentence:
    """The end of a sentence: terminals, then closing quotation marks and brackets; not within `3.14`, `e.g.` or `?!`."""

    def __init__(self) -> None:
        self._terminal = ""  # the last one, if only closing marks came after it

    def is_before(self, character: str) -> bool:
        if not self._terminal or character in SENTENCE_TERMINALS or _closes(character, self._terminal):
            return False
        cased = character.lower() != character.upper()
        return not (self._terminal in FULL_STOPS and (cased or character.isdecimal()))

    def add(self, character: str) -> None:
        if character in SENTENCE_TERMINALS:
            self._terminal = character
        elif self._terminal and not _closes(character, self._terminal):
            self._terminal = ""


def _closes(mark: str, terminal: str) -> bool:
    """Whether a character after a sentence terminal closes a quotation or a bracket, or is a mark on what came before.

    Opening quotation marks (Pi) do in some languages: German writes “ there, and Danish «. In Chinese and Japanese, whose
    terminals are wide, they open the next sentence: no space comes before it.
    """
    category = unicodedata.category(mark)
    if category == "Pi":
        return unicodedata.east_asian_width(terminal) not in ("W", "F")
    return category in ("Pe", "Pf") or category in UNSEEN or mark in STRAIGHT_QUOTES


def require_boundary(boundary: str, characters: Iterable[str]) -> Boundary:
    """Check that a model can write a boundary.

    Args:
        boundary: the kind.
        characters: those that the model can write.

    Returns:
        The kind.

    Raises:
        InvalidOption: there is no such kind, or the model cannot write one.
    """
    if boundary not in BOUNDARIES:
        raise InvalidOption("end_at", f"{boundary!r} is unknown: choose {', '.join(BOUNDARIES[:-1])} or {BOUNDARIES[-1]}.")
    ends = SENTENCE_TERMINALS if boundary == "sentence" else {"\n"}
    if ends.isdisjoint(characters):
        raise InvalidOption(
            "end_at", f"{boundary!r} needs a character that the model cannot write: leave it out, or choose another."
        )
    return boundary
