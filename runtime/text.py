"""How every text is read: a corpus, a prompt and a text to score alike, so that a device sees what training saw."""

from __future__ import annotations

import os
import string
import sys
import unicodedata
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Literal

from .errors import CharedgeError

Normalization = Literal["NFC", "NFD", "NFKC", "NFKD", "none"]
NORMALIZATIONS: tuple[Normalization, ...] = ("NFC", "NFD", "NFKC", "NFKD", "none")


BYTE_ORDER_MARK = "\ufeff"
BLOCK_BYTES = 65_536
SAFE_TO_CUT_BEFORE = frozenset(string.printable)
"""ASCII, and besides it the Han characters, never compose with what stands before them."""


def normalize(text: str, form: Normalization) -> str:
    """The text without a byte order mark, its lines ended by a line feed, in a Unicode normalisation form."""
    return _normalize_part(text.removeprefix(BYTE_ORDER_MARK), form)


def _normalize_part(text: str, form: Normalization) -> str:
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if form == "none" else unicodedata.normalize(form, text)


def decode(data: bytes, where: str, offset: int = 0) -> str:
    """Bytes of UTF-8 as text; in errors `where` names them, and `offset` is where they begin in it.

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
    """The content of a file.

    Raises:
        CharedgeError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as error:
        raise unreadable(path, error) from None


def unreadable(path: Path, error: OSError) -> CharedgeError:
    """What to say of a file that the system does not give."""
    if isinstance(error, FileNotFoundError):
        return CharedgeError(f"{path} does not exist: check the path.")
    if isinstance(error, IsADirectoryError):
        return CharedgeError(f"{path} is a folder: give a file.")
    return CharedgeError(f"{path} cannot be read ({error.strerror}): check its permissions.")


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, as it is; `-` is stdin.

    Raises:
        CharedgeError: it cannot be read, or is not UTF-8 text.
    """
    return "".join(read_chunks(path))


def read_chunks(path: Path) -> Iterator[str]:
    """The text of a UTF-8 file piece by piece, as it is, in constant memory; `-` is stdin.

    Raises:
        CharedgeError: it cannot be read, or is not UTF-8 text.
    """
    name = "stdin" if str(path) == "-" else str(path)
    offset, waiting = 0, b""  # waiting: the beginning of a character that the next bytes end
    for data in _read_blocks(path):
        block = waiting + data
        whole = len(block) - _unfinished(block)
        yield decode(block[:whole], name, offset)
        offset, waiting = offset + whole, block[whole:]
    if waiting:
        yield decode(waiting, name, offset)


def _read_blocks(path: Path) -> Iterator[bytes]:
    if str(path) == "-":
        while data := os.read(sys.stdin.fileno(), BLOCK_BYTES):
            yield data
        return
    try:
        with path.open("rb") as file:
            while data := file.read(BLOCK_BYTES):
                yield data
    except OSError as error:
        raise unreadable(path, error) from None


def _unfinished(data: bytes) -> int:
    """How many bytes at the end begin a character of UTF-8 that goes on after them."""
    for size in range(1, min(3, len(data)) + 1):
        byte = data[-size]
        if byte >= 0xC0:
            return size if size < (2 if byte < 0xE0 else 3 if byte < 0xF0 else 4) else 0
        if byte < 0x80:
            break
    return 0


def normalized_chunks(chunks: Iterable[str], form: Normalization) -> Iterator[str]:
    """As `normalize`, but piece by piece: what comes out, joined, is what the whole text would give.

    A text is only cut before a character that no normalisation form joins to the one before it.
    """
    waiting, at_start = "", True
    for chunk in chunks:
        waiting += chunk
        if at_start and waiting:
            waiting, at_start = waiting.removeprefix(BYTE_ORDER_MARK), False
        cut = _last_cut(waiting)
        if cut:
            yield _normalize_part(waiting[:cut], form)
            waiting = waiting[cut:]
    if waiting:
        yield _normalize_part(waiting, form)


def _last_cut(text: str) -> int:
    """The last place where the text may be cut; 0 if there is none."""
    for place in range(len(text) - 1, 0, -1):
        character = text[place]
        if (character in SAFE_TO_CUT_BEFORE or "\u4e00" <= character <= "\u9fff") and text[place - 1] != "\r":
            return place
    return 0
