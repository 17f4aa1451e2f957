"""Damage to the headers of the ZIP: wrong offsets, sizes, counts and flags."""

from __future__ import annotations

import struct
from dataclasses import replace

from .registry import Corruptions
from .steps import Random, noise, patch, pick
from .zip_layout import Layout

HEADER_CORRUPTIONS = Corruptions()


@HEADER_CORRUPTIONS.add
def a_gap_in_the_zip(data: bytes, random: Random) -> bytes:
    """Bytes that no header accounts for, though every offset is right: before a member, the directory or the end record."""
    layout, gap = Layout.of(data), noise(random, 1, 500)
    at = pick(random, layout.seams)
    for header in layout.central:
        data = header.set(data, "offset", header.get(data, "offset") + (len(gap) if header.get(data, "offset") >= at else 0))
    data = layout.end.set(data, "directory_offset", layout.directory + (len(gap) if layout.directory >= at else 0))
    return data[:at] + gap + data[at:]


@HEADER_CORRUPTIONS.add
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


@HEADER_CORRUPTIONS.add
def a_header_field_wrong(data: bytes, random: Random) -> bytes:
    header = pick(random, Layout.of(data).headers)
    name = pick(random, list(header.fields))
    now, most = header.get(data, name), header.largest(name)
    return header.set(data, name, pick(random, [0, 1, most, most - 1, now ^ 1, (now + 1) & most, int(random.integers(most + 1))]))


@HEADER_CORRUPTIONS.add
def header_fields_wrong_in_both_headers(data: bytes, random: Random) -> bytes:
    """The same wrong values in the directory and in the header of the member."""
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


@HEADER_CORRUPTIONS.add
def huge_counts_and_sizes(data: bytes, random: Random) -> bytes:
    for header in Layout.of(data).headers:
        for name in ("packed", "size", "offset", "directory_size", "directory_offset", "entries", "name_length", "extra_length"):
            if name in header.fields and random.random() < 0.3:
                data = header.set(data, name, header.largest(name) - int(random.integers(3)))
    return data


@HEADER_CORRUPTIONS.add
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


@HEADER_CORRUPTIONS.add
def encrypted_or_streamed_members(data: bytes, random: Random) -> bytes:
    """Flags that say encrypted, sizes that follow the data, or names in UTF-8."""
    flag = 1 << int(random.integers(16))
    for header in Layout.of(data).headers:
        if "flags" in header.fields and random.random() < 0.9:
            data = header.set(data, "flags", header.get(data, "flags") | flag)
    return data
