"""How every text is read: a corpus, a prompt and a text to score alike, so that a device sees what training saw."""

from __future__ import annotations

import sys
import unicodedata
from pathlib import Path
from typing import Literal

from .errors import CharedgeError

Normalization = Literal["NFC", "NFD", "NFKC", "NFKD", "none"]
NORMALIZATIONS: tuple[Normalization, ...] = ("NFC", "NFD", "NFKC", "NFKD", "none")


def normalize(text: str, form: Normalization) -> str:
    """The text without a byte order mark, its lines ended by a line feed, in a Unicode normalisation form."""
    text = text.removeprefix("\ufeff")
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    return text if form == "none" else unicodedata.normalize(form, text)


def decode(data: bytes, where: str) -> str:
    """Bytes of UTF-8 as text; `where` names them in errors.

    Raises:
        CharedgeError: they are binary, or not UTF-8.
    """
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise CharedgeError(f"{where} is not UTF-8 text at byte 0, it looks like UTF-16: save it as UTF-8.")
    zero = data.find(0)
    if zero >= 0:
        raise CharedgeError(f"{where} is binary, it has a zero byte at offset {zero}: give a text file in UTF-8.")
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CharedgeError(f"{where} is not UTF-8 text at byte {error.start}: save it as UTF-8.") from None


def read_bytes(path: Path) -> bytes:
    """The content of a file.

    Raises:
        CharedgeError: it cannot be read.
    """
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CharedgeError(f"{path} does not exist: check the path.") from None
    except IsADirectoryError:
        raise CharedgeError(f"{path} is a folder: give a file.") from None
    except OSError as error:
        raise CharedgeError(f"{path} cannot be read: {error.strerror}.") from None


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, as it is; `-` is stdin.

    Raises:
        CharedgeError: it cannot be read, or is not UTF-8 text.
    """
    if str(path) == "-":
        return decode(sys.stdin.buffer.read(), "stdin")
    return decode(read_bytes(path), str(path))
