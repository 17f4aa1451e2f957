"""Damage by a bad disk or cable, a copy that stopped, or a transfer in the wrong mode."""

from __future__ import annotations

import base64
import gzip
import hashlib
import zipfile
from io import BytesIO

from .parts import MANIFEST, VOCABULARY, ZIP_DATE, Parts, another_model, pack
from .registry import Corruptions
from .steps import Random, noise, patch, pick, place
from .zip_layout import Layout

TRANSFER_CORRUPTIONS = Corruptions()
PAGE = 4096  # bytes


@TRANSFER_CORRUPTIONS.add
def one_bit_flipped(data: bytes, random: Random) -> bytes:
    return _flip(data, random, 0, 1)


@TRANSFER_CORRUPTIONS.add
def bits_flipped(data: bytes, random: Random) -> bytes:
    return _flip(data, random, 0, int(random.integers(2, 65)))


@TRANSFER_CORRUPTIONS.add
def a_bit_of_the_members_flipped(data: bytes, random: Random) -> bytes:
    return _flip(data, random, len(Parts.of(data).flatbuffer), 1)


@TRANSFER_CORRUPTIONS.add
def a_bit_of_the_zip_directory_flipped(data: bytes, random: Random) -> bytes:
    return _flip(data, random, Layout.of(data).directory, 1)


def _flip(data: bytes, random: Random, start: int, bits: int) -> bytes:
    damaged = bytearray(data)
    for bit in random.integers(8 * start, 8 * len(data), bits):
        damaged[bit // 8] ^= 1 << (bit % 8)
    return bytes(damaged)


@TRANSFER_CORRUPTIONS.add
def a_run_of_bytes_overwritten(data: bytes, random: Random) -> bytes:
    content = noise(random, 1, 2000)[: len(data)]
    return patch(data, place(data, random, len(content)), content)


@TRANSFER_CORRUPTIONS.add
def a_page_zeroed(data: bytes, random: Random) -> bytes:
    start = place(data, random) // PAGE * PAGE
    return patch(data, start, bytes(len(data[start : start + PAGE])))


@TRANSFER_CORRUPTIONS.add
def a_page_repeated(data: bytes, random: Random) -> bytes:
    source, target = (place(data, random, PAGE) // PAGE * PAGE for _ in range(2))
    return patch(data, target, data[source : source + PAGE])


@TRANSFER_CORRUPTIONS.add
def two_pages_swapped(data: bytes, random: Random) -> bytes:
    one, two = (place(data, random, PAGE) // PAGE * PAGE for _ in range(2))
    return patch(patch(data, one, data[two : two + PAGE]), two, data[one : one + PAGE])


@TRANSFER_CORRUPTIONS.add
def the_end_zeroed(data: bytes, random: Random) -> bytes:
    """A download that reserved its space and stopped."""
    start = place(data, random)
    return data[:start] + bytes(len(data) - start)


@TRANSFER_CORRUPTIONS.add
def the_beginning_zeroed(data: bytes, random: Random) -> bytes:
    size = 1 + place(data, random)
    return bytes(size) + data[size:]


@TRANSFER_CORRUPTIONS.add
def cut_short(data: bytes, random: Random) -> bytes:
    return data[: place(data, random)]


@TRANSFER_CORRUPTIONS.add
def the_last_bytes_missing(data: bytes, random: Random) -> bytes:
    return data[: -int(random.integers(1, 300))]


@TRANSFER_CORRUPTIONS.add
def the_first_bytes_missing(data: bytes, random: Random) -> bytes:
    return data[1 + place(data, random) :]


@TRANSFER_CORRUPTIONS.add
def a_part_missing(data: bytes, random: Random) -> bytes:
    start = place(data, random)
    return data[:start] + data[start + int(random.integers(1, 5000)) :]


@TRANSFER_CORRUPTIONS.add
def bytes_appended(data: bytes, random: Random) -> bytes:
    return data + pick(random, [noise(random, 1, 3000), b"\n", b"\r\n", b"\x1a"])


@TRANSFER_CORRUPTIONS.add
def bytes_prepended(data: bytes, random: Random) -> bytes:
    return pick(random, [noise(random, 1, 3000), b"\xef\xbb\xbf", b"#!/bin/sh\n"]) + data


@TRANSFER_CORRUPTIONS.add
def bytes_inserted(data: bytes, random: Random) -> bytes:
    start = place(data, random)
    return data[:start] + noise(random, 1, 3000) + data[start:]


@TRANSFER_CORRUPTIONS.add
def written_over_a_longer_file(data: bytes, random: Random) -> bytes:
    return data + data[place(data, random) :]


@TRANSFER_CORRUPTIONS.add
def written_twice(data: bytes, random: Random) -> bytes:
    return data * int(random.integers(2, 5))


@TRANSFER_CORRUPTIONS.add
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


@TRANSFER_CORRUPTIONS.add
def wrapped_in_another_format(data: bytes, random: Random) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(zipfile.ZipInfo(pick(random, ["model.tflite", VOCABULARY, MANIFEST]), ZIP_DATE), data)
    encoded = base64.b64encode(data)
    return pick(random, [gzip.compress(data, mtime=0), encoded, encoded.hex().encode(), file.getvalue(), data[::-1]])


@TRANSFER_CORRUPTIONS.add
def something_else_downloaded(data: bytes, random: Random) -> bytes:
    digest = hashlib.sha256(data).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize {len(data)}\n".encode()
    page = b"<!DOCTYPE html>\n<html><head><title>404 Not Found</title></head></html>\n"
    return pick(random, [b"", pointer, page, bytes(len(data)), random.bytes(len(data)), data[:8], data[:4] + b"TFL3", b"PK\5\6"])


@TRANSFER_CORRUPTIONS.add
def two_files_spliced(data: bytes, random: Random) -> bytes:
    """The beginning of one file and the end of another, cut at one offset or at two, or where a part begins."""
    other = another_model(data)
    seams = [part for at in Layout.of(data).seams for part in (at, at)]
    cut = pick(random, [place(data, random), place(data, random), *seams])
    spliced = data[:cut] + other[pick(random, [cut, cut, place(other, random)]) :]
    return data if spliced == other else spliced  # where they begin alike, that is the whole other model and no damage


@TRANSFER_CORRUPTIONS.add
def the_zip_of_another_model(data: bytes, random: Random) -> bytes:
    own, other = Parts.of(data), Parts.of(another_model(data))
    return pack(*pick(random, [(own.flatbuffer, other.members), (other.flatbuffer, own.members)]))
