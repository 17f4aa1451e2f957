"""The run folder: what a training is asked for, what it leaves, and what the converter reads."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import MISSING, asdict, dataclass, fields
from pathlib import Path
from typing import Any, Literal

from ..runtime.errors import CharedgeError
from ..runtime.files import write_atomically
from ..runtime.text import NORMALIZATIONS, Normalization
from ..runtime.vocabulary import Vocabulary

Cell = Literal["gru", "lstm"]
GATES: dict[Cell, int] = {"gru": 3, "lstm": 4}
MAX_HELD_OUT_CHARACTERS = 1_000_000
CALIBRATION_CHARACTERS = 32_000
BFLOAT16 = "mixed_bfloat16"
RUN_FILES = (
    "model.keras",
    "history.csv",
    "curves.png",
    "events.out.tfevents.*",
    "vocabulary.txt",
    "held_out.txt",
    "calibration.txt",
    "config.json",
)
"""What a training writes into its folder, beside `checkpoints/` and its lock."""

Check = Callable[[Any], bool]


def _whole(low: int, high: int) -> Check:
    return lambda value: type(value) is int and low <= value <= high


def _number(low: float, high: float) -> Check:
    return lambda value: type(value) in (int, float) and low <= value <= high


def _share(value: Any) -> bool:
    return type(value) in (int, float) and 0 <= value < 1


def _one_of(*choices: Any) -> Check:
    return lambda value: any(value is choice or (type(value) is str and value == choice) for choice in choices)


def _text(value: Any) -> bool:
    return type(value) is str and "\0" not in value  # which no path can have


def _hash(value: Any) -> bool:
    return type(value) is str and re.fullmatch("[0-9a-f]{64}", value) is not None


def _list_of(check: Check) -> Check:
    return lambda value: type(value) is list and all(map(check, value))


def _or_none(check: Check) -> Check:
    return lambda value: value is None or check(value)


READABLE: dict[str, Check] = {
    "cell": _one_of("gru", "lstm"),
    "layers": _whole(1, 64),
    "units": _whole(1, 65_536),
    "embedding_dim": _whole(1, 65_536),
    "dropout": _share,
    "sequence_length": _whole(1, 1_000_000),
    "batch_size": _whole(1, 1_000_000),
    "epochs": _whole(1, 1_000_000),
    "learning_rate": lambda value: _number(0, 1e308)(value) and value > 0,
    "validation_split": lambda value: _share(value) and value > 0,
    "normalization": _one_of(*NORMALIZATIONS),
    "unknown": _one_of("skip", "unk"),
    "seed": _whole(0, 2**32 - 1),
    "precision": _one_of("float32", BFLOAT16, "mixed_float16"),
    "corpus": lambda value: (
        type(value) is dict
        and {"files", "characters", "sha256"} <= value.keys()
        and all(_list_of(_text)(value.get(name, [])) for name in ("files", "sources"))
        and all(_whole(0, 2**63 - 1)(value.get(name, 0)) for name in ("characters", "skipped"))
        and _text(value["sha256"])
    ),
    "versions": lambda value: type(value) is dict,
    "learning_rate_decay": _one_of("none", "cosine"),
    "warmup": _whole(0, 1_000_000_000),
    "weight_decay": _number(0, 1e308),
    "clip_norm": _number(0, 1e308),
    "average": _share,
    "patience": _whole(0, 1_000_000),
    "embedding_dropout": _share,
    "output_dropout": _or_none(_share),
    "weight_drop": _share,
    "batching": _one_of("shuffled", "carried"),
    "min_count": _whole(1, 1_000_000_000),
    "fixed_vocabulary": lambda value: type(value) is bool,
    "initialized_from": _or_none(_text),
    "initialized_from_sha256": _or_none(_hash),
    "teachers": _list_of(_text),
    "teachers_sha256": _list_of(_hash),
    "teacher_weight": lambda value: _number(0, 1)(value) and value > 0,
    "preset": _or_none(_text),
    "quantization_aware": _one_of(None, "int4"),
    "hardware": _or_none(_text),
    "cpu_devices": _or_none(_whole(1, 64)),
    "ended": _or_none(_text),
}
"""What each field of `config.json` may be."""


@dataclass(frozen=True)
class Config:
    """`config.json`: everything that decides what a training does."""

    cell: Cell
    layers: int
    units: int
    embedding_dim: int
    dropout: float
    """On the output of every recurrent layer."""
    sequence_length: int
    batch_size: int
    epochs: int
    learning_rate: float
    validation_split: float
    """How much of the text, from its end, is held out."""
    normalization: Normalization
    unknown: Literal["skip", "unk"]
    """What becomes of a character outside the vocabulary."""
    seed: int
    precision: str
    """The Keras dtype policy, as resolved for the hardware found."""
    corpus: dict[str, Any]
    """`files`, `characters`, and the `sha256` of the normalised text in UTF-8."""
    versions: dict[str, str]
    learning_rate_decay: Literal["none", "cosine"] = "none"
    """Over all epochs: none, or along half a cosine to zero."""
    warmup: int = 0
    """Steps in which the learning rate rises from 0."""
    weight_decay: float = 0.0
    """Of AdamW, on matrices and not on biases."""
    clip_norm: float = 0.0
    """The largest norm of all gradients together; 0 leaves them."""
    average: float = 0.0
    """What the exponential moving average of the weights keeps at each step; 0 is none."""
    patience: int = 0
    """Epochs without a better validation loss before training ends; 0 is no limit."""
    embedding_dropout: float = 0.0
    """On the embeddings."""
    output_dropout: float | None = None
    """On the last recurrent layer's output, in place of `dropout`."""
    weight_drop: float = 0.0
    """Dropout on the recurrent matrices, drawn once for each window (Merity et al. 2017)."""
    batching: Literal["shuffled", "carried"] = "shuffled"
    """Windows in random order from zero states, or streams through the text with the state carried from window to window."""
    min_count: int = 1
    """Characters that are rarer are `[UNK]`."""
    fixed_vocabulary: bool = False
    """The vocabulary does not follow from the text alone: it was given, or has the characters of `initialized_from`, too."""
    initialized_from: str | None = None
    """The run whose weights were the first."""
    initialized_from_sha256: str | None = None
    """Of those weights; a resume continues from a checkpoint and does not need them."""
    teachers: Sequence[str] = ()
    """The runs whose predictions were learnt from."""
    teachers_sha256: Sequence[str] = ()
    """Of each teacher's weights; none in runs that were made before these were recorded."""
    teacher_weight: float = 0.5
    """How much of the loss is the cross-entropy with the teachers' predictions, the rest being that with the text."""
    preset: str | None = None
    """The name of the settings that held where no option said otherwise."""
    quantization_aware: Literal["int4"] | None = None
    """What the recurrent weights are rounded to while they are trained."""
    hardware: str | None = None
    """What it ran on last: the GPUs with their memory, or the CPU with its threads."""
    cpu_devices: int | None = 1
    """Logical devices that the CPU is divided into; None where none were needed, on a GPU."""
    ended: str | None = None
    """When the last epoch ended so far (UTC)."""


@dataclass(frozen=True)
class Epoch:
    """A row of `history.csv`."""

    epoch: int
    train_nats_per_character: float
    validation_nats_per_character: float
    characters_per_second: float
    learning_rate: float
    seconds: float


@dataclass(frozen=True)
class Run:
    """A run folder by its path."""

    path: Path

    @property
    def model(self) -> Path:
        """The weights that were best on the validation split."""
        return self.path / "model.keras"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def _config(self) -> Path:
        return self.path / "config.json"

    @property
    def _vocabulary(self) -> Path:
        return self.path / "vocabulary.txt"

    @property
    def _held_out(self) -> Path:
        return self.path / "held_out.txt"

    @property
    def _calibration(self) -> Path:
        return self.path / "calibration.txt"

    @property
    def _history(self) -> Path:
        return self.path / "history.csv"

    def exists(self) -> bool:
        return self._config.exists()

    def create(self, config: Config, vocabulary: Vocabulary, train_text: str, held_out: str) -> None:
        """Begin a run: the folder, its configuration, its vocabulary, and what the converter needs of the text.

        That is the validation split (a million characters at most), and the end of the training split.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_config(config)  # first, so that a start that fails leaves a run, which `overwrite` replaces
        self.checkpoints.mkdir(exist_ok=True)
        write_atomically(self._vocabulary, vocabulary.to_bytes())
        write_atomically(self._held_out, held_out[:MAX_HELD_OUT_CHARACTERS].encode())
        write_atomically(self._calibration, train_text[-CALIBRATION_CHARACTERS:].encode())

    def write_config(self, config: Config) -> None:
        write_atomically(self._config, (json.dumps(asdict(config), indent=2, ensure_ascii=False) + "\n").encode())

    def config(self) -> Config:
        """
        Raises:
            CharedgeError: the folder is no run, or its config.json is damaged.
        """
        if not self.path.is_dir():
            raise CharedgeError(f"{self.path} is not a run folder: give one that `charedge train` made.")
        try:
            values = json.loads(self._read(self._config))
            if type(values) is not dict:
                raise ValueError("it is not a JSON object")
            required = {field.name for field in fields(Config) if field.default is MISSING} - values.keys()
            if required:
                raise ValueError(f"it has no {', '.join(sorted(required))}")
            json.dumps(values, ensure_ascii=False).encode()  # not so halves of characters
            wrong = [name for name, readable in READABLE.items() if name in values and not readable(values[name])]
            if wrong:
                raise ValueError(f"it has no sensible {', '.join(wrong)}")
            config = Config(**{field.name: values[field.name] for field in fields(Config) if field.name in values})
            if config.batch_size % (config.cpu_devices or 1):
                raise ValueError("its cpu_devices do not divide its batch_size")
            if config.teachers_sha256 and len(config.teachers_sha256) != len(config.teachers):
                raise ValueError("it has not one teachers_sha256 for each of its teachers")
            return config
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CharedgeError(f"{self._config} is damaged ({error}): train again, or copy the run folder again.") from None

    def vocabulary(self) -> Vocabulary:
        return Vocabulary.parse(self._read(self._vocabulary), str(self._vocabulary))

    def held_out(self) -> str:
        """The text that validation measured on, at most its first million characters."""
        return self._read_text(self._held_out)

    def calibration(self) -> str:
        """The end of the text that was trained on."""
        return self._read_text(self._calibration)

    def history(self) -> list[Epoch]:
        """The epochs so far; none if the training has just begun."""
        if not self._history.exists():
            return []
        try:
            with self._history.open(newline="") as file:
                return [
                    Epoch(int(row.pop("epoch")), **{key: float(value) for key, value in row.items()})
                    for row in csv.DictReader(file)
                ]
        except (OSError, ValueError, TypeError, KeyError, csv.Error) as error:
            raise CharedgeError(f"{self._history} is damaged ({error}): copy the run folder again.") from None

    def write_history(self, epochs: list[Epoch]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, [field.name for field in fields(Epoch)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(epoch) for epoch in epochs)
        write_atomically(self._history, text.getvalue().encode())

    def _read_text(self, path: Path) -> str:
        try:
            return self._read(path).decode()
        except UnicodeDecodeError:
            raise CharedgeError(f"{path} is damaged: copy the run folder again.") from None

    def _read(self, path: Path) -> bytes:
        try:
            return path.read_bytes()
        except OSError:
            raise CharedgeError(
                f"{self.path} is not a whole run folder, it has no {path.name}: give one that `charedge train` made."
            ) from None
