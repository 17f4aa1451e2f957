"""Training text: finds and reads text files, folders, .gz files and named corpora, block by block."""

from __future__ import annotations

import gzip
import hashlib
import os
import stat
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from ..runtime.errors import CharedgeError
from ..runtime.files import cache_folder, write_atomically
from ..runtime.progress import Progress, Report, no_progress
from ..runtime.text import Normalization, decode_blocks, normalized_chunks, unreadable

BLOCK_BYTES = 1 << 20
TEXT_SUFFIXES = (".txt", ".md", ".rst")
"""Suffixes of the files that are read in a folder; `.gz` may follow."""

IN_EVERY_RUN = {"config.json", "vocabulary.txt", "held_out.txt"}
"""Files that every run folder has, by which it is known."""
COMPRESSED = {b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"PK\x03\x04": "ZIP", b"\xfd7zXZ": "xz"}
"""Formats by the first bytes of a file."""

SHAKESPEARE_URL = "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt"
SHAKESPEARE_SHA256 = "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed"
DOWNLOAD_SECONDS = 60


@dataclass(frozen=True)
class Source:
    """A file or a named corpus to train on."""

    name: str
    """The path, or the name of a named corpus."""
    data: bytes | None = None
    """Content of a named corpus; None for a file."""

    @property
    def compressed(self) -> bool:
        """Whether it is a .gz file."""
        return self.data is None and self.name.lower().endswith(".gz")

    def status(self) -> os.stat_result | None:
        """The file's `stat` result; None for a named corpus.

        Raises:
            CharedgeError: the file is missing or not accessible.
        """
        try:
            return Path(self.name).stat() if self.data is None else None
        except OSError as error:
            raise unreadable(Path(self.name), error) from None

    def is_pipe(self) -> bool:
        """Whether it is a pipe or device, which can be read only once."""
        status = self.status()
        return status is not None and not stat.S_ISREG(status.st_mode)

    def size(self) -> int:
        """Bytes, as stored."""
        status = self.status()
        return status.st_size if status else len(self.data or b"")

    def open(self) -> BinaryIO:
        """Open the content as stored."""
        return Path(self.name).open("rb") if self.data is None else BytesIO(self.data)

    def blocks(self) -> Iterator[bytes]:
        """The content as stored, in blocks of 1 MiB at most.

        Raises:
            CharedgeError: it cannot be read.
        """
        try:
            with self.open() as file:
                while block := file.read(BLOCK_BYTES):
                    yield block
        except OSError as error:
            raise unreadable(Path(self.name), error) from None

    def chunks(self, normalization: Normalization, progress: Callable[[int], object] = lambda _: None) -> Iterator[str]:
        """The normalised text in parts, which joined are the normalised whole.

        Args:
            normalization: the Unicode form.
            progress: called with the stored bytes read since the last call.

        Raises:
            CharedgeError: it is missing, unreadable, binary or not UTF-8.
        """
        yield from normalized_chunks(decode_blocks(self._uncompressed(progress), self.name), normalization)

    def _uncompressed(self, progress: Callable[[int], object]) -> Iterator[bytes]:
        if not self.compressed:
            for number, block in enumerate(self.blocks()):
                if not number and (kind := next((kind for magic, kind in COMPRESSED.items() if block.startswith(magic)), None)):
                    named = ", or give it a name that ends in .gz" if kind == "gzip" else ""
                    raise CharedgeError(f"{self.name} is compressed ({kind}): unpack it{named}.")
                progress(len(block))
                yield block
            return
        try:
            with self.open() as stored, gzip.GzipFile(fileobj=stored) as file:
                place = 0
                while block := file.read(BLOCK_BYTES):
                    progress(stored.tell() - place)
                    place = stored.tell()
                    yield block
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise CharedgeError(f"{self.name} is truncated or not a gzip file ({error}): copy it again.") from None
        except OSError as error:
            raise unreadable(Path(self.name), error) from None


def find_sources(names: Sequence[str], progress: Progress = no_progress) -> list[Source]:
    """Find the sources of a corpus.

    Args:
        names: text files, folders and named corpora.
        progress: gets a message with the number of files read and left out of each folder.

    Returns:
        The sources in the order of the names; the files of a folder are sorted by path.

    Raises:
        CharedgeError: one is missing, or a named one cannot be downloaded.
    """
    return [source for name in names for source in _find(name, progress)]


def _find(name: str, progress: Progress) -> list[Source]:
    """The sources of one name; a file or folder on disk takes precedence over a named corpus."""
    if not name:
        raise CharedgeError(f"`corpus` is an empty string: give a path, or one of {', '.join(NAMED)}.")
    path = Path(name)
    if path.is_dir():
        files, others = _files_in(path)
        left_out = ", ".join(f"{count:,} {kind or 'without a suffix'}" for kind, count in others.most_common())
        if not files:
            raise CharedgeError(
                f"{path} holds no text files ({', '.join(TEXT_SUFFIXES)}, each also with .gz): give another folder, or the files."
            )
        counts = f"{path}: {len(files):,} {'file' if len(files) == 1 else 'files'} read"
        progress(Report("encoding", message=f"{counts}, {others.total():,} left out ({left_out})" if others else counts))
        return [Source(str(file)) for file in files]
    if name in NAMED and not path.exists():
        return [Source(name, NAMED[name]())]
    if path.exists() or path.suffix:
        return [Source(name)]
    raise CharedgeError(f"{name} is not a file, folder or named corpus: give a path, or one of {', '.join(NAMED)}.")


def _files_in(folder: Path) -> tuple[list[Path], Counter[str]]:
    """The text files in a folder and its subfolders, sorted by path, and the number of other files by suffix.

    Links to folders are not followed. Run folders are left out: their texts are those of the corpus.

    Raises:
        CharedgeError: a folder cannot be read, or a link to a file is broken.
    """

    def refuse(error: OSError) -> None:
        raise unreadable(Path(error.filename), error) from None

    found, others = [], Counter[str]()
    for parent, folders, names in os.walk(folder, onerror=refuse):
        if parent != str(folder) and IN_EVERY_RUN.issubset(names):
            folders.clear()
            continue
        for name in names:
            path = Path(parent, name)
            if not path.name.lower().removesuffix(".gz").endswith(TEXT_SUFFIXES):
                others[path.suffix] += 1
            elif not Source(str(path)).is_pipe():
                found.append(path)
    return sorted(found), others


def _python_docs() -> bytes:
    """The language reference that is part of every CPython; needs no network."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics)).encode()


def _shakespeare() -> bytes:
    """The plays that char-rnn was trained on; downloaded once and cached."""
    cache = cache_folder() / "shakespeare.txt"
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
        raise CharedgeError(f"{SHAKESPEARE_URL} has changed (its SHA-256 differs): give a file of your own.")
    with suppress(OSError):  # without a cache it is downloaded again next time
        cache.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(cache, data)
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


NAMED: dict[str, Callable[[], bytes]] = {"python-docs": _python_docs, "shakespeare": _shakespeare}
