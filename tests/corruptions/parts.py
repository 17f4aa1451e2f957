"""The parts of a model file, taken apart and packed again by the standard library."""

from __future__ import annotations

import hashlib
import json
import warnings
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

VOCABULARY, MANIFEST = "vocabulary.txt", "charedge.json"
ZIP_DATE = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Parts:
    """The flatbuffer and the two members of a model file."""

    flatbuffer: bytes
    vocabulary: bytes
    manifest: dict[str, Any]

    @classmethod
    def of(cls, data: bytes) -> Parts:
        with zipfile.ZipFile(BytesIO(data)) as archive:
            start = min(member.header_offset for member in archive.infolist())
            return cls(data[:start], archive.read(VOCABULARY), json.loads(archive.read(MANIFEST)))

    @property
    def members(self) -> list[tuple[str, bytes]]:
        return [(VOCABULARY, self.vocabulary), (MANIFEST, to_json(self.manifest))]

    def pack(self) -> bytes:
        return pack(self.flatbuffer, self.members)


def to_json(fields: object) -> bytes:
    return (json.dumps(fields, indent=2) + "\n").encode()


def pack(
    flatbuffer: bytes,
    members: Sequence[tuple[str, bytes]],
    compression: int = zipfile.ZIP_STORED,
    comment: bytes = b"",
    extra: bytes = b"",
    member_comment: bytes = b"",
) -> bytes:
    """A flatbuffer followed by a ZIP of the members, with correct checksums."""
    file = BytesIO(flatbuffer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about a name that is given twice
        with zipfile.ZipFile(file, "a", compression) as archive:
            for name, content in members:
                member = zipfile.ZipInfo(name, ZIP_DATE)
                member.compress_type, member.extra, member.comment = compression, extra, member_comment
                archive.writestr(member, content)
            archive.comment = comment
    return file.getvalue()


def with_vocabulary(data: bytes, vocabulary: bytes) -> bytes:
    return replace(Parts.of(data), vocabulary=vocabulary).pack()


def with_manifest(data: bytes, fields: dict[str, Any]) -> bytes:
    return with_manifest_bytes(data, to_json(fields))


def with_manifest_bytes(data: bytes, content: bytes) -> bytes:
    parts = Parts.of(data)
    return pack(parts.flatbuffer, [(VOCABULARY, parts.vocabulary), (MANIFEST, content)])


def another_model(data: bytes) -> bytes:
    """A whole model file with other weights, another name and another vocabulary of the same size."""
    parts = Parts.of(data)
    flatbuffer = bytearray(parts.flatbuffer)
    for offset in range(len(flatbuffer) // 4, len(flatbuffer) // 2, 7):
        flatbuffer[offset] ^= 1
    words = parts.vocabulary.decode().split("\n")
    vocabulary = "\n".join([words[0], *reversed(words[1:-1]), ""]).encode()
    manifest = parts.manifest | {"name": "another", "flatbuffer_sha256": hashlib.sha256(flatbuffer).hexdigest()}
    return Parts(bytes(flatbuffer), vocabulary, manifest).pack()
