"""Damage to the vocabulary, in a ZIP with correct checksums."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .parts import Parts, to_json, with_vocabulary
from .registry import Corruptions
from .steps import Random, noise, pick, place

VOCABULARY_CORRUPTIONS = Corruptions()


@VOCABULARY_CORRUPTIONS.add
def a_vocabulary_too_short(data: bytes, random: Random) -> bytes:
    lines = _lines(data)
    return _with_lines(data, lines[: -int(random.integers(1, len(lines)))])


@VOCABULARY_CORRUPTIONS.add
def a_vocabulary_too_long(data: bytes, random: Random) -> bytes:
    more = [chr(0x4E00 + number) for number in range(int(random.integers(1, 500)))]
    return _with_lines(data, [*_lines(data), *more])


@VOCABULARY_CORRUPTIONS.add
def a_vocabulary_of_another_size_with_a_manifest_to_match(data: bytes, random: Random) -> bytes:
    more = [chr(0x4E00 + number) for number in range(int(random.integers(1, 2000)))]
    lines = _lines(data)
    lines = pick(random, [lines[: -int(random.integers(1, 9))], [*lines, *more]])
    parts = Parts.of(_with_lines(data, lines))
    return replace(parts, manifest=parts.manifest | {"vocabulary_size": len(lines)}).pack()


@VOCABULARY_CORRUPTIONS.add
def a_vocabulary_of_all_unicode(data: bytes, random: Random) -> bytes:
    """The longest vocabulary there can be, with a manifest to match: only the shapes of the model contradict it."""
    first = int(random.integers(0x4E00, 0xA000))
    last = int(pick(random, [0xE000, 0xF000, 0x12000, 0x40000, 0x110000]))
    lines = ["[UNK]", *(f"\\u{code:04X}" for code in range(first, 0xD800)), *map(chr, range(0xE000, last))]
    parts = Parts.of(_with_lines(data, lines))
    return replace(parts, manifest=parts.manifest | {"vocabulary_size": len(lines)}).pack()


@VOCABULARY_CORRUPTIONS.add
def a_line_of_the_vocabulary_wrong(data: bytes, random: Random) -> bytes:
    lines = _lines(data)
    at = int(random.integers(len(lines)))
    wrong = ["", "ab", "\\", "\\x", "\\u12", "\\uD800", "\\U00110000", "\\UFFFFFFFF", "a" * 100_000, "[UNK]", "\r", "\ufeff[UNK]"]
    lines[at] = pick(random, [*wrong, lines[at - 1], lines[at] + "\r", lines[at] * 2, " " + lines[at], lines[at] + "\u0301"])
    return _with_lines(data, lines)


@VOCABULARY_CORRUPTIONS.add
def lines_of_the_vocabulary_joined_or_split(data: bytes, random: Random) -> bytes:
    content = Parts.of(data).vocabulary
    at = place(content, random)
    feed = content.find(b"\n", at)
    return with_vocabulary(
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


@VOCABULARY_CORRUPTIONS.add
def a_vocabulary_in_another_encoding(data: bytes, random: Random) -> bytes:
    content = Parts.of(data).vocabulary
    text = content.decode()
    wrong = [text.encode("utf-16"), text.encode("utf-32"), text.encode("utf-8-sig"), text.replace("a", "é").encode("latin-1")]
    return with_vocabulary(data, pick(random, [*wrong, content.replace(b"a", b"\xed\xa0\x80"), content.replace(b"a", b"\xc0\x80")]))


@VOCABULARY_CORRUPTIONS.add
def bytes_of_the_vocabulary_wrong(data: bytes, random: Random) -> bytes:
    content = Parts.of(data).vocabulary
    return with_vocabulary(data, pick(random, [b"", noise(random, 1, 100_000), content[: place(content, random)], content * 2]))


@VOCABULARY_CORRUPTIONS.add
def a_vocabulary_that_is_another_file(data: bytes, random: Random) -> bytes:
    parts = Parts.of(data)
    return with_vocabulary(data, pick(random, [to_json(parts.manifest), parts.flatbuffer, data, b"[UNK]\n" * len(_lines(data))]))


def _lines(data: bytes) -> list[str]:
    return Parts.of(data).vocabulary.decode().split("\n")[:-1]


def _with_lines(data: bytes, lines: Sequence[str]) -> bytes:
    return with_vocabulary(data, "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogatepass"))
