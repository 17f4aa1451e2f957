"""Reading and normalising text: the same for a corpus, a prompt and a text to score."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Literal

from .errors import CharedgeError

Normalization = Literal["NFC", "NFD", "NFKC", "NFKD", "none"]
NORMALIZATIONS: tuple[Normalization, ...] = ("NFC", "NFD", "NFKC", "NFKD", "none")


STDIN = 0  # the descriptor
BYTE_ORDER_MARK = "\ufeff"
BLOCK_BYTES = 65_536
MAX_BYTES = 64_000_000  # of a file that is read as a whole; enough for a vocabulary or the state of the largest model
LINE_END = re.compile("\r\n|\r|\n")
MARKS = "\u0300-\u4dff\ua000-\uabff\ud7a4-\U0010ffff"
"""All combining marks, and neither Latin nor Han nor Hangul, so that ordinary text has no long run of these."""
LONG_RUN = re.compile(f"(?<![{MARKS}])[{MARKS}]{{256,}}")
SAMPLED_RUN = re.compile(f"[{MARKS}]{{2}}")
"""What a long run looks like in every 128th character."""


HARMFUL = re.compile(
    "[\0-\x08\x0b-\x1f\x7f-\x9f"  # control characters except newline and tab: a terminal obeys them
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # bidirectional controls: they change the order in which text is shown
    "\u2028\u2029"  # line and paragraph separators: some programs end a line there
    "\ud800-\udfff]"  # surrogates: bytes of a file name that are not UTF-8
)


def harmless(text: str) -> str:
    r"""Escape the characters of `HARMFUL` as `\uXXXX`, so that a terminal can show the text."""
    return HARMFUL.sub(_escape, text)


def _escape(match: re.Match[str]) -> str:
    return f"\\u{ord(match[0]):04X}"


def normalize(text: str, form: Normalization) -> str:
    """Remove a byte order mark, make every line end a line feed, and apply a Unicode normalisation form."""
    return normalize_part(text.removeprefix(BYTE_ORDER_MARK), form)


def normalize_part(text: str, form: Normalization) -> str:
    """As `normalize`, for a part of a text: a byte order mark stays."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if form == "none" or text.isascii():
        return text
    if SAMPLED_RUN.search(text[::128]):
        text = LONG_RUN.sub(lambda run: _in_canonical_order(run[0], "NFKD" if "K" in form else "NFD"), text)
    return unicodedata.normalize(form, text)


def _in_canonical_order(run: str, form: Literal["NFD", "NFKD"]) -> str:
    """Decompose a run and sort its marks: `unicodedata` does it in time quadratic in the run's length."""
    decomposed = "".join([unicodedata.normalize(form, character) for character in run])
    marks = groupby(decomposed, lambda character: unicodedata.combining(character) > 0)
    return "".join(["".join(sorted(group, key=unicodedata.combining) if marked else group) for marked, group in marks])


def decode(data: bytes, where: str, offset: int = 0) -> str:
    """Decode UTF-8.

    Args:
        data: the bytes.
        where: the name of their source, for errors.
        offset: the position of `data` in it, in bytes.

    Raises:
        CharedgeError: they are binary, or not UTF-8.
    """
    if offset == 0 and data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise CharedgeError(f"{where} is not UTF-8 text at byte 0, it looks like UTF-16: save it as UTF-8.")
    zero = data.find(0)
    if zero >= 0:
        raise CharedgeError(f"{where} is binary, it has a zero byte at offset {offset + zero}: give a text file in UTF-8.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CharedgeError(f"{where} is not UTF-8 text at byte {offset + error.start}: save it as UTF-8.") from None


def read_bytes(path: Path) -> bytes:
    """Read a file of at most `MAX_BYTES`.

    Raises:
        CharedgeError: it cannot be read, or is larger.
    """
    try:
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if len(data) > MAX_BYTES:
        raise CharedgeError(f"{path} is larger than {MAX_BYTES:,} bytes: give another file.")
    return data


def unreadable(path: Path, error: OSError | ValueError) -> CharedgeError:
    """The error for a file that cannot be opened or read (OSError), or whose name has a zero byte (ValueError)."""
    if not isinstance(error, OSError):
        return CharedgeError(f"{str(path)!r} has a zero byte, which a file name cannot have: check the path.")
    if isinstance(error, FileNotFoundError):
        return CharedgeError(f"{path} does not exist: check the path.")
    if isinstance(error, IsADirectoryError):
        return CharedgeError(f"{path} is a folder: give a file.")
    return CharedgeError(f"{path} cannot be read ({error.strerror}): check its permissions.")


def read_text(path: Path) -> str:
    """Read a UTF-8 file without normalising it; `-` is stdin.

    Raises:
        CharedgeError: it cannot be read, or is not UTF-8 text.
    """
    return "".join(read_chunks(path))


def read_chunks(path: Path) -> Iterator[str]:
    """Read a UTF-8 file piece by piece, in constant memory, without normalising it; `-` is stdin.

    Raises:
        CharedgeError: it cannot be read, or is not UTF-8 text.
    """
    return decode_blocks(_read_blocks(path), shown_name(path))


def shown_name(path: Path) -> str:
    """The name of a text in messages; `-` is stdin."""
    return "stdin" if str(path) == "-" else str(path)


def decode_blocks(blocks: Iterable[bytes], name: str) -> Iterator[str]:
    """Decode blocks of UTF-8, which may be cut within a character.

    Args:
        blocks: the bytes.
        name: the name of their source, for errors.

    Raises:
        CharedgeError: they are binary, or not UTF-8.
    """
    offset, waiting = 0, b""  # waiting: the first bytes of a character that the next block completes
    for data in blocks:
        block = waiting + data
        whole = len(block) - _unfinished(block)
        yield decode(block[:whole], name, offset)
        offset, waiting = offset + whole, block[whole:]
    if waiting:
        yield decode(waiting, name, offset)


def _read_blocks(path: Path) -> Iterator[bytes]:
    if str(path) == "-":
        try:
            while data := os.read(STDIN, BLOCK_BYTES):
                yield data
        except OSError as error:
            raise CharedgeError(f"stdin cannot be read ({error.strerror}): give a file.") from None
        return
    try:
        with path.open("rb") as file:
            while data := file.read(BLOCK_BYTES):
                yield data
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None


def split_lines(chunks: Iterable[str]) -> Iterator[str]:
    """The lines of a text that comes in pieces, without their ends: a line feed, a carriage return, or both."""
    waiting: list[str] = []  # of the line that the next piece continues
    after_return = False
    for chunk in chunks:
        text = chunk[1:] if after_return and chunk.startswith("\n") else chunk
        after_return = chunk.endswith("\r")
        *whole, rest = LINE_END.split(text)
        for line in whole:
            yield "".join((*waiting, line))
            waiting.clear()
        if rest:
            waiting.append(rest)
    if waiting:
        yield "".join(waiting)


def _unfinished(data: bytes) -> int:
    """Number of bytes at the end that are the start of an incomplete UTF-8 character."""
    for size in range(1, min(3, len(data)) + 1):
        byte = data[-size]
        if byte >= 0xC0:
            return size if size < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4) else 0
        if byte < 0x80:
            break
    return 0


def normalized_chunks(chunks: Iterable[str], form: Normalization) -> Iterator[str]:
    """Normalise a text piece by piece: the pieces, joined, equal `normalize` of the whole text.

    The text is only cut before a character that no normalisation form joins to the one before it.
    """
    waiting: list[str] = []
    for chunk in _without_mark(chunks):
        cut = _last_cut(waiting[-1][-1] if waiting else "", chunk)
        if cut is None:
            waiting.append(chunk)
            continue
        piece = "".join((*waiting, chunk[:cut]))
        waiting = [chunk[cut:]]
        if piece:
            yield normalize_part(piece, form)
    if waiting:
        yield normalize_part("".join(waiting), form)


def _without_mark(chunks: Iterable[str]) -> Iterator[str]:
    """The chunks that are not empty, the first of them without a byte order mark."""
    at_start = True
    for chunk in chunks:
        text = chunk.removeprefix(BYTE_ORDER_MARK) if at_start else chunk
        at_start = at_start and not chunk
        if text:
            yield text


def _last_cut(before: str, text: str) -> int | None:
    """The last position where the text may be cut, if there is one; `before` is the character before the text."""
    for place in range(len(text) - 1, -1, -1):
        if _is_boundary(text[place]) and (text[place - 1] if place else before) != "\r":
            return place
    return None


def clusters(text: str, form: Normalization) -> list[str]:
    """Split a text into characters, each with the following ones that a form may join to it; marks at the start are separate."""
    if form == "none":
        return list(text)
    parts: list[str] = []
    for character in text:
        if parts and not _is_boundary(character) and _is_boundary(parts[-1][0]):
            parts[-1] += character
        else:
            parts.append(character)
    return parts


def _is_boundary(character: str) -> bool:
    """Whether no form joins or reorders a character with the one before it, unlike marks and letters that end a syllable."""
    if character < "\u0300":
        return True
    first = unicodedata.normalize("NFKD", character)[0]
    joins = "\u1160" <= first <= "\u11ff" or "\U00016d63" <= first <= "\U00016d6a"  # Hangul; Kirat Rai, from Unicode 16 on
    return not (joins or unicodedata.category(first).startswith("M"))
