"""The model file: a TFLite flatbuffer, and behind it a ZIP that holds the vocabulary and the manifest.

Read here with the standard library alone, in the order of trust: the ZIP and its members within bounds, the manifest's types,
then the SHA-256 of the flatbuffer. Nothing of the flatbuffer is interpreted before that. This finds accidents, not malice.
"""

from __future__ import annotations

import hashlib
import json
import math
import struct
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import CharedgeError
from .text import NORMALIZATIONS, Normalization, read_bytes
from .vocabulary import Vocabulary

FORMAT_VERSION = 1
SIGNATURE = "step"
FLATBUFFER_IDENTIFIER = b"TFL3"
VOCABULARY_FILE = "vocabulary.txt"
MANIFEST_FILE = "charedge.json"
MEMBERS = (VOCABULARY_FILE, MANIFEST_FILE)
PROBE_LENGTH = 64

MAX_FLATBUFFER_BYTES = 2**31 - 1  # the offsets of a flatbuffer are signed 32-bit numbers
MAX_MEMBER_BYTES = 16_000_000  # every character of Unicode, escaped, fits
END_RECORD = struct.Struct("<4s4H2LH")
CENTRAL_HEADER = struct.Struct("<4s6H3L5H2L")
LOCAL_HEADER = struct.Struct("<4s5H3L2H")
STORED = 0
ENCRYPTED = 1


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
    data = read_bytes(path)
    try:
        zip_start, members = _read_zip(data)
    except (_Damaged, struct.error) as error:
        kind = "has no readable charedge metadata" if data[4:8] == FLATBUFFER_IDENTIFIER else "is not a charedge model"
        raise CharedgeError(
            f"{path} {kind}, or was cut short ({error}): copy it again, or make it with `charedge convert`."
        ) from None
    manifest = _parse_manifest(members[MANIFEST_FILE], path)
    vocabulary = Vocabulary.parse(members[VOCABULARY_FILE], f"{VOCABULARY_FILE} in {path}")
    if len(vocabulary) != manifest.vocabulary_size:
        raise _damaged(path, f"{VOCABULARY_FILE} has {len(vocabulary)} lines, the manifest says {manifest.vocabulary_size}")
    flatbuffer = data[:zip_start]
    if hashlib.sha256(flatbuffer).hexdigest() != manifest.flatbuffer_sha256:
        raise _damaged(path, "its SHA-256 is not the one that it was made with")
    return Package(path, manifest, vocabulary, flatbuffer)


class _Damaged(Exception):
    """The bytes are no ZIP as we write it."""


def _damaged(path: Path, reason: str) -> CharedgeError:
    return CharedgeError(f"{path} is damaged ({reason}): copy it again, or convert the run again with `charedge convert`.")


def _read_zip(data: bytes) -> tuple[int, dict[str, bytes]]:
    """Where the ZIP begins, and its members: exactly ours, stored, back to back, up to the end of the file."""
    if len(data) < END_RECORD.size:
        raise _Damaged("it is too short")
    end = len(data) - END_RECORD.size
    magic, _, _, _, entries, directory_size, directory, comment = END_RECORD.unpack_from(data, end)
    if magic != b"PK\5\6" or comment != 0:
        raise _Damaged("no ZIP ends where the file ends")
    if entries != len(MEMBERS) or directory + directory_size != end:
        raise _Damaged("the ZIP directory is not where it should be")
    members: dict[str, bytes] = {}
    places: list[tuple[int, int]] = []
    position = directory
    for _ in range(entries):
        name, member, position = _read_entry(data, position)
        if name in members:
            raise _Damaged(f"the ZIP holds {name} twice")
        start, stop, members[name] = _read_member(data, member, name)
        places.append((start, stop))
    edges = [place for pair in sorted(places) for place in pair] + [directory]
    if position != end or any(edges[i] != edges[i + 1] for i in range(1, len(edges), 2)) or edges[0] > MAX_FLATBUFFER_BYTES:
        raise _Damaged("the ZIP has gaps")
    return edges[0], members


@dataclass(frozen=True)
class _Entry:
    """What the ZIP directory says of a member."""

    offset: int
    size: int
    crc: int


def _read_entry(data: bytes, position: int) -> tuple[str, _Entry, int]:
    """A member's name, its entry in the directory, and where the next entry begins."""
    header = CENTRAL_HEADER.unpack_from(data, position)
    magic, _, _, flags, method, _, _, crc, packed, size, name_length, extra, remark, _, _, _, offset = header
    name = data[position + CENTRAL_HEADER.size :][:name_length].decode("ascii", "replace") if name_length < 64 else ""
    if magic != b"PK\1\2" or flags & ENCRYPTED or method != STORED or packed != size or size > MAX_MEMBER_BYTES:
        raise _Damaged("a ZIP member is not stored as charedge stores it")
    if name not in MEMBERS:
        raise _Damaged("the ZIP holds something else than the vocabulary and the manifest")
    return name, _Entry(offset, size, crc), position + CENTRAL_HEADER.size + name_length + extra + remark


def _read_member(data: bytes, entry: _Entry, name: str) -> tuple[int, int, bytes]:
    """Where a member begins and ends, its header included, and its content."""
    magic, _, flags, method, _, _, _, _, _, name_length, extra = LOCAL_HEADER.unpack_from(data, entry.offset)
    start = entry.offset + LOCAL_HEADER.size + name_length + extra
    own_name = data[entry.offset + LOCAL_HEADER.size :][: min(name_length, 64)]
    if magic != b"PK\3\4" or flags & ENCRYPTED or method != STORED or own_name != name.encode():
        raise _Damaged("a ZIP member's two headers differ")
    content = data[start : start + entry.size]
    if len(content) != entry.size or zlib.crc32(content) != entry.crc:
        raise _Damaged(f"{name} fails its checksum")
    return entry.offset, start + entry.size, content


def _parse_manifest(data: bytes, path: Path) -> Manifest:
    """The manifest, every field of the right type and in a sensible range."""
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise _damaged(path, f"{MANIFEST_FILE} is not JSON") from None
    if not isinstance(fields, dict):
        raise _damaged(path, f"{MANIFEST_FILE} is not a JSON object")
    version = fields.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise CharedgeError(
            f"{path} has format version {version}, newer than this charedge reads: run `pip install --upgrade charedge`."
        )
    reader = _Fields(fields, path)
    probe = _Fields(reader.get("probe", dict), path, "probe.")
    manifest = Manifest(
        format_version=reader.integer("format_version", 1, FORMAT_VERSION),
        name=reader.get("name", str),
        created_by=reader.get("created_by", str),
        created=reader.get("created", str),
        license=reader.get("license", str),
        cell=reader.choice("cell", ("gru", "lstm")),
        layers=reader.integer("layers", 1, 64),
        units=reader.integer("units", 1, 65_536),
        embedding_dim=reader.integer("embedding_dim", 1, 65_536),
        state_size=reader.integer("state_size", 1, 2**23),
        vocabulary_size=reader.integer("vocabulary_size", 2, 1_114_113),
        normalization=reader.choice("normalization", NORMALIZATIONS),
        unknown=reader.choice("unknown", ("skip", "unk")),
        start_text=reader.get("start_text", str),
        quantization=reader.get("quantization", str),
        input_table_folded=reader.get("input_table_folded", bool),
        flatbuffer_sha256=reader.get("flatbuffer_sha256", str),
        interpreters=[
            Interpreter(entry.get("name", str), entry.get("minimum_version", str)) for entry in reader.entries("interpreters")
        ],
        verified=[
            Verified(
                interpreter=entry.get("interpreter", str),
                version=entry.get("version", str),
                characters=entry.integer("characters", 0, 2**53),
                nats_per_character=entry.number("nats_per_character"),
                reference_nats_per_character=entry.number("reference_nats_per_character"),
            )
            for entry in reader.entries("verified")
        ],
        probe=Probe(
            token_ids=probe.get("token_ids", list),
            nats_per_character=probe.number("nats_per_character"),
            tolerance=probe.number("tolerance"),
        ),
        training=reader.get("training", dict),
    )
    ids = manifest.probe.token_ids
    if len(ids) != PROBE_LENGTH or not all(type(i) is int and 0 <= i < manifest.vocabulary_size for i in ids):
        raise _damaged(path, f"probe.token_ids in {MANIFEST_FILE} are not {PROBE_LENGTH} token ids")
    return manifest


class _Fields:
    """Typed access to a JSON object; `prefix` names it in errors."""

    def __init__(self, fields: dict[str, Any], path: Path, prefix: str = "") -> None:
        self.fields, self.path, self.prefix = fields, path, prefix

    def wrong(self, key: str) -> CharedgeError:
        return _damaged(self.path, f"{self.prefix}{key} in {MANIFEST_FILE} is missing or wrong")

    def get(self, key: str, kind: type[Any]) -> Any:
        value = self.fields.get(key)
        if type(value) is not kind:
            raise self.wrong(key)
        return value

    def integer(self, key: str, low: int, high: int) -> int:
        value = self.get(key, int)
        if not low <= value <= high:
            raise self.wrong(key)
        return value

    def number(self, key: str) -> float:
        value = self.fields.get(key)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
            raise self.wrong(key)
        return float(value)

    def choice(self, key: str, choices: tuple[Any, ...]) -> Any:
        value = self.get(key, str)
        if value not in choices:
            raise self.wrong(key)
        return value

    def entries(self, key: str) -> list[_Fields]:
        values = self.get(key, list)
        if len(values) > 16 or not all(isinstance(value, dict) for value in values):
            raise self.wrong(key)
        return [_Fields(value, self.path, f"{self.prefix}{key}.") for value in values]
