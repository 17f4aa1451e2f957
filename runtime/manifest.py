"""The manifest of a model file, `charedge.json` (docs/file-format.md)."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .errors import CharedgeError
from .text import NORMALIZATIONS, Normalization

FORMAT_VERSION = 1
MANIFEST_FILE = "charedge.json"
PROBE_LENGTH = 64
MAX_DEPTH = 16  # of arrays and objects in the manifest
MAX_ENTRIES = 16  # of `interpreters` and of `verified`
MAX_OPERATORS = 64

MOST_LAYERS, MOST_UNITS = 64, 65_536
STATES_PER_LAYER = {"gru": 1, "lstm": 2}
WORD = re.compile(r"[A-Za-z0-9._+-]{1,64}")
RELEASE = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,7}")
SHA256 = re.compile(r"[0-9a-f]{64}")


class Damaged(Exception):
    """A part of a model file differs from what charedge writes."""


@dataclass(frozen=True)
class RequiredInterpreter:
    """An interpreter that the file was made for, and its lowest version."""

    name: str
    """`ai-edge-litert`, `tflite-runtime` or `tflite-micro`, the name of its distribution."""
    minimum_version: str


@dataclass(frozen=True)
class Microcontroller:
    """What TensorFlow Lite Micro needs to run the file."""

    arena_bytes: int
    """Size of the tensor arena in bytes: the smallest in which the model loaded on the workstation, and 10 % more."""
    operators: list[str]
    """Operators to register, by their names in TFLite's schema."""


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
    """Mean divergence of the file's next-character distributions from the Keras model's, in nats."""
    top_1_agreement: float | None = None
    """Share of the characters for which both predict the same most likely one, 0 to 1."""
    largest_logit_difference: float | None = None

    @property
    def loss(self) -> float:
        """What the file loses against the Keras model, in nats per character."""
        return self.nats_per_character - self.reference_nats_per_character


@dataclass(frozen=True)
class TemperatureFit:
    """How a temperature was fitted on the run's held-out text, and what it is worth on text that it was not fitted on."""

    characters: int
    """Held-out characters, from their start, that it was fitted on; those of `verified` are among them."""
    cross_validated_nats_per_character: float
    """The Keras model's loss over these characters, each half with the temperature that was fitted on the other half; with the
    logits as they are if the temperature is 1."""
    undivided_nats_per_character: float
    """The Keras model's loss over these characters with the logits as they are."""


@dataclass(frozen=True)
class LogitTemperature:
    """The temperature that the logits were divided by (Guo et al. 2017, "On Calibration of Modern Neural Networks")."""

    value: float
    """1 if it was fitted, and no temperature that is fitted on one half of the text lowers the loss of the other half."""
    fit: TemperatureFit | None = None
    """None if it was given."""

    @property
    def fitted_on_verified(self) -> bool:
        """Whether it was fitted on the text of `verified`, so that of the losses there only the differences are results."""
        return self.fit is not None and self.value != 1


@dataclass(frozen=True)
class Probe:
    """A few steps whose loss must equal the recorded one on every machine that runs the file."""

    token_ids: list[int]
    nats_per_character: float
    tolerance: float


@dataclass(frozen=True)
class Manifest:
    """The fields of `charedge.json`, in its order."""

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
    """Treatment of characters outside the vocabulary: `skip` leaves them out, `unk` reads them as id 0."""
    start_text: str
    """Text that is read, and not printed, if there is no prompt."""
    quantization: str
    input_table_folded: bool
    flatbuffer_sha256: str
    interpreters: list[RequiredInterpreter]
    verified: list[Verified]
    probe: Probe
    training: dict[str, Any]
    microcontroller: Microcontroller | None = None
    """None if the file was not tried on TensorFlow Lite Micro."""
    logit_temperature: LogitTemperature | None = None
    """None if the logits are the trained network's."""

    def to_dict(self) -> dict[str, Any]:
        """The manifest as a JSON object, without the optional objects that are None."""
        values = asdict(self)
        for name in ("microcontroller", "logit_temperature"):
            if values[name] is None:
                del values[name]
        if self.logit_temperature is not None and self.logit_temperature.fit is None:
            del values["logit_temperature"]["fit"]
        return values

    def to_json(self) -> bytes:
        """The bytes of `charedge.json`."""
        return (json.dumps(self.to_dict(), indent=2, ensure_ascii=False) + "\n").encode()


def parse_manifest(data: bytes, path: Path) -> Manifest:
    """Read a manifest, and check that every field has the right type and range and is consistent with the others.

    Args:
        data: the content of `charedge.json`.
        path: the model file, for errors.

    Raises:
        Damaged: it differs from what charedge writes.
        CharedgeError: it was written by a newer charedge.
    """
    try:
        values = json.loads(data.decode(), object_pairs_hook=_distinct)
        json.dumps(values, ensure_ascii=False, allow_nan=False).encode()  # fails for NaN, Infinity and halves of surrogate pairs
        if _depth(values) > MAX_DEPTH:
            raise ValueError
    except (ValueError, RecursionError):
        raise Damaged(f"{MANIFEST_FILE} is not JSON that charedge writes") from None
    if not isinstance(values, dict):
        raise Damaged(f"{MANIFEST_FILE} is not a JSON object")
    version = values.get("format_version")
    if isinstance(version, int) and FORMAT_VERSION < version < 1000:
        raise CharedgeError(f"{path} has format version {version}, newer than this charedge reads: run `pip install -U charedge`.")
    fields = _Fields(values)
    probe = _Fields(fields.get("probe", dict), "probe.")
    manifest = Manifest(
        format_version=fields.integer("format_version", FORMAT_VERSION, FORMAT_VERSION),
        name=fields.get("name", str),
        created_by=fields.get("created_by", str),
        created=fields.get("created", str),
        license=fields.get("license", str),
        cell=fields.choice("cell", tuple(STATES_PER_LAYER)),
        layers=fields.integer("layers", 1, MOST_LAYERS),
        units=fields.integer("units", 1, MOST_UNITS),
        embedding_dim=fields.integer("embedding_dim", 1, MOST_UNITS),
        state_size=fields.integer("state_size", 1, 2**23),
        vocabulary_size=fields.integer("vocabulary_size", 2, 1_114_113),
        normalization=fields.choice("normalization", NORMALIZATIONS),
        unknown=fields.choice("unknown", ("skip", "unk")),
        start_text=fields.get("start_text", str),
        quantization=fields.match("quantization", WORD),
        input_table_folded=fields.get("input_table_folded", bool),
        flatbuffer_sha256=fields.match("flatbuffer_sha256", SHA256),
        interpreters=[
            RequiredInterpreter(entry.match("name", WORD), entry.match("minimum_version", RELEASE))
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
        microcontroller=_microcontroller(fields),
        logit_temperature=_logit_temperature(fields),
    )
    if manifest.state_size != manifest.layers * manifest.units * STATES_PER_LAYER[manifest.cell]:
        raise fields.wrong("state_size")
    ids = manifest.probe.token_ids
    if len(ids) != PROBE_LENGTH or not all(type(i) is int and 0 <= i < manifest.vocabulary_size for i in ids):
        raise probe.wrong("token_ids")
    return manifest


def _microcontroller(fields: _Fields) -> Microcontroller | None:
    if "microcontroller" not in fields.values:
        return None
    entry = _Fields(fields.get("microcontroller", dict), "microcontroller.")
    operators = entry.get("operators", list)
    if len(operators) > MAX_OPERATORS or not all(isinstance(name, str) and WORD.fullmatch(name) for name in operators):
        raise entry.wrong("operators")
    return Microcontroller(entry.integer("arena_bytes", 1, 2**31), operators)


def _logit_temperature(fields: _Fields) -> LogitTemperature | None:
    if "logit_temperature" not in fields.values:
        return None
    entry = _Fields(fields.get("logit_temperature", dict), "logit_temperature.")
    value = entry.number("value", 1000)
    if value == 0:
        raise entry.wrong("value")
    if "fit" not in entry.values:
        return LogitTemperature(value)
    fit = _Fields(entry.get("fit", dict), "logit_temperature.fit.")
    return LogitTemperature(
        value,
        TemperatureFit(
            characters=fit.integer("characters", 2, 2**53),
            cross_validated_nats_per_character=fit.number("cross_validated_nats_per_character", 1000),
            undivided_nats_per_character=fit.number("undivided_nats_per_character", 1000),
        ),
    )


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a key that occurs twice is a ValueError."""
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

    def wrong(self, key: str) -> Damaged:
        return Damaged(f"{self.prefix}{key} in {MANIFEST_FILE} is missing or wrong")

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
