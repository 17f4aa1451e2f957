"""The model file: a TFLite flatbuffer, and behind it a ZIP that holds the vocabulary and the manifest (docs/file-format.md).

It is read and written here with the standard library only. The checks are made in the order of trust: the file's size and its end,
the bounds of the ZIP's members, the manifest, the vocabulary, then the SHA-256 of the flatbuffer. The flatbuffer is not read before
the others have passed, and not interpreted before its SHA-256 has. The checks find accidents, not malice.
"""

from __future__ import annotations

import hashlib
import os
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from .errors import CharedgeError
from .manifest import MANIFEST_FILE, Damaged, Manifest, parse_manifest
from .text import normalize, unreadable
from .vocabulary import UNKNOWN_ID, Vocabulary

SIGNATURE = "step"
FLATBUFFER_IDENTIFIER = b"TFL3"
VOCABULARY_FILE = "vocabulary.txt"

MAX_FLATBUFFER_BYTES = 2**31 - 1  # the offsets of a flatbuffer are signed 32-bit numbers
MEMBER_LIMITS = {VOCABULARY_FILE: 16_000_000, MANIFEST_FILE: 1_000_000}  # enough for all Unicode characters, escaped

LOCAL_HEADER = struct.Struct("<4s5H3L2H")
CENTRAL_HEADER = struct.Struct("<4s6H3L5H2L")
END_RECORD = struct.Struct("<4s4H2LH")
STORED = 0
ZIP_VERSION = 20  # needed to extract a member
MADE_BY = 3 << 8 | ZIP_VERSION  # on Unix
FILE_MODE = 0o644 << 16
ZIP_TIME, ZIP_DATE = 0, 1 << 5 | 1  # the earliest of a ZIP, 1980-01-01: the same run gives the same bytes
DIRECTORY_BYTES = sum(CENTRAL_HEADER.size + len(name) for name in MEMBER_LIMITS)
TAIL_BYTES = DIRECTORY_BYTES + END_RECORD.size


@dataclass(frozen=True)
class ModelFile:
    """The parts of a model file."""

    path: Path
    manifest: Manifest
    vocabulary: Vocabulary
    flatbuffer: bytes
    """The bytes [0, Z), which a TFLite interpreter takes."""

    def to_bytes(self) -> bytes:
        """The whole file: the flatbuffer, then a ZIP of two stored members with fixed dates."""
        contents = {VOCABULARY_FILE: self.vocabulary.to_bytes(), MANIFEST_FILE: self.manifest.to_json()}
        position, members, directory = len(self.flatbuffer), b"", b""
        for name, content in contents.items():
            entry = _Entry(name, ZIP_VERSION, ZIP_TIME, ZIP_DATE, zlib.crc32(content), len(content), position + len(members))
            members += entry.local_header + content
            directory += entry.central_header
        return self.flatbuffer + members + directory + _end_record(position + len(members))


def read_model_file(path: str | Path) -> ModelFile:
    """Read a model file, with every check that needs no interpreter.

    Raises:
        CharedgeError: the file cannot be read, is not a model file, is damaged, or needs a newer charedge.
    """
    path = Path(path)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if (path / "config.json").is_file():
        raise CharedgeError(f"{path} is a run folder: convert it first, with `charedge convert`.")
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise CharedgeError(f"{path} is not a regular file: copy the model into one.")  # a pipe or a device may never end
    try:
        with path.open("rb") as file:
            return parse_model_file(file, path)
    except OSError as error:
        raise unreadable(path, error) from None


def parse_model_file(file: BinaryIO, path: Path) -> ModelFile:
    """Read an open model file with the same checks.

    Args:
        file: the file, on the disk or in memory.
        path: its path, for errors.

    Raises:
        CharedgeError: as `read_model_file`.
        OSError: the file cannot be read.
    """
    try:
        return _read(file, path)
    except Damaged as damage:
        raise CharedgeError(
            f"{path} is damaged ({damage}): copy it again, or convert the run again with `charedge convert`."
        ) from None


def _read(file: BinaryIO, path: Path) -> ModelFile:
    zip_start, members = _read_zip(file, path)
    manifest = parse_manifest(members[MANIFEST_FILE], path)
    lines = members[VOCABULARY_FILE].count(b"\n")
    if lines != manifest.vocabulary_size:
        raise Damaged(f"{VOCABULARY_FILE} has {lines} lines, the manifest says {manifest.vocabulary_size}")
    vocabulary = Vocabulary.parse(members[VOCABULARY_FILE], f"{VOCABULARY_FILE} in {path}")
    start = vocabulary.encode(normalize(manifest.start_text, manifest.normalization))
    if not len(start) or (manifest.unknown == "skip" and UNKNOWN_ID in start):
        raise Damaged(f"start_text in {MANIFEST_FILE} has characters that are not in {VOCABULARY_FILE}")
    file.seek(0)
    flatbuffer = file.read(zip_start)
    if hashlib.sha256(flatbuffer).hexdigest() != manifest.flatbuffer_sha256:
        raise Damaged("its SHA-256 does not match its manifest")
    return ModelFile(path, manifest, vocabulary, flatbuffer)


def _read_zip(file: BinaryIO, path: Path) -> tuple[int, dict[str, bytes]]:
    """Read the start of the ZIP and its members; of the flatbuffer only the first bytes are read.

    Raises:
        CharedgeError: the file is not a model file, or was cut short.
    """
    file_size = file.seek(0, os.SEEK_END)
    file.seek(0)
    is_flatbuffer = file.read(8)[4:] == FLATBUFFER_IDENTIFIER
    try:
        if not TAIL_BYTES < file_size <= MAX_FLATBUFFER_BYTES + sum(MEMBER_LIMITS.values()):
            raise Damaged("its size is not that of a model")
        directory = file_size - TAIL_BYTES
        file.seek(directory)
        entries = list(_directory_entries(file.read(TAIL_BYTES), directory))
        zip_start = directory - sum(entry.size for entry in entries)
        if not is_flatbuffer or zip_start <= 0:
            raise Damaged("it does not begin with a TFLite model")
        file.seek(zip_start)
        members, position = {}, zip_start
        for entry in entries:
            members[entry.name] = entry.read_member(file, position)
            position += entry.size
    except Damaged as damage:
        kind = "has no readable charedge metadata" if is_flatbuffer else "is not a charedge model"
        raise CharedgeError(
            f"{path} {kind}, or was cut short ({damage}): copy it again, or make it with `charedge convert`."
        ) from None
    return zip_start, members


@dataclass(frozen=True)
class _Entry:
    """A member as the ZIP's directory describes it."""

    name: str
    needed: int
    time: int
    date: int
    crc: int
    length: int
    offset: int

    @property
    def local_header(self) -> bytes:
        """The bytes that must precede the member's content."""
        numbers = (self.needed, 0, STORED, self.time, self.date, self.crc, self.length, self.length, len(self.name), 0)
        return LOCAL_HEADER.pack(b"PK\3\4", *numbers) + self.name.encode()

    @property
    def central_header(self) -> bytes:
        """The member's entry in the directory."""
        numbers = (self.needed, 0, STORED, self.time, self.date, self.crc, self.length, self.length, len(self.name), 0, 0, 0, 0)
        return CENTRAL_HEADER.pack(b"PK\1\2", MADE_BY, *numbers, FILE_MODE, self.offset) + self.name.encode()

    @property
    def size(self) -> int:
        """Bytes of the member, including its header."""
        return LOCAL_HEADER.size + len(self.name) + self.length

    def read_member(self, file: BinaryIO, position: int) -> bytes:
        """Read the member's content from a file that is at the member's start.

        Raises:
            Damaged: the header or the checksum is wrong.
        """
        header = self.local_header
        if self.offset != position or file.read(len(header)) != header:
            raise Damaged(f"{self.name} is not where the ZIP says it is")
        content = file.read(self.length)
        if zlib.crc32(content) != self.crc:
            raise Damaged(f"{self.name} fails its checksum")
        return content


def _directory_entries(tail: bytes, directory: int) -> Iterator[_Entry]:
    """The entries of the ZIP's directory, which must be exactly as written here: two stored members, no extras, the end record."""
    if tail[DIRECTORY_BYTES:] != _end_record(directory):
        raise Damaged("it does not end with the ZIP of a model")
    limits, position = dict(MEMBER_LIMITS), 0
    while limits:
        header = CENTRAL_HEADER.unpack_from(tail, position)
        magic, _, needed, flags, method, time, date, crc, packed, length, name_length, extra, comment, disk, _, _, offset = header
        position += CENTRAL_HEADER.size
        name = tail[position : position + name_length].decode("ascii", "replace")
        position += name_length
        if (magic, flags, method, packed, extra, comment, disk) != (b"PK\1\2", 0, STORED, length, 0, 0, 0):
            raise Damaged("a ZIP member is not stored as charedge stores it")
        if length > limits.pop(name, -1):
            raise Damaged("the ZIP holds more than a vocabulary and a manifest of acceptable size")
        yield _Entry(name, needed, time, date, crc, length, offset)


def _end_record(directory: int) -> bytes:
    """The end record of a ZIP whose directory starts at this byte of the file."""
    return END_RECORD.pack(b"PK\5\6", 0, 0, len(MEMBER_LIMITS), len(MEMBER_LIMITS), DIRECTORY_BYTES, directory, 0)
