"""Text to train on: from files, folders, gzip, or a name; cleaned, split, and turned into ids."""

from __future__ import annotations

import gzip
import hashlib
import os
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..runtime.errors import CharedgeError
from ..runtime.text import Normalization, decode, normalize, read_bytes

SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
DOWNLOAD_SECONDS = 60


@dataclass(frozen=True)
class Corpus:
    """A text to train on, normalised, and where it came from."""

    text: str
    files: list[str]
    """The sources as they were given or found."""

    @property
    def sha256(self) -> str:
        """Of the normalised text in UTF-8."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def read_corpus(sources: Sequence[str], normalization: Normalization) -> Corpus:
    """Read text files, folders (their *.txt and *.txt.gz, sorted by path), .gz files and named corpora, one after the other.

    Raises:
        CharedgeError: a source is missing, unreadable, empty, binary or not UTF-8.
    """
    texts, files = [], []
    for source in sources:
        for name, data in _read_source(source):
            text = normalize(decode(data, name), normalization)
            if not text:
                raise CharedgeError(f"{name} is empty: give a file with text in it.")
            texts.append(text)
            files.append(name)
    return Corpus("".join(texts), files)


def split(text: str, validation_split: float) -> tuple[str, str]:
    """The part that trains, and the part after it that validates: the last `validation_split` of the text."""
    boundary = int(len(text) * (1 - validation_split))
    return text[:boundary], text[boundary:]


def _read_source(source: str) -> Iterator[tuple[str, bytes]]:
    """The name and the bytes of each file that a source stands for; what exists on disk goes before a name."""
    path = Path(source)
    if path.is_dir():
        files = sorted(p for pattern in ("*.txt", "*.txt.gz") for p in path.rglob(pattern) if p.is_file())
        if not files:
            raise CharedgeError(f"{path} holds no *.txt or *.txt.gz: give a folder with text files, or the files themselves.")
        yield from ((str(file), _read_file(file)) for file in files)
    elif source in NAMED and not path.exists():
        yield source, NAMED[source]()
    elif path.exists() or path.suffix:
        yield source, _read_file(path)
    else:
        raise CharedgeError(f"{source} is no file, folder or named corpus: give a path, or one of {', '.join(NAMED)}.")


def _read_file(path: Path) -> bytes:
    data = read_bytes(path)
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise CharedgeError(f"{path} is no whole gzip file ({error}): copy it again.") from None


def _python_docs() -> bytes:
    """The language reference that every CPython carries: no network is needed."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics)).encode()


def _shakespeare() -> bytes:
    """The plays that char-rnn trained on, downloaded once."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "charedge" / "shakespeare.txt"
    if cache.exists() and _sha256(data := cache.read_bytes()) == SHAKESPEARE_SHA256:
        return data
    from urllib.request import urlopen

    try:
        with urlopen(SHAKESPEARE_URL, timeout=DOWNLOAD_SECONDS) as response:
            data = response.read()
    except OSError as error:
        reason = getattr(error, "reason", None) or error
        raise CharedgeError(
            f"the corpus shakespeare cannot be downloaded ({reason}): save {SHAKESPEARE_URL} and give the file."
        ) from None
    if _sha256(data) != SHAKESPEARE_SHA256:
        raise CharedgeError(f"{SHAKESPEARE_URL} is not the text that it was: give a file of your own.")
    cache.parent.mkdir(parents=True, exist_ok=True)
    partial = cache.with_suffix(f".{os.getpid()}")
    partial.write_bytes(data)
    partial.replace(cache)
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


NAMED: dict[str, Callable[[], bytes]] = {"python-docs": _python_docs, "shakespeare": _shakespeare}
