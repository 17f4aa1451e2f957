"""Where the headers of a model file's ZIP are, and their fields."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from .steps import patch


@dataclass(frozen=True)
class Header:
    """A ZIP header at some offset, its fields by name."""

    at: int
    fields: dict[str, tuple[int, str]]

    def get(self, data: bytes, name: str) -> int:
        offset, kind = self.fields[name]
        return struct.unpack_from(f"<{kind}", data, self.at + offset)[0]

    def set(self, data: bytes, name: str, value: int) -> bytes:
        offset, kind = self.fields[name]
        return patch(data, self.at + offset, struct.pack(f"<{kind}", value))

    def largest(self, name: str) -> int:
        return 256 ** struct.calcsize(f"<{self.fields[name][1]}") - 1


COMMON = [
    ("needed", "H"),
    ("flags", "H"),
    ("method", "H"),
    ("time", "H"),
    ("date", "H"),
    ("crc", "L"),
    ("packed", "L"),
    ("size", "L"),
]
LENGTHS = [("name_length", "H"), ("extra_length", "H")]
PLACES = [("comment_length", "H"), ("disk", "H"), ("internal", "H"), ("external", "L"), ("offset", "L")]
COUNTS = [("disk", "H"), ("directory_disk", "H"), ("entries_here", "H"), ("entries", "H")]
EXTENT = [("directory_size", "L"), ("directory_offset", "L"), ("comment_length", "H")]


def _fields(*names: tuple[str, str]) -> dict[str, tuple[int, str]]:
    offset, fields = 4, {"magic": (0, "L")}
    for name, kind in names:
        fields[name] = (offset, kind)
        offset += struct.calcsize(f"<{kind}")
    return fields


LOCAL = _fields(*COMMON, *LENGTHS)
CENTRAL = _fields(("made_by", "H"), *COMMON, *LENGTHS, *PLACES)
END = _fields(*COUNTS, *EXTENT)


@dataclass(frozen=True)
class Layout:
    """Where the headers of a model file's ZIP are, if it has two members and no comment."""

    locals: list[Header]
    central: list[Header]
    end: Header

    @classmethod
    def of(cls, data: bytes) -> Layout:
        end = Header(len(data) - 22, END)
        at, central = end.get(data, "directory_offset"), []
        for _ in range(2):
            central.append(Header(at, CENTRAL))
            at += 46 + central[-1].get(data, "name_length")
        return cls([Header(header.get(data, "offset"), LOCAL) for header in central], central, end)

    @property
    def headers(self) -> list[Header]:
        return [*self.locals, *self.central, self.end]

    @property
    def directory(self) -> int:
        return self.central[0].at

    @property
    def seams(self) -> list[int]:
        """Where the ZIP, its second member, its directory and its end record begin."""
        return [*sorted(header.at for header in self.locals), self.directory, self.end.at]
