"""The model file: a TFLite flatbuffer, and behind it a ZIP that holds the vocabulary and the manifest (docs/file-format.md).

Read here with the standard library alone, in the order of trust: the file's size and its end, the ZIP's members within bounds,
the manifest, the vocabulary, then the SHA-256 of the flatbuffer. Nothing of the flatbuffer is read before all that is in order,
and nothing of it is interpreted before its SHA-256 is right. This finds accidents, not malice.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, BinaryIO

from .errors import CharedgeError
from .text import NORMALIZATIONS, Normalization, normalize, unreadable
from .vocabulary import UNKNOWN_ID, Vocabulary

FORMAT_VERSION = 1
SIGNATURE = "step"
FLATBUFFER_IDENTIFIER = b"TFL3"
VOCABULARY_FILE = "vocabulary.txt"
MANIFEST_FILE = "charedge.json"
PROBE_LENGTH = 64

MAX_FLATBUFFER_BYTES = 2**31 - 1  # the offsets of a flatbuffer are signed 32-bit numbers
MEMBER_LIMITS = {VOCABULARY_FILE: 16_000_000, MANIFEST_FILE: 1_000_000}  # every character of Unicode, escaped, fits
MAX_DEPTH = 16  # of arrays and objects in the manifest
MAX_ENTRIES = 16  # of `interpreters` and of `verified`

LOCAL_HEADER = struct.Struct("<4s5H3L2H")
CENTRAL_HEADER = struct.Struct("<4s6H3L5H2L")
END_RECORD = struct.Struct("<4s4H2LH")
STORED = 0
DIRECTORY_BYTES = sum(CENTRAL_HEADER.size + len(name) for name in MEMBER_LIMITS)
TAIL_BYTES = DIRECTORY_BYTES + END_RECORD.size

STATES_PER_LAYER = {"gru": 1, "lstm": 2}
WORD = re.compile(r"[A-Za-z0-9._+-]{1,64}")
RELEASE = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,7}")
SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Interpreter:
    """An interpreter that the file was made for."""

    name: str
    """`ai-edge-litert` or `tflite-runtime`, the name of its distribution."""
    minimum_version: str


@dataclass(frozen=True)
class Verified:
    """The quality that conversion measured on one interpreter, over held-out text with the state carried."""

    interpreter: str
    version: str
    characters: int
    nats_per_character: float
    reference_nats_per_character: float
    """The Keras model's, over the same characters."""
    kl_divergence: float | None = None
    """Of the file's next-character distributions from the Keras model's: the mean, in nats."""
    top_1_agreement: float | None = None
    """How often both think the same character the likeliest, 0 to 1."""
    largest_logit_difference: float | None = None

    @property
    def loss(self) -> float:
        """What the file loses against the Keras model, in nats per character."""
        return self.nats_per_character - self.reference_nats_per_character


@dataclass(frozen=True)
class Probe:
    """A few steps whose loss must come out as recorded on the machine that runs the file."""

    token_ids: list[int]
    nats_per_character: float
    tolerance: float


@dataclass(frozen=True)
class Manifest:
    """What `charedge.json` says of the model, in its order."""

    format_version: int
    name: str
    created_by: str
    created: str
    """When the training ended (ISO 8601), so that converting a run again gives the same bytes."""
    license: str
    cell: str
    layers: int
    units: int
    embedding_dim: int
    state_size: int
    vocabulary_size: int
    normalization: Normalization
    unknown: str
    """What becomes of a character outside the vocabulary: `skip` leaves it out, `unk` makes it id 0."""
    start_text: str
    """Fed, and not printed, where there is no prompt."""
    quantization: str
    input_table_folded: bool
    flatbuffer_sha256: str
    interpreters: list[Interpreter]
    verified: list[Verified]
    probe: Probe
    training: dict[str, Any]

    def to_json(self) -> bytes:
        return (json.dumps(asdict(self), indent=2, ensure_ascii=False) + "\n").encode()


@dataclass(frozen=True)
class Package:
    """A model file that was read and found whole."""

    path: Path
    manifest: Manifest
    vocabulary: Vocabulary
    flatbuffer: bytes


def read_package(path: str | Path) -> Package:
    """Read a model file and check everything that can be checked without an interpreter.

    Raises:
        CharedgeError: the file cannot be read, is none of ours, is damaged, or needs a newer charedge.
    """
    path = Path(path)
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        raise unreadable(path, error) from None
    if not stat.S_ISREG(status.st_mode) and not stat.S_ISDIR(status.st_mode):
        raise CharedgeError(f"{path} is not a regular file: copy the model into one.")  # a pipe or a device may never end
    try:
        with path.open("rb") as file:
            return parse_package(file, path)
    except OSError as error:
        raise unreadable(path, error) from None


def parse_package(file: BinaryIO, path: Path) -> Package:
    """Read a model file that is open, or in memory, and called `path`, with the same checks.

    Raises:
        CharedgeError: as `read_package`.
        OSError: the file cannot be read.
    """
    try:
        return _read(file, path)
    except _Damaged as damage:
        raise CharedgeError(
            f"{path} is damaged ({damage}): copy it again, or convert the run again with `charedge convert`."
        ) from None


class _Damaged(Exception):
    """What of the file is not as we write it."""


def _read(file: BinaryIO, path: Path) -> Package:
    zip_start, members = _read_zip(file, path)
    manifest = _parse_manifest(members[MANIFEST_FILE], path)
    lines = members[VOCABULARY_FILE].count(b"\n")
    if lines != manifest.vocabulary_size:
        raise _Damaged(f"{VOCABULARY_FILE} has {lines} lines, the manifest says {manifest.vocabulary_size}")
    vocabulary = Vocabulary.parse(members[VOCABULARY_FILE], f"{VOCABULARY_FILE} in {path}")
    start = vocabulary.encode(normalize(manifest.start_text, manifest.normalization))
    if not len(start) or (manifest.unknown == "skip" and UNKNOWN_ID in start):
        raise _Damaged(f"start_text in {MANIFEST_FILE} is not of characters in {VOCABULARY_FILE}")
    file.seek(0)
    flatbuffer = file.read(zip_start)
    if hashlib.sha256(flatbuffer).hexdigest() != manifest.flatbuffer_sha256:
        raise _Damaged("its SHA-256 is not the one that it was made with")
    return Package(path, manifest, vocabulary, flatbuffer)


def _read_zip(file: BinaryIO, path: Path) -> tuple[int, dict[str, bytes]]:
    """Where the ZIP begins, and its members; of the rest only the first bytes are read.

    Raises:
        CharedgeError: the file is none of ours, or was cut short.
    """
    file_size = file.seek(0, os.SEEK_END)
    file.seek(0)
    is_flatbuffer = file.read(8)[4:] == FLATBUFFER_IDENTIFIER
    try:
        if not TAIL_BYTES < file_size <= MAX_FLATBUFFER_BYTES + sum(MEMBER_LIMITS.values()):
            raise _Damaged("no model has its size")
        directory = file_size - TAIL_BYTES
        file.seek(directory)
        entries = list(_directory_entries(file.read(TAIL_BYTES), directory))
        zip_start = directory - sum(entry.size for entry in entries)
        if not is_flatbuffer or zip_start <= 0:
            raise _Damaged("it does not begin with a TFLite model")
        file.seek(zip_start)
        members, position = {}, zip_start
        for entry in entries:
            members[entry.name] = entry.read_member(file, position)
            position += entry.size
    except _Damaged as damage:
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
        """What must stand before the member's content, byte for byte."""
        numbers = (self.needed, 0, STORED, self.time, self.date, self.crc, self.length, self.length, len(self.name), 0)
        return LOCAL_HEADER.pack(b"PK\3\4", *numbers) + self.name.encode()

    @property
    def size(self) -> int:
        """Of the member, its header included."""
        return LOCAL_HEADER.size + len(self.name) + self.length

    def read_member(self, file: BinaryIO, position: int) -> bytes:
        """The member's content, the file standing at its beginning."""
        header = self.local_header
        if self.offset != position or file.read(len(header)) != header:
            raise _Damaged(f"{self.name} is not where the ZIP says it is")
        content = file.read(self.length)
        if zlib.crc32(content) != self.crc:
            raise _Damaged(f"{self.name} fails its checksum")
        return content


def _directory_entries(tail: bytes, directory: int) -> Iterator[_Entry]:
    """The ZIP's directory, which must be exactly ours: two stored members of known names, no extras, and the end record."""
    end = END_RECORD.pack(b"PK\5\6", 0, 0, len(MEMBER_LIMITS), len(MEMBER_LIMITS), DIRECTORY_BYTES, directory, 0)
    if tail[DIRECTORY_BYTES:] != end:
        raise _Damaged("it does not end with the ZIP of a model")
    limits, position = dict(MEMBER_LIMITS), 0
    while limits:
        header = CENTRAL_HEADER.unpack_from(tail, position)
        magic, _, needed, flags, method, time, date, crc, packed, length, name_length, extra, comment, disk, _, _, offset = header
        position += CENTRAL_HEADER.size
        name = tail[position : position + name_length].decode("ascii", "replace")
        position += name_length
        if (magic, flags, method, packed, extra, comment, disk) != (b"PK\1\2", 0, STORED, length, 0, 0, 0):
            raise _Damaged("a ZIP member is not stored as charedge stores it")
        if length > limits.pop(name, -1):
            raise _Damaged("the ZIP holds something else than a vocabulary and a manifest of sensible size")
        yield _Entry(name, needed, time, date, crc, length, offset)


def _parse_manifest(data: bytes, path: Path) -> Manifest:
    """The manifest, every field of the right type, in a sensible range, and in agreement with the others."""
    try:
        values = json.loads(data.decode(), object_pairs_hook=_distinct)
        json.dumps(values, ensure_ascii=False, allow_nan=False).encode()  # not so NaN, Infinity and halves of characters
        if _depth(values) > MAX_DEPTH:
            raise ValueError
    except (ValueError, RecursionError):
        raise _Damaged(f"{MANIFEST_FILE} is not JSON that charedge writes") from None
    if not isinstance(values, dict):
        raise _Damaged(f"{MANIFEST_FILE} is not a JSON object")
    version = values.get("format_version")
    if isinstance(version, int) and FORMAT_VERSION < version < 1000:
        raise CharedgeError(
            f"{path} has format version {version}, newer than this charedge reads: run `pip install --upgrade charedge`."
        )
    fields = _Fields(values)
    probe = _Fields(fields.get("probe", dict), "probe.")
    manifest = Manifest(
        format_version=fields.integer("format_version", FORMAT_VERSION, FORMAT_VERSION),
        name=fields.get("name", str),
        created_by=fields.get("created_by", str),
        created=fields.get("created", str),
        license=fields.get("license", str),
        cell=fields.choice("cell", tuple(STATES_PER_LAYER)),
        layers=fields.integer("layers", 1, 64),
        units=fields.integer("units", 1, 65_536),
        embedding_dim=fields.integer("embedding_dim", 1, 65_536),
        state_size=fields.integer("state_size", 1, 2**23),
        vocabulary_size=fields.integer("vocabulary_size", 2, 1_114_113),
        normalization=fields.choice("normalization", NORMALIZATIONS),
        unknown=fields.choice("unknown", ("skip", "unk")),
        start_text=fields.get("start_text", str),
        quantization=fields.match("quantization", WORD),
        input_table_folded=fields.get("input_table_folded", bool),
        flatbuffer_sha256=fields.match("flatbuffer_sha256", SHA256),
        interpreters=[
            Interpreter(entry.match("name", WORD), entry.match("minimum_version", RELEASE))
            for entry in fields.objects("interpreters")
        ],
        verified=[
            Verified(
                interpreter=entry.match("interpreter", WORD),
                version=entry.match("version", WORD),
                characters=entry.integer("characters", 0, 2**53),
                nats_per_character=entry.number("nats_per_character", 1000),
                reference_nats_per_character=entry.number("reference_nats_per_character", 1000),
                kl_divergence=entry.optional_number("kl_divergence", 1000),
                top_1_agreement=entry.optional_number("top_1_agreement", 1),
                largest_logit_difference=entry.optional_number("largest_logit_difference", 1e9),
            )
            for entry in fields.objects("verified")
        ],
        probe=Probe(
            token_ids=probe.get("token_ids", list),
            nats_per_character=probe.number("nats_per_character", 1000),
            tolerance=probe.number("tolerance", 1),
        ),
        training=fields.get("training", dict),
    )
    if manifest.state_size != manifest.layers * manifest.units * STATES_PER_LAYER[manifest.cell]:
        raise fields.wrong("state_size")
    ids = manifest.probe.token_ids
    if len(ids) != PROBE_LENGTH or not all(type(i) is int and 0 <= i < manifest.vocabulary_size for i in ids):
        raise probe.wrong("token_ids")
    return manifest


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, in which no key may stand twice."""
    values = dict(pairs)
    if len(values) != len(pairs):
        raise ValueError
    return values


def _depth(value: Any) -> int:
    """How deep arrays and objects are nested in each other."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
    return 0 if inner is None else 1 + max(map(_depth, inner), default=0)


class _Fields:
    """Typed access to a JSON object; `prefix` names it in errors."""

    def __init__(self, values: dict[str, Any], prefix: str = "") -> None:
        self.values, self.prefix = values, prefix

    def wrong(self, key: str) -> _Damaged:
        return _Damaged(f"{self.prefix}{key} in {MANIFEST_FILE} is missing or wrong")

    def get(self, key: str, kind: type[Any]) -> Any:
        value = self.values.get(key)
        if type(value) is not kind:
            raise self.wrong(key)
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        value = self.get(key, int)
        if not low <= value <= high:
            raise self.wrong(key)
        return value

    def number(self, key: str, high: float) -> float:
        value = self.values.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value <= high:
            raise self.wrong(key)
        return float(value)

    def optional_number(self, key: str, high: float) -> float | None:
        return None if self.values.get(key) is None else self.number(key, high)

    def choice(self, key: str, choices: tuple[Any, ...]) -> Any:
        value = self.get(key, str)
        if value not in choices:
            raise self.wrong(key)
        return value

    def match(self, key: str, pattern: re.Pattern[str]) -> str:
        value = self.get(key, str)
        if not pattern.fullmatch(value):
            raise self.wrong(key)
        return value

    def objects(self, key: str) -> list[_Fields]:
        values = self.get(key, list)
        if len(values) > MAX_ENTRIES or not all(isinstance(value, dict) for value in values):
            raise self.wrong(key)
        return [_Fields(value, f"{self.prefix}{key}.") for value in values]
