"""Options of a training, each defined once: name, type, range, default, help, and whether the model file records it.

The command line's options, the check of a recorded config.json and the recipe in a model's manifest follow from this table; presets
change its defaults.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields
from typing import Any, Literal

from ..runtime.errors import InvalidOption
from ..runtime.manifest import MOST_LAYERS, MOST_UNITS
from ..runtime.text import NORMALIZATIONS, Normalization
from .presets import AUTO, PRESETS, preset_values

Cell = Literal["gru", "lstm"]
GATES: dict[Cell, int] = {"gru": 3, "lstm": 4}
BFLOAT16 = "mixed_bfloat16"
PRECISIONS = ("float32", BFLOAT16, "mixed_float16")


@dataclass(frozen=True)
class Number:
    """Range of a numeric option."""

    kind: type[int] | type[float]
    expected: str
    """The range in words, for errors."""
    low: float
    high: float = sys.float_info.max
    excluded: tuple[float, ...] = ()
    """Bounds that are not part of the range."""

    def allows(self, value: object) -> bool:
        """Whether a value is in the range; bool, NaN and infinity are not."""
        if type(value) is not int and (self.kind is int or type(value) is not float):
            return False
        return self.low <= value <= self.high and value not in self.excluded


@dataclass(frozen=True)
class Choice:
    """Allowed names of an option."""

    names: Sequence[str]
    kind: type[str] = str

    @property
    def expected(self) -> str:
        """The names in words, for errors."""
        return f"one of {', '.join(self.names)}"

    def allows(self, value: object) -> bool:
        """Whether a value is one of the names."""
        return type(value) is str and value in self.names


@dataclass(frozen=True)
class Option:
    """Definition of an option that users may set."""

    values: Number | Choice
    help: str
    in_manifest: bool
    """Whether a model file's manifest records the value, unless it is 0 or None."""
    unset: str
    """Meaning of None, for help; empty if None is not allowed."""


def whole(low: int, high: int) -> Number:
    """Whole numbers from `low` to `high`, both included."""
    return Number(int, f"a whole number from {low} to {high}", low, high)


SHARE = Number(float, "from 0 to below 1", 0, 1, excluded=(1,))
FRACTION = Number(float, "between 0 and 1", 0, 1, excluded=(0, 1))
POSITIVE = Number(float, "a number above 0", 0, excluded=(0,))
NOT_NEGATIVE = Number(float, "a number from 0 up", 0)


def option(default: Any, values: Number | Choice, help: str, in_manifest: bool = True, unset: str = "") -> Any:
    """Define a field of `Config` that users may set; the arguments are the fields of `Option`, and the default."""
    return field(default=default, metadata={"option": Option(values, help, in_manifest, unset)})


def record(allows: Callable[[Any], bool], default: Any = MISSING) -> Any:
    """Define a field of `Config` that the training sets.

    Args:
        allows: whether a value read from config.json is valid.
        default: its value if config.json leaves it out; by default it is required.
    """
    return field(default=default, metadata={"allows": allows})


def _is_text(value: Any) -> bool:
    return type(value) is str and "\0" not in value  # no path can contain it


def _is_sha256(value: Any) -> bool:
    return type(value) is str and re.fullmatch("[0-9a-f]{64}", value) is not None


def _is_corpus(value: Any) -> bool:
    if type(value) is not dict or not {"files", "characters", "sha256"} <= value.keys() or not _is_text(value["sha256"]):
        return False
    names = [name for key in ("files", "sources") for name in (value.get(key, []) if type(value.get(key, [])) is list else [None])]
    counts = (value["characters"], value.get("skipped", 0))
    return all(map(_is_text, names)) and all(type(count) is int and 0 <= count < 2**63 for count in counts)


def _each(allows: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda values: type(values) in (list, tuple) and all(map(allows, values))


def _optional(allows: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or allows(value)


@dataclass(frozen=True, kw_only=True)
class Config:
    """Contents of `config.json`: the options of a training, its text, and the hardware it ran on.

    Raises:
        InvalidOption: an option has an invalid value.
        ValueError: another field has an invalid value, which only a damaged config.json causes.
    """

    preset: str = option(AUTO, Choice((AUTO, *PRESETS)), "Named set of defaults; auto chooses one for the length of the text.")
    cell: Cell = option("gru", Choice(("gru", "lstm")), "Recurrent cell.", in_manifest=False)
    units: int = option(304, whole(1, MOST_UNITS), "Units of each recurrent layer.", in_manifest=False)
    layers: int = option(2, whole(1, MOST_LAYERS), "Recurrent layers.", in_manifest=False)
    embedding_dim: int = option(256, whole(1, MOST_UNITS), "Dimensions of the character embedding.", in_manifest=False)
    dropout: float = option(0.1, SHARE, "Dropout on the output of each recurrent layer.")
    output_dropout: float | None = option(
        None, SHARE, "Dropout on the output of the last recurrent layer.", unset="that of `dropout`"
    )
    embedding_dropout: float = option(0.0, SHARE, "Dropout on the embeddings.")
    weight_drop: float = option(0.1, SHARE, "Dropout on the recurrent matrices, drawn once per window.")  # Merity et al. 2017
    weight_decay: float = option(0.3, NOT_NEGATIVE, "AdamW weight decay of the matrices; 0 uses plain Adam.")
    epochs: int = option(10, whole(1, 1_000_000), "Passes over the text.", in_manifest=False)
    batch_size: int = option(64, whole(1, 1_000_000), "Windows in a batch, over all devices.")
    sequence_length: int = option(100, whole(1, 1_000_000), "Characters in a window.")
    batching: Literal["carried", "shuffled"] = option(
        "carried", Choice(("carried", "shuffled")), "Streams with the state carried, or shuffled windows from zero states."
    )
    learning_rate: float = option(0.012, POSITIVE, "Peak learning rate.")
    learning_rate_decay: Literal["cosine", "none"] = option(
        "cosine", Choice(("cosine", "none")), "Decay of the learning rate over all epochs."
    )
    warmup: int = option(100, whole(0, 1_000_000_000), "Warm-up steps.")
    clip_norm: float = option(1.0, NOT_NEGATIVE, "Largest global norm of the gradients; 0 does not clip.")
    average: float = option(0.0, SHARE, "Decay of the exponential moving average of the weights; 0 is off.")
    patience: int = option(
        0, whole(0, 1_000_000), "Stop after this many epochs without a better validation loss; 0 is off.", in_manifest=False
    )
    keep: Literal["best", "last"] = option(
        "best", Choice(("best", "last")), "Weights to keep: those of the epoch with the best validation loss, or of the last one."
    )
    validation_split: float = option(0.1, FRACTION, "Share of the text, from its end, that is held out for validation.")
    normalization: Normalization = option("NFC", Choice(NORMALIZATIONS), "Unicode normalization form.", in_manifest=False)
    min_count: int = option(
        1, whole(1, 1_000_000_000), "Characters that occur less often become [UNK]; not with `vocabulary`.", in_manifest=False
    )
    teacher_weight: float = option(
        0.5, Number(float, "above 0 and at most 1", 0, 1, excluded=(0,)), "Teachers' share of the loss.", in_manifest=False
    )
    precision: str = option(
        "auto", Choice(("auto", *PRECISIONS)), "Keras dtype policy; auto is mixed_bfloat16 on a CPU that supports it, else float32."
    )
    cpu_devices: int | None = option(
        None, whole(1, 64), "Logical devices that the CPU is divided into.", in_manifest=False, unset="the fastest number"
    )
    seed: int = option(1, whole(0, 2**32 - 1), "Seed of the weights, the data order and dropout.")

    corpus: dict[str, Any] = record(_is_corpus)
    """`sources`, `files`, `characters`, `skipped`, and the `sha256` of the normalised text in UTF-8."""
    unknown: Literal["skip", "unk"] = record(lambda value: value in ("skip", "unk"))
    """Handling of characters outside the vocabulary: left out, or id 0."""
    versions: dict[str, str] = record(lambda value: type(value) is dict)
    fixed_vocabulary: bool = record(lambda value: type(value) is bool, False)
    """Whether the vocabulary was given or extends that of `initialized_from`, so that the text alone does not determine it."""
    initialized_from: str | None = record(_optional(_is_text), None)
    """The run, model file or bundled model whose weights the training started from."""
    initialized_from_sha256: str | None = record(_optional(_is_sha256), None)
    """SHA-256 of those weights; a resume continues from a checkpoint and does not check it."""
    teachers: Sequence[str] = record(_each(_is_text), ())
    """Runs that this one is distilled from."""
    teachers_sha256: Sequence[str] = record(_each(_is_sha256), ())
    """SHA-256 of each teacher's weights."""
    quantization_aware: Literal["int4"] | None = record(lambda value: value in (None, "int4"), None)
    """Format that the recurrent weights are rounded to during training."""
    hardware: str | None = record(_optional(_is_text), None)
    """Hardware of the last start: the GPUs with their memory, or the CPU with its threads."""
    ended: str | None = record(_optional(_is_text), None)
    """Time when the last finished epoch ended (UTC)."""

    def __post_init__(self) -> None:
        check_options({name: getattr(self, name) for name in OPTIONS})
        wrong = [name for name, allows in RECORDS.items() if not allows(getattr(self, name))]
        if wrong:
            raise ValueError(f"it has no sensible {', '.join(wrong)}")
        if self.precision == "auto" and self.ended:
            raise ValueError("its precision is not resolved")
        if self.batch_size % (self.cpu_devices or 1):
            raise InvalidOption("batch_size", f"{self.batch_size} cannot be shared by {self.cpu_devices} devices: give a multiple.")
        if self.teachers_sha256 and len(self.teachers_sha256) != len(self.teachers):
            raise ValueError("it does not have one of teachers_sha256 for each of its teachers")


OPTIONS: dict[str, Option] = {f.name: f.metadata["option"] for f in fields(Config) if "option" in f.metadata}
"""Options that users may set, in the order of the help."""
RECORDS: dict[str, Callable[[Any], bool]] = {f.name: f.metadata["allows"] for f in fields(Config) if "allows" in f.metadata}
"""Fields that the training sets, each with the check of its value."""
DEFAULTS: dict[str, Any] = {f.name: f.default for f in fields(Config) if f.name in OPTIONS}
REQUIRED = {"cell", "layers", "units", "embedding_dim", "dropout", "sequence_length", "batch_size", "epochs", "learning_rate"} | {
    *("validation_split", "normalization", "unknown", "seed", "precision", "corpus", "versions")
}
"""Fields that every config.json must have."""
ABSENT: dict[str, Any] = {
    "batching": "shuffled",
    "learning_rate_decay": "none",
    "warmup": 0,
    "clip_norm": 0.0,
    "weight_drop": 0.0,
    "weight_decay": 0.0,
    "cpu_devices": 1,
}
"""Values of options that a config.json leaves out, where they differ from the defaults."""


def check_options(given: Mapping[str, Any]) -> None:
    """Check the values of options.

    Args:
        given: values by option name.

    Raises:
        InvalidOption: a value is not in the option's range.
    """
    for name, value in given.items():
        option = OPTIONS[name]
        if not option.values.allows(value) and not (value is None and option.unset):
            raise InvalidOption(name, f"{value} must be {option.values.expected}.")


def settings(
    preset: str, given: Mapping[str, Any], characters: int | None = None, initial_units: int | None = None
) -> dict[str, Any]:
    """The value of every option: as given, else the preset's, else the default.

    Args:
        preset: the name of a preset.
        given: values by option name.
        characters: the number of characters to train on, by which `auto` chooses; None as long as it is unknown.
        initial_units: units of the model that the training starts from, which is another choice for `auto`.

    Raises:
        InvalidOption: the preset is unknown, or a value is not in the option's range.
    """
    check_options({"preset": preset, **given})
    return {**DEFAULTS, **preset_values(preset, characters, initial_units), **given, "preset": preset}


def recipe(config: Config) -> dict[str, Any]:
    """The options that a model's manifest records, without those that are 0 or None."""
    return {name: value for name, option in OPTIONS.items() if option.in_manifest and (value := getattr(config, name))}
