"""Seeded damage to a model file: every corruption is a pure function of the file's bytes and a random generator.

Damage means that something got lost, mixed up or mistaken. Left out is what makes another valid model: a manifest with another
`start_text`, a vocabulary with the characters in another order, other weights under a SHA-256 of their own. That is an edit, and
a reader does what the edited file says.
"""

from __future__ import annotations

import base64
import copy
import gzip
import hashlib
import json
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

import numpy as np

Random = np.random.Generator
Corruption = Callable[[bytes, Random], bytes]

CORRUPTIONS: dict[str, Corruption] = {}
VOCABULARY, MANIFEST = "vocabulary.txt", "charedge.json"
ZIP_DATE = (1980, 1, 1, 0, 0, 0)
PAGE = 4096


def damage(data: bytes, seed: int, case: int) -> tuple[str, bytes]:
    """A case of a seed: the name of its corruption, and the damaged file. The corruptions take turns."""
    name = list(CORRUPTIONS)[case % len(CORRUPTIONS)]
    random = np.random.default_rng([seed, case])
    damaged = data
    for _ in range(100):  # a page may be swapped with itself: then again
        damaged = CORRUPTIONS[name](data, random)
        if damaged != data:
            break
    return name, damaged


def corruption(function: Corruption) -> Corruption:
    CORRUPTIONS[function.__name__.replace("_", " ")] = function
    return function


# The parts of a model file, taken apart and packed again by the standard library.


@dataclass(frozen=True)
class Parts:
    """What a model file is made of."""

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
    """A flatbuffer and behind it a ZIP, with checksums that are right."""
    file = BytesIO(flatbuffer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of names that are there twice
        with zipfile.ZipFile(file, "a", compression) as archive:
            for name, content in members:
                member = zipfile.ZipInfo(name, ZIP_DATE)
                member.compress_type, member.extra, member.comment = compression, extra, member_comment
                archive.writestr(member, content)
            archive.comment = comment
    return file.getvalue()


def place(data: bytes, random: Random, margin: int = 0) -> int:
    """An offset in the data, at least `margin` bytes before its end."""
    return int(random.integers(0, max(1, len(data) - margin)))


def pick(random: Random, choices: Sequence[Any]) -> Any:
    return choices[int(random.integers(len(choices)))]


def noise(random: Random, low: int, high: int) -> bytes:
    """Some bytes: random ones, zeros or ones."""
    size = int(random.integers(low, high + 1))
    return pick(random, [random.bytes(size), b"\0" * size, b"\xff" * size])


def patch(data: bytes, offset: int, content: bytes) -> bytes:
    return data[:offset] + content + data[offset + len(content) :]


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


# A bad disk, a bad cable, a copy that stopped, a transfer in the wrong mode.


@corruption
def one_bit_flipped(data: bytes, random: Random) -> bytes:
    return _flip(data, random, 0, 1)


@corruption
def bits_flipped(data: bytes, random: Random) -> bytes:
    return _flip(data, random, 0, int(random.integers(2, 65)))


@corruption
def a_bit_of_the_members_flipped(data: bytes, random: Random) -> bytes:
    return _flip(data, random, len(Parts.of(data).flatbuffer), 1)


@corruption
def a_bit_of_the_zip_directory_flipped(data: bytes, random: Random) -> bytes:
    return _flip(data, random, Layout.of(data).directory, 1)


def _flip(data: bytes, random: Random, start: int, bits: int) -> bytes:
    damaged = bytearray(data)
    for bit in random.integers(8 * start, 8 * len(data), bits):
        damaged[bit // 8] ^= 1 << (bit % 8)
    return bytes(damaged)


@corruption
def a_run_of_bytes_overwritten(data: bytes, random: Random) -> bytes:
    content = noise(random, 1, 2000)[: len(data)]
    return patch(data, place(data, random, len(content)), content)


@corruption
def a_page_zeroed(data: bytes, random: Random) -> bytes:
    start = place(data, random) // PAGE * PAGE
    return patch(data, start, bytes(len(data[start : start + PAGE])))


@corruption
def a_page_repeated(data: bytes, random: Random) -> bytes:
    source, target = (place(data, random, PAGE) // PAGE * PAGE for _ in range(2))
    return patch(data, target, data[source : source + PAGE])


@corruption
def two_pages_swapped(data: bytes, random: Random) -> bytes:
    one, two = (place(data, random, PAGE) // PAGE * PAGE for _ in range(2))
    return patch(patch(data, one, data[two : two + PAGE]), two, data[one : one + PAGE])


@corruption
def the_end_zeroed(data: bytes, random: Random) -> bytes:
    """As a download that reserved its space and stopped."""
    start = place(data, random)
    return data[:start] + bytes(len(data) - start)


@corruption
def the_beginning_zeroed(data: bytes, random: Random) -> bytes:
    size = 1 + place(data, random)
    return bytes(size) + data[size:]


@corruption
def cut_short(data: bytes, random: Random) -> bytes:
    return data[: place(data, random)]


@corruption
def the_last_bytes_missing(data: bytes, random: Random) -> bytes:
    return data[: -int(random.integers(1, 300))]


@corruption
def the_first_bytes_missing(data: bytes, random: Random) -> bytes:
    return data[1 + place(data, random) :]


@corruption
def a_part_missing(data: bytes, random: Random) -> bytes:
    start = place(data, random)
    return data[:start] + data[start + int(random.integers(1, 5000)) :]


@corruption
def bytes_appended(data: bytes, random: Random) -> bytes:
    return data + pick(random, [noise(random, 1, 3000), b"\n", b"\r\n", b"\x1a"])


@corruption
def bytes_prepended(data: bytes, random: Random) -> bytes:
    return pick(random, [noise(random, 1, 3000), b"\xef\xbb\xbf", b"#!/bin/sh\n"]) + data


@corruption
def bytes_inserted(data: bytes, random: Random) -> bytes:
    start = place(data, random)
    return data[:start] + noise(random, 1, 3000) + data[start:]


@corruption
def written_over_a_longer_file(data: bytes, random: Random) -> bytes:
    return data + data[place(data, random) :]


@corruption
def written_twice(data: bytes, random: Random) -> bytes:
    return data * int(random.integers(2, 5))


@corruption
def sent_as_text(data: bytes, random: Random) -> bytes:
    return pick(
        random,
        [
            data.replace(b"\n", b"\r\n"),
            data.replace(b"\r\n", b"\n").replace(b"\n", b""),
            bytes(byte & 0x7F for byte in data),
            data.decode("latin-1").encode("utf-8"),
            data.decode("utf-8", "replace").encode("utf-8"),
            data.decode("utf-8", "ignore").encode("utf-8"),
            data.rstrip(b"\0"),
            data.split(b"\0")[0],
        ],
    ) + (b"" if random.random() < 0.5 else b"\n")


@corruption
def wrapped_in_another_format(data: bytes, random: Random) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo(pick(random, ["model.tflite", VOCABULARY, MANIFEST]), ZIP_DATE), data)
    encoded = base64.b64encode(data)
    return pick(random, [gzip.compress(data, mtime=0), encoded, encoded.hex().encode(), file.getvalue(), data[::-1]])


@corruption
def something_else_downloaded(data: bytes, random: Random) -> bytes:
    digest = hashlib.sha256(data).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(data)}\n".encode()
    page = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n"
    return pick(random, [b"", pointer, page, bytes(len(data)), random.bytes(len(data)), data[:8], data[:4] + b"TFL3", b"PK\5\6"])


@corruption
def two_files_spliced(data: bytes, random: Random) -> bytes:
    """The beginning of one and the end of another, cut at the same place, or each at its own, or at a seam of the format."""
    other = another_model(data)
    seams = [part for at in Layout.of(data).seams for part in (at, at)]
    cut = pick(random, [place(data, random), place(data, random), *seams])
    spliced = data[:cut] + other[pick(random, [cut, cut, place(other, random)]) :]
    return data if spliced == other else spliced  # where they begin alike, that is the whole other model and no damage


@corruption
def the_zip_of_another_model(data: bytes, random: Random) -> bytes:
    own, other = Parts.of(data), Parts.of(another_model(data))
    return pack(*pick(random, [(own.flatbuffer, other.members), (other.flatbuffer, own.members)]))


# The ZIP: its members, and then its headers.


@corruption
def a_member_missing(data: bytes, random: Random) -> bytes:
    parts = Parts.of(data)
    return pack(parts.flatbuffer, pick(random, [parts.members[:1], parts.members[1:], []]))


@corruption
def the_members_in_the_other_order(data: bytes, random: Random) -> bytes:
    parts = Parts.of(data)
    return pack(parts.flatbuffer, parts.members[::-1])


@corruption
def the_names_swapped(data: bytes, random: Random) -> bytes:
    (one, vocabulary), (two, manifest) = Parts.of(data).members
    return pack(
        Parts.of(data).flatbuffer, pick(random, [[(one, manifest), (two, vocabulary)], [(two, vocabulary), (one, manifest)]])
    )


@corruption
def a_member_more(data: bytes, random: Random) -> bytes:
    parts = Parts.of(data)
    name = pick(random, ["README", "labels.txt", "", "__MACOSX/._charedge.json", "charedge.json.bak", "x" * 65535])
    members = parts.members
    members.insert(int(random.integers(3)), (name, noise(random, 0, 2000)))
    return pack(parts.flatbuffer, members)


@corruption
def thousands_of_members(data: bytes, random: Random) -> bytes:
    parts = Parts.of(data)
    more = [(f"{number}.txt", b"x") for number in range(int(random.integers(100, 5000)))]
    return pack(parts.flatbuffer, [*more, *parts.members] if random.random() < 0.5 else [*parts.members, *more])


@corruption
def a_member_twice(data: bytes, random: Random) -> bytes:
    parts = Parts.of(data)
    name, content = pick(random, parts.members)
    again = (name, pick(random, [content, b"", noise(random, 1, 500)]))
    return pack(parts.flatbuffer, pick(random, [[*parts.members, again], [again, *parts.members], [again, (name, content)]]))


@corruption
def a_member_renamed(data: bytes, random: Random) -> bytes:
    parts = Parts.of(data)
    which = int(random.integers(2))
    name = parts.members[which][0]
    names = [f"../{name}", f"/{name}", f"a/{name}", f"./{name}", f"C:\\{name}", f"{name}/", name.upper(), f"{name} ", f"é{name}"]
    renamed = parts.members
    renamed[which] = (pick(random, [*names, name[:-1], "", "." * 300, "\u202e" + name]), renamed[which][1])
    return pack(parts.flatbuffer, renamed)


@corruption
def members_compressed(data: bytes, random: Random) -> bytes:
    parts = Parts.of(data)
    return pack(parts.flatbuffer, parts.members, pick(random, [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))


@corruption
def a_zip_bomb(data: bytes, random: Random) -> bytes:
    """A few kilobytes that unpack to megabytes, in the place of the vocabulary or the manifest."""
    parts = Parts.of(data)
    bomb = pick(random, [b"\0", b" ", b"\n", b"["]) * int(random.integers(1, 30)) * 1_000_000
    which = int(random.integers(2))
    members = parts.members
    members[which] = (members[which][0], bomb)
    return pack(parts.flatbuffer, members, zipfile.ZIP_DEFLATED)


@corruption
def a_zip_bomb_that_says_it_is_stored(data: bytes, random: Random) -> bytes:
    bombed = a_zip_bomb(data, random)
    layout = Layout.of(bombed)
    for header in [*layout.locals, *layout.central]:
        bombed = header.set(bombed, "method", 0)
        if random.random() < 0.5:
            bombed = header.set(bombed, "packed", header.get(bombed, "size"))
    return bombed


@corruption
def a_member_oversized(data: bytes, random: Random) -> bytes:
    """Stored and with a right checksum: spaces before the JSON, or lines more than there are characters."""
    parts = Parts.of(data)
    size = int(random.integers(1, 30)) * 1_000_000
    if random.random() < 0.4:
        manifest = to_json(parts.manifest)
        beginning = pick(random, [b" ", b"\n", b"[", b'{"', b"9"]) * size
        return _with_manifest_bytes(data, beginning + manifest)
    more = pick(random, [b"\n", b"a\n", b"ab\n", b"\\", b"a", "\u4e00\n".encode()])
    return _with_vocabulary(data, parts.vocabulary + more * (size // len(more)) + b"\n")


@corruption
def comments_and_extra_fields(data: bytes, random: Random) -> bytes:
    parts = Parts.of(data)
    extra = struct.pack("<HH", 0x5455, 5) + b"\3" + random.bytes(4)
    kinds: list[dict[str, bytes]] = [{"comment": b"hello"}, {"member_comment": b"hello"}, {"extra": extra}, {"comment": data[-22:]}]
    return pack(parts.flatbuffer, parts.members, **pick(random, kinds))


@corruption
def a_gap_in_the_zip(data: bytes, random: Random) -> bytes:
    """Bytes that no header accounts for, though every offset is right: before a member, the directory or the end record."""
    layout, gap = Layout.of(data), noise(random, 1, 500)
    at = pick(random, layout.seams)
    for header in layout.central:
        data = header.set(data, "offset", header.get(data, "offset") + (len(gap) if header.get(data, "offset") >= at else 0))
    data = layout.end.set(data, "directory_offset", layout.directory + (len(gap) if layout.directory >= at else 0))
    return data[:at] + gap + data[at:]


@corruption
def entries_that_overlap(data: bytes, random: Random) -> bytes:
    layout = Layout.of(data)
    one, two = layout.central
    offsets = [(header.get(data, "offset"), header) for header in (one, two)]
    return pick(
        random,
        [
            one.set(data, "offset", offsets[1][0]),
            two.set(data, "offset", offsets[0][0]),
            two.set(data, "offset", offsets[0][0] + int(random.integers(1, 200))),
            one.set(one.set(data, "size", one.get(data, "size") + 100), "packed", one.get(data, "packed") + 100),
            patch(data, two.at, data[one.at : one.at + 46]),
        ],
    )


@corruption
def a_header_field_wrong(data: bytes, random: Random) -> bytes:
    header = pick(random, Layout.of(data).headers)
    name = pick(random, list(header.fields))
    now, most = header.get(data, name), header.largest(name)
    return header.set(data, name, pick(random, [0, 1, most, most - 1, now ^ 1, (now + 1) & most, int(random.integers(most + 1))]))


@corruption
def header_fields_wrong_in_both_headers(data: bytes, random: Random) -> bytes:
    """The directory and the member's own header lie alike."""
    layout, which = Layout.of(data), int(random.integers(2))
    local, central = layout.locals[which], layout.central[which]
    names = pick(
        random, [["flags"], ["method"], ["crc"], ["packed"], ["size"], ["packed", "size"], ["name_length"], ["extra_length"]]
    )
    for name in names:
        now, most = local.get(data, name), local.largest(name)
        value = pick(random, [0, 1, 8, most, now - 1, now + 1]) & most
        data = central.set(local.set(data, name, value), name, value)
    return data


@corruption
def huge_counts_and_sizes(data: bytes, random: Random) -> bytes:
    for header in Layout.of(data).headers:
        for name in ("packed", "size", "offset", "directory_size", "directory_offset", "entries", "name_length", "extra_length"):
            if name in header.fields and random.random() < 0.3:
                data = header.set(data, name, header.largest(name) - int(random.integers(3)))
    return data


@corruption
def zip64_markers(data: bytes, random: Random) -> bytes:
    """The values that send a reader to the 64-bit records, with and without such records."""
    layout = Layout.of(data)
    end = data[layout.end.at :]
    record = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 2, 2, layout.end.at - layout.directory, pick(random, [layout.directory, 2**63])
    )
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, pick(random, [layout.end.at, 2**64 - 1]), 1)
    for name in ("entries_here", "entries", "directory_size", "directory_offset"):
        if random.random() < 0.7:
            end = replace(layout.end, at=0).set(end, name, layout.end.largest(name))
    for header in layout.central:
        if random.random() < 0.3:
            data = header.set(data, pick(random, ["packed", "size", "offset"]), 0xFFFFFFFF)
    return data[: layout.end.at] + pick(random, [record + locator, locator, b""]) + end


@corruption
def encrypted_or_streamed_members(data: bytes, random: Random) -> bytes:
    """Flags that say encrypted, sizes that follow the data, or names in UTF-8."""
    flag = 1 << int(random.integers(16))
    for header in Layout.of(data).headers:
        if "flags" in header.fields and random.random() < 0.9:
            data = header.set(data, "flags", header.get(data, "flags") | flag)
    return data


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


# The vocabulary, in a ZIP whose checksums are right.


@corruption
def a_vocabulary_too_short(data: bytes, random: Random) -> bytes:
    lines = _lines(data)
    return _with_lines(data, lines[: -int(random.integers(1, len(lines)))])


@corruption
def a_vocabulary_too_long(data: bytes, random: Random) -> bytes:
    more = [chr(0x4E00 + number) for number in range(int(random.integers(1, 500)))]
    return _with_lines(data, [*_lines(data), *more])


@corruption
def a_vocabulary_of_another_size_and_a_manifest_that_agrees(data: bytes, random: Random) -> bytes:
    more = [chr(0x4E00 + number) for number in range(int(random.integers(1, 2000)))]
    lines = _lines(data)
    lines = pick(random, [lines[: -int(random.integers(1, 9))], [*lines, *more]])
    parts = Parts.of(_with_lines(data, lines))
    return replace(parts, manifest=parts.manifest | {"vocabulary_size": len(lines)}).pack()


@corruption
def a_vocabulary_of_all_unicode(data: bytes, random: Random) -> bytes:
    """As long as a vocabulary can be, with a manifest that agrees: only the model's shapes say no."""
    first = int(random.integers(0x4E00, 0xA000))
    last = int(pick(random, [0xE000, 0xF000, 0x12000, 0x40000, 0x110000]))
    lines = ["[UNK]", *(f"\\u{code:04X}" for code in range(first, 0xD800)), *map(chr, range(0xE000, last))]
    parts = Parts.of(_with_lines(data, lines))
    return replace(parts, manifest=parts.manifest | {"vocabulary_size": len(lines)}).pack()


@corruption
def a_line_of_the_vocabulary_wrong(data: bytes, random: Random) -> bytes:
    lines = _lines(data)
    at = int(random.integers(len(lines)))
    wrong = ["", "ab", "\\", "\\x", "\\u12", "\\uD800", "\\U00110000", "\\UFFFFFFFF", "a" * 100_000, "[UNK]", "\r", "\ufeff[UNK]"]
    lines[at] = pick(random, [*wrong, lines[at - 1], lines[at] + "\r", lines[at] * 2, " " + lines[at], lines[at] + "\u0301"])
    return _with_lines(data, lines)


@corruption
def lines_of_the_vocabulary_joined_or_split(data: bytes, random: Random) -> bytes:
    content = Parts.of(data).vocabulary
    at = place(content, random)
    feed = content.find(b"\n", at)
    return _with_vocabulary(
        data,
        pick(
            random,
            [
                content[:feed] + content[feed + 1 :],
                content[:at] + b"\n" + content[at:],
                content[:-1],
                content + b"\n",
                b"\n" + content,
                content.replace(b"\n", b"\r\n"),
                content.replace(b"\n", b"\0"),
            ],
        ),
    )


@corruption
def a_vocabulary_in_another_encoding(data: bytes, random: Random) -> bytes:
    content = Parts.of(data).vocabulary
    text = content.decode()
    wrong = [text.encode("utf-16"), text.encode("utf-32"), text.encode("utf-8-sig"), text.replace("a", "é").encode("latin-1")]
    return _with_vocabulary(
        data, pick(random, [*wrong, content.replace(b"a", b"\xed\xa0\x80"), content.replace(b"a", b"\xc0\x80")])
    )


@corruption
def bytes_of_the_vocabulary_wrong(data: bytes, random: Random) -> bytes:
    content = Parts.of(data).vocabulary
    return _with_vocabulary(data, pick(random, [b"", noise(random, 1, 100_000), content[: place(content, random)], content * 2]))


@corruption
def a_vocabulary_that_is_another_file(data: bytes, random: Random) -> bytes:
    parts = Parts.of(data)
    return _with_vocabulary(data, pick(random, [to_json(parts.manifest), parts.flatbuffer, data, b"[UNK]\n" * len(_lines(data))]))


def _lines(data: bytes) -> list[str]:
    return Parts.of(data).vocabulary.decode().split("\n")[:-1]


def _with_lines(data: bytes, lines: Sequence[str]) -> bytes:
    return _with_vocabulary(data, "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass"))


def _with_vocabulary(data: bytes, vocabulary: bytes) -> bytes:
    return replace(Parts.of(data), vocabulary=vocabulary).pack()


# The manifest, in a ZIP whose checksums are right.


@corruption
def a_field_of_the_wrong_type(data: bytes, random: Random) -> bytes:
    fields = copy.deepcopy(Parts.of(data).manifest)
    owner, key = pick(random, list(_places(fields)))
    values = [None, True, 3, -1, 2.5, "nothing", "", [], {}, [[]], {"a": 1}, [None] * 64, "64"]
    owner[key] = pick(random, [value for value in values if type(value) is not type(owner[key])])
    return _with_manifest(data, fields)


@corruption
def fields_missing(data: bytes, random: Random) -> bytes:
    fields = copy.deepcopy(Parts.of(data).manifest)
    for _ in range(int(random.integers(1, 4))):
        owner, key = pick(random, list(_places(fields)))
        del owner[key]
    return _with_manifest(data, fields)


@corruption
def a_field_more(data: bytes, random: Random) -> bytes:
    fields = copy.deepcopy(Parts.of(data).manifest)
    owner, _ = pick(random, [found for found in _places(fields) if isinstance(found[0], dict)])
    owner[pick(random, ["x", "", "__class__", "path", "é"])] = pick(random, JUNK)
    return _with_manifest(data, fields)


@corruption
def a_field_in_another_spelling(data: bytes, random: Random) -> bytes:
    fields = copy.deepcopy(Parts.of(data).manifest)
    owner, key = pick(random, [found for found in _places(fields) if isinstance(found[0], dict)])
    owner[pick(random, [key.upper(), key.replace("_", "-"), key + " ", "a" + key])] = owner.pop(key)
    return _with_manifest(data, fields)


@corruption
def a_manifest_that_lies_about_shapes(data: bytes, random: Random) -> bytes:
    fields = copy.deepcopy(Parts.of(data).manifest)
    for _ in range(int(random.integers(1, 3))):
        key = pick(random, ["state_size", "vocabulary_size", "units", "layers", "embedding_dim"])
        now = fields[key]
        fields[key] = pick(
            random, [now + 1, now - 1, 2 * now, now // 2, 0, -now, 2**31, 2**63, 10**400, int(random.integers(1, 70_000))]
        )
    return _with_manifest(data, fields)


@corruption
def a_manifest_that_lies_about_shapes_and_agrees_with_itself(data: bytes, random: Random) -> bytes:
    fields = copy.deepcopy(Parts.of(data).manifest)
    layers, units = int(random.integers(1, 9)), int(random.integers(1, 4097))
    cell = pick(random, ["gru", "lstm"])
    state = layers * units * (1 if cell == "gru" else 2)
    return _with_manifest(data, {**fields, "cell": cell, "layers": layers, "units": units, "state_size": state})


@corruption
def numbers_that_are_none(data: bytes, random: Random) -> bytes:
    """NaN and the infinities, which Python's JSON writes and reads, and numbers that only become infinite when read."""
    fields = copy.deepcopy(Parts.of(data).manifest)
    owner, key = _number(fields, random)
    owner[key] = "@"
    value = pick(
        random, ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "0x10", "1_000", "01", "+1", ".5", "5.", "\uff11"]
    )
    return _with_manifest_bytes(data, to_json(fields).replace(b'"@"', value.encode()))


@corruption
def huge_numbers(data: bytes, random: Random) -> bytes:
    fields = copy.deepcopy(Parts.of(data).manifest)
    owner, key = _number(fields, random)
    owner[key] = "@"
    digits = int(pick(random, [20, 400, 4299, 4301, 50_000, 900_000, 3_000_000]))
    value = pick(random, [b"9" * digits, b"-" + b"9" * digits, b"0." + b"1" * digits, b"1" * digits + b"e0", b"1e" + b"9" * digits])
    return _with_manifest_bytes(data, to_json(fields).replace(b'"@"', value))


@corruption
def deep_nesting(data: bytes, random: Random) -> bytes:
    """From what a few recursive functions bear to what none does."""
    depth = int(pick(random, [20, 90, 200, 450, 900, 990, 1500, 10_000, 100_000, 450_000, 2_000_000]))
    opening, closing = pick(random, [(b"[", b"]"), (b'{"a":', b"}"), (b"[", b"")])
    fields = copy.deepcopy(Parts.of(data).manifest)
    fields[pick(random, ["training", "verified", "interpreters", "probe", "name", "more"])] = "@"
    if random.random() < 0.5:
        fields["training"] = {"corpus": "@"}
    return _with_manifest_bytes(data, to_json(fields).replace(b'"@"', opening * depth + b"1" + closing * depth, 1))


@corruption
def a_manifest_that_is_no_json(data: bytes, random: Random) -> bytes:
    content = to_json(Parts.of(data).manifest)
    text = content.decode()
    at = place(content, random)
    return _with_manifest_bytes(
        data,
        pick(
            random,
            [
                content[:at],
                content[at:],
                content[:at] + noise(random, 1, 20) + content[at:],
                content.replace(b"\n}", b",\n}"),
                content.replace(b'"', b"'"),
                b"// made by hand\n" + content,
                content + content,
                content + b"\0",
                b"",
                b"null",
                b"true",
                b"1",
                b'"charedge"',
                b"[" + content + b"]",
                b"[]",
                b"{}",
                text.encode("utf-16"),
                text.encode("utf-32"),
                text.encode("utf-8-sig"),
                text.replace("the", "thé").encode("latin-1") + b"\xe9",
                Parts.of(data).vocabulary,
            ],
        ),
    )


@corruption
def a_field_given_twice(data: bytes, random: Random) -> bytes:
    fields = Parts.of(data).manifest
    key = pick(random, list(fields))
    again = json.dumps({key: pick(random, [value for value in JUNK if type(value) is not type(fields[key])])})[1:-1].encode()
    content = to_json(fields)
    return _with_manifest_bytes(
        data, pick(random, [b"{" + again + b"," + content[1:], content.rstrip()[:-1] + b"," + again + b"}"])
    )


@corruption
def strings_that_are_no_text(data: bytes, random: Random) -> bytes:
    """Halves of surrogate pairs, zeros, terminal codes, and strings far too long."""
    fields = copy.deepcopy(Parts.of(data).manifest)
    strings = [found for found in _places(fields) if isinstance(found[0][found[1]], str) and found[1] != "start_text"]
    owner, key = pick(random, strings)
    owner[key] = pick(
        random, ["\ud800", "\udfff\ud800", "\0", "\x1b[2J", "a\nb", "x" * 900_000, "\u202e", "%s{}", "\U0001d518" * 1000]
    )
    return _with_manifest(data, fields)


@corruption
def a_start_text_that_cannot_be(data: bytes, random: Random) -> bytes:
    parts = Parts.of(data)
    known = parts.manifest["start_text"]
    text = pick(random, ["", "\ufeff", "\u4e00", known + "\u4e00", "\ud800", "[UNK]" + "\0", "\u4e00" * 100_000])
    return _with_manifest(data, parts.manifest | {"start_text": text})


@corruption
def a_choice_that_is_none(data: bytes, random: Random) -> bytes:
    key = pick(random, ["cell", "normalization", "unknown"])
    value = pick(random, ["", "rnn", "GRU", "nfc", "NFX", "Skip", "drop", "none ", "\0", "gru,lstm"])
    return _with_manifest(data, Parts.of(data).manifest | {key: value})


@corruption
def a_probe_that_cannot_be(data: bytes, random: Random) -> bytes:
    fields = copy.deepcopy(Parts.of(data).manifest)
    probe, size = fields["probe"], fields["vocabulary_size"]
    ids = probe["token_ids"]
    probe["token_ids"] = pick(
        random,
        [
            ids,
            ids[: int(random.integers(64))],
            ids * int(random.integers(2, 1000)),
            [*ids[:63], pick(random, [size, -1, 2**31, 2**64, 1.0, True, None, "1", [1]])],
            [int(number) for number in random.permutation(ids)],
        ],
    )
    loss = probe["nats_per_character"]
    probe["nats_per_character"] = pick(random, [loss, loss, loss + 0.1, 2 * loss, -loss, 0, 1e308, 10**400])
    probe["tolerance"] = pick(random, [probe["tolerance"], probe["tolerance"], 0, -1, 1e308, 10**400, 1e-12])
    return _with_manifest(data, fields)


@corruption
def another_format_version(data: bytes, random: Random) -> bytes:
    version = pick(random, [0, 2, 3, -1, 1.0, "1", True, None, 2**31, 2**64, 10**4000, [1]])
    return _with_manifest(data, Parts.of(data).manifest | {"format_version": version})


@corruption
def another_sha256(data: bytes, random: Random) -> bytes:
    digest = Parts.of(data).manifest["flatbuffer_sha256"]
    at = int(random.integers(64))
    other = digest[:at] + pick(random, [c for c in "0123456789abcdef" if c != digest[at]]) + digest[at + 1 :]
    wrong = pick(
        random, [other, digest[:at], digest.upper(), digest[::-1], "", "0" * 64, digest + "0", hashlib.sha256(data).hexdigest()]
    )
    return _with_manifest(data, Parts.of(data).manifest | {"flatbuffer_sha256": wrong})


@corruption
def interpreters_that_cannot_be(data: bytes, random: Random) -> bytes:
    fields = copy.deepcopy(Parts.of(data).manifest)
    names = ["ai-edge-litert", "tflite-runtime", "tensorflow", "", "x" * 100_000, "a\nb", "AI-EDGE-LITERT"]
    versions = ["2.3.0", "99.0", "", "latest", "9" * 5000, "9" * 500_000, "1." * 5000, "٣.1", "-1", "2.3.0\n", "1" + ".0" * 50]
    many = int(pick(random, [0, 1, 2, 3, 17, 3000]))
    fields["interpreters"] = [{"name": pick(random, names), "minimum_version": pick(random, versions)} for _ in range(many)]
    return _with_manifest(data, fields)


@corruption
def very_many_measurements(data: bytes, random: Random) -> bytes:
    fields = copy.deepcopy(Parts.of(data).manifest)
    fields["verified"] = fields["verified"] * int(pick(random, [0, 2, 9, 17, 1000, 20_000]))
    return _with_manifest(data, fields)


JUNK: list[Any] = [None, True, 3, -2.5, "text", "", [], {}, [1, [2, [3]]], {"a": {"b": {"c": None}}}, "x" * 10_000]


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value, as the object or array that it is in, and its key there."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _number(fields: dict[str, Any], random: Random) -> tuple[Any, Any]:
    """A place where a number is; the 64 probe ids are as likely together as one other number."""
    numbers = [found for found in _places(fields) if type(found[0][found[1]]) in (int, float)]
    ids = [found for found in numbers if isinstance(found[0], list)]
    return pick(random, [*(found for found in numbers if isinstance(found[0], dict)), pick(random, ids)])


def _with_manifest(data: bytes, fields: dict[str, Any]) -> bytes:
    return _with_manifest_bytes(data, to_json(fields))


def _with_manifest_bytes(data: bytes, content: bytes) -> bytes:
    parts = Parts.of(data)
    return pack(parts.flatbuffer, [(VOCABULARY, parts.vocabulary), (MANIFEST, content)])
