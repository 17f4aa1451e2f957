"""Damage to the members of the ZIP: missing, renamed, repeated, compressed or far too large."""

from __future__ import annotations

import struct
import zipfile

from .parts import Parts, pack, to_json, with_manifest_bytes, with_vocabulary
from .registry import Corruptions
from .steps import Random, noise, pick
from .zip_layout import Layout

MEMBER_CORRUPTIONS = Corruptions()


@MEMBER_CORRUPTIONS.add
def a_member_missing(data: bytes, random: Random) -> bytes:
    parts = Parts.of(data)
    return pack(parts.flatbuffer, pick(random, [parts.members[:1], parts.members[1:], []]))


@MEMBER_CORRUPTIONS.add
def the_members_in_the_other_order(data: bytes, random: Random) -> bytes:
    parts = Parts.of(data)
    return pack(parts.flatbuffer, parts.members[::-1])


@MEMBER_CORRUPTIONS.add
def the_names_swapped(data: bytes, random: Random) -> bytes:
    (one, vocabulary), (two, manifest) = Parts.of(data).members
    return pack(
        Parts.of(data).flatbuffer, pick(random, [[(one, manifest), (two, vocabulary)], [(two, vocabulary), (one, manifest)]])
    )


@MEMBER_CORRUPTIONS.add
def an_extra_member(data: bytes, random: Random) -> bytes:
    parts = Parts.of(data)
    name = pick(random, ["README", "labels.txt", "", "__MACOSX/._charedge.json", "charedge.json.bak", "x" * 65535])
    members = parts.members
    members.insert(int(random.integers(3)), (name, noise(random, 0, 2000)))
    return pack(parts.flatbuffer, members)


@MEMBER_CORRUPTIONS.add
def thousands_of_members(data: bytes, random: Random) -> bytes:
    parts = Parts.of(data)
    more = [(f"{number}.txt", b"x") for number in range(int(random.integers(100, 5000)))]
    return pack(parts.flatbuffer, [*more, *parts.members] if random.random() < 0.5 else [*parts.members, *more])


@MEMBER_CORRUPTIONS.add
def a_member_twice(data: bytes, random: Random) -> bytes:
    parts = Parts.of(data)
    name, content = pick(random, parts.members)
    again = (name, pick(random, [content, b"", noise(random, 1, 500)]))
    return pack(parts.flatbuffer, pick(random, [[*parts.members, again], [again, *parts.members], [again, (name, content)]]))


@MEMBER_CORRUPTIONS.add
def a_member_renamed(data: bytes, random: Random) -> bytes:
    parts = Parts.of(data)
    which = int(random.integers(2))
    name = parts.members[which][0]
    names = [f"../{name}", f"/{name}", f"a/{name}", f"./{name}", f"C:\\{name}", f"{name}/", name.upper(), f"{name} ", f"é{name}"]
    renamed = parts.members
    renamed[which] = (pick(random, [*names, name[:-1], "", "." * 300, "\u202e" + name]), renamed[which][1])
    return pack(parts.flatbuffer, renamed)


@MEMBER_CORRUPTIONS.add
def members_compressed(data: bytes, random: Random) -> bytes:
    parts = Parts.of(data)
    return pack(parts.flatbuffer, parts.members, pick(random, [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA]))


@MEMBER_CORRUPTIONS.add
def a_zip_bomb(data: bytes, random: Random) -> bytes:
    """A few kilobytes that unpack to megabytes, in place of the vocabulary or the manifest."""
    parts = Parts.of(data)
    bomb = pick(random, [b"\0", b" ", b"\n", b"["]) * int(random.integers(1, 30)) * 1_000_000
    which = int(random.integers(2))
    members = parts.members
    members[which] = (members[which][0], bomb)
    return pack(parts.flatbuffer, members, zipfile.ZIP_DEFLATED)


@MEMBER_CORRUPTIONS.add
def a_zip_bomb_that_says_it_is_stored(data: bytes, random: Random) -> bytes:
    bombed = a_zip_bomb(data, random)
    layout = Layout.of(bombed)
    for header in [*layout.locals, *layout.central]:
        bombed = header.set(bombed, "method", 0)
        if random.random() < 0.5:
            bombed = header.set(bombed, "packed", header.get(bombed, "size"))
    return bombed


@MEMBER_CORRUPTIONS.add
def a_member_oversized(data: bytes, random: Random) -> bytes:
    """Stored, with a correct checksum: spaces before the JSON, or more lines than there are characters."""
    parts = Parts.of(data)
    size = int(random.integers(1, 30)) * 1_000_000
    if random.random() < 0.4:
        manifest = to_json(parts.manifest)
        beginning = pick(random, [b" ", b"\n", b"[", b'{"', b"9"]) * size
        return with_manifest_bytes(data, beginning + manifest)
    more = pick(random, [b"\n", b"a\n", b"ab\n", b"\\", b"a", "\u4e00\n".encode()])
    return with_vocabulary(data, parts.vocabulary + more * (size // len(more)) + b"\n")


@MEMBER_CORRUPTIONS.add
def comments_and_extra_fields(data: bytes, random: Random) -> bytes:
    parts = Parts.of(data)
    extra = struct.pack("<HH", 0x5455, 5) + b"\3" + random.bytes(4)
    kinds: list[dict[str, bytes]] = [{"comment": b"hello"}, {"member_comment": b"hello"}, {"extra": extra}, {"comment": data[-22:]}]
    return pack(parts.flatbuffer, parts.members, **pick(random, kinds))
