"""Damage to the manifest, in a ZIP with correct checksums."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterator
from typing import Any

from .parts import Parts, to_json, with_manifest, with_manifest_bytes
from .registry import Corruptions
from .steps import Random, noise, pick, place

MANIFEST_CORRUPTIONS = Corruptions()
JUNK: list[Any] = [None, True, 3, -2.5, "text", "", [], {}, [1, [2, [3]]], {"a": {"b": {"c": None}}}, "x" * 10_000]


@MANIFEST_CORRUPTIONS.add
def a_field_of_the_wrong_type(data: bytes, random: Random) -> bytes:
    fields = copy.deepcopy(Parts.of(data).manifest)
    owner, key = pick(random, list(_places(fields)))
    values = [None, True, 3, -1, 2.5, "nothing", "", [], {}, [[]], {"a": 1}, [None] * 64, "64"]
    owner[key] = pick(random, [value for value in values if type(value) is not type(owner[key])])
    return with_manifest(data, fields)


@MANIFEST_CORRUPTIONS.add
def fields_missing(data: bytes, random: Random) -> bytes:
    fields = copy.deepcopy(Parts.of(data).manifest)
    for _ in range(int(random.integers(1, 4))):
        owner, key = pick(random, list(_places(fields)))
        del owner[key]
    return with_manifest(data, fields)


@MANIFEST_CORRUPTIONS.add
def an_extra_field(data: bytes, random: Random) -> bytes:
    fields = copy.deepcopy(Parts.of(data).manifest)
    owner, _ = pick(random, [found for found in _places(fields) if isinstance(found[0], dict)])
    owner[pick(random, ["x", "", "__class__", "path", "é"])] = pick(random, JUNK)
    return with_manifest(data, fields)


@MANIFEST_CORRUPTIONS.add
def a_field_in_another_spelling(data: bytes, random: Random) -> bytes:
    fields = copy.deepcopy(Parts.of(data).manifest)
    owner, key = pick(random, [found for found in _places(fields) if isinstance(found[0], dict)])
    owner[pick(random, [key.upper(), key.replace("_", "-"), key + " ", "a" + key])] = owner.pop(key)
    return with_manifest(data, fields)


@MANIFEST_CORRUPTIONS.add
def wrong_shapes_in_the_manifest(data: bytes, random: Random) -> bytes:
    fields = copy.deepcopy(Parts.of(data).manifest)
    for _ in range(int(random.integers(1, 3))):
        key = pick(random, ["state_size", "vocabulary_size", "units", "layers", "embedding_dim"])
        now = fields[key]
        fields[key] = pick(
            random, [now + 1, now - 1, 2 * now, now // 2, 0, -now, 2**31, 2**63, 10**400, int(random.integers(1, 70_000))]
        )
    return with_manifest(data, fields)


@MANIFEST_CORRUPTIONS.add
def wrong_shapes_in_a_consistent_manifest(data: bytes, random: Random) -> bytes:
    fields = copy.deepcopy(Parts.of(data).manifest)
    layers, units = int(random.integers(1, 9)), int(random.integers(1, 4097))
    cell = pick(random, ["gru", "lstm"])
    state = layers * units * (1 if cell == "gru" else 2)
    return with_manifest(data, {**fields, "cell": cell, "layers": layers, "units": units, "state_size": state})


@MANIFEST_CORRUPTIONS.add
def invalid_numbers(data: bytes, random: Random) -> bytes:
    """NaN and the infinities, which Python's JSON writes and reads, and numbers that only become infinite when read."""
    fields = copy.deepcopy(Parts.of(data).manifest)
    owner, key = _number(fields, random)
    owner[key] = "@"
    value = pick(
        random, ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1e-999", "0x10", "1_000", "01", "+1", ".5", "5.", "\uff11"]
    )
    return with_manifest_bytes(data, to_json(fields).replace(b'"@"', value.encode()))


@MANIFEST_CORRUPTIONS.add
def huge_numbers(data: bytes, random: Random) -> bytes:
    fields = copy.deepcopy(Parts.of(data).manifest)
    owner, key = _number(fields, random)
    owner[key] = "@"
    digits = int(pick(random, [20, 400, 4299, 4301, 50_000, 900_000, 3_000_000]))
    value = pick(random, [b"9" * digits, b"-" + b"9" * digits, b"0." + b"1" * digits, b"1" * digits + b"e0", b"1e" + b"9" * digits])
    return with_manifest_bytes(data, to_json(fields).replace(b'"@"', value))


@MANIFEST_CORRUPTIONS.add
def deep_nesting(data: bytes, random: Random) -> bytes:
    """From a depth that some recursive functions manage to one that none does."""
    depth = int(pick(random, [20, 90, 200, 450, 900, 990, 1500, 10_000, 100_000, 450_000, 2_000_000]))
    opening, closing = pick(random, [(b"[", b"]"), (b'{"a":', b"}"), (b"[", b"")])
    fields = copy.deepcopy(Parts.of(data).manifest)
    fields[pick(random, ["training", "verified", "interpreters", "probe", "name", "more"])] = "@"
    if random.random() < 0.5:
        fields["training"] = {"corpus": "@"}
    return with_manifest_bytes(data, to_json(fields).replace(b'"@"', opening * depth + b"1" + closing * depth, 1))


@MANIFEST_CORRUPTIONS.add
def a_manifest_that_is_not_json(data: bytes, random: Random) -> bytes:
    content = to_json(Parts.of(data).manifest)
    text = content.decode()
    at = place(content, random)
    return with_manifest_bytes(
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


@MANIFEST_CORRUPTIONS.add
def a_field_given_twice(data: bytes, random: Random) -> bytes:
    fields = Parts.of(data).manifest
    key = pick(random, list(fields))
    again = json.dumps({key: pick(random, [value for value in JUNK if type(value) is not type(fields[key])])})[1:-1].encode()
    content = to_json(fields)
    return with_manifest_bytes(data, pick(random, [b"{" + again + b"," + content[1:], content.rstrip()[:-1] + b"," + again + b"}"]))


@MANIFEST_CORRUPTIONS.add
def invalid_strings(data: bytes, random: Random) -> bytes:
    """Halves of surrogate pairs, zeros, terminal codes, and strings far too long."""
    fields = copy.deepcopy(Parts.of(data).manifest)
    strings = [found for found in _places(fields) if isinstance(found[0][found[1]], str) and found[1] != "start_text"]
    owner, key = pick(random, strings)
    owner[key] = pick(
        random, ["\ud800", "\udfff\ud800", "\0", "\x1b[2J", "a\nb", "x" * 900_000, "\u202e", "%s{}", "\U0001d518" * 1000]
    )
    return with_manifest(data, fields)


@MANIFEST_CORRUPTIONS.add
def an_invalid_start_text(data: bytes, random: Random) -> bytes:
    parts = Parts.of(data)
    known = parts.manifest["start_text"]
    text = pick(random, ["", "\ufeff", "\u4e00", known + "\u4e00", "\ud800", "[UNK]" + "\0", "\u4e00" * 100_000])
    return with_manifest(data, parts.manifest | {"start_text": text})


@MANIFEST_CORRUPTIONS.add
def an_invalid_choice(data: bytes, random: Random) -> bytes:
    key = pick(random, ["cell", "normalization", "unknown"])
    value = pick(random, ["", "rnn", "GRU", "nfc", "NFX", "Skip", "drop", "none ", "\0", "gru,lstm"])
    return with_manifest(data, Parts.of(data).manifest | {key: value})


@MANIFEST_CORRUPTIONS.add
def an_invalid_probe(data: bytes, random: Random) -> bytes:
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
    return with_manifest(data, fields)


@MANIFEST_CORRUPTIONS.add
def another_format_version(data: bytes, random: Random) -> bytes:
    version = pick(random, [0, 2, 3, -1, 1.0, "1", True, None, 2**31, 2**64, 10**4000, [1]])
    return with_manifest(data, Parts.of(data).manifest | {"format_version": version})


@MANIFEST_CORRUPTIONS.add
def another_sha256(data: bytes, random: Random) -> bytes:
    digest = Parts.of(data).manifest["flatbuffer_sha256"]
    at = int(random.integers(64))
    other = digest[:at] + pick(random, [c for c in "0123456789abcdef" if c != digest[at]]) + digest[at + 1 :]
    wrong = pick(
        random, [other, digest[:at], digest.upper(), digest[::-1], "", "0" * 64, digest + "0", hashlib.sha256(data).hexdigest()]
    )
    return with_manifest(data, Parts.of(data).manifest | {"flatbuffer_sha256": wrong})


@MANIFEST_CORRUPTIONS.add
def invalid_interpreters(data: bytes, random: Random) -> bytes:
    fields = copy.deepcopy(Parts.of(data).manifest)
    names = ["ai-edge-litert", "tflite-runtime", "tensorflow", "", "x" * 100_000, "a\nb", "AI-EDGE-LITERT"]
    versions = ["2.3.0", "99.0", "", "latest", "9" * 5000, "9" * 500_000, "1." * 5000, "٣.1", "-1", "2.3.0\n", "1" + ".0" * 50]
    many = int(pick(random, [0, 1, 2, 3, 17, 3000]))
    fields["interpreters"] = [{"name": pick(random, names), "minimum_version": pick(random, versions)} for _ in range(many)]
    return with_manifest(data, fields)


@MANIFEST_CORRUPTIONS.add
def very_many_measurements(data: bytes, random: Random) -> bytes:
    fields = copy.deepcopy(Parts.of(data).manifest)
    fields["verified"] = fields["verified"] * int(pick(random, [0, 2, 9, 17, 1000, 20_000]))
    return with_manifest(data, fields)


@MANIFEST_CORRUPTIONS.add
def an_invalid_logit_temperature(data: bytes, random: Random) -> bytes:
    fields = copy.deepcopy(Parts.of(data).manifest)
    numbers = [0, -1, -0.0, 1001, 1e308, 10**400, True, None, "1.2", [1.2]]
    fit = {"characters": 20_000, "cross_validated_nats_per_character": 1.5, "undivided_nats_per_character": 1.6}
    temperature: dict[str, Any] = {"value": 1.2, "fit": fit}
    owner = pick(random, [temperature, fit])
    key = pick(random, list(owner))
    if random.random() < 0.3:
        del owner[key]  # without `fit` it is one that was given
    else:
        owner[key] = pick(random, numbers)
    fields["logit_temperature"] = pick(random, [temperature, temperature, temperature, None, [], 1.2, "", {}])
    return with_manifest(data, fields)


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value, as the object or array that it is in, and its key there."""
    keys = list(value) if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in keys:
        yield value, key
        yield from _places(value[key])


def _number(fields: dict[str, Any], random: Random) -> tuple[Any, Any]:
    """The place of a number; the 64 probe ids together are as likely as one other number."""
    numbers = [found for found in _places(fields) if type(found[0][found[1]]) in (int, float)]
    ids = [found for found in numbers if isinstance(found[0], list)]
    return pick(random, [*(found for found in numbers if isinstance(found[0], dict)), pick(random, ids)])
