"""The run folder: what a training is asked for, what it leaves, and what the converter reads."""

from __future__ import annotations

import csv
import io
import json
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

READABLE: dict[str, Callable[[Any], bool]] = {
    "cell": lambda value: value in ("gru", "lstm"),
    "layers": lambda value: type(value) is int and 1 <= value <= 64,
    "units": lambda value: type(value) is int and 1 <= value <= 65_536,
    "embedding_dim": lambda value: type(value) is int and 1 <= value <= 65_536,
    "dropout": lambda value: type(value) in (int, float) and 0 <= value < 1,
    "normalization": lambda value: value in NORMALIZATIONS,
    "unknown": lambda value: value in ("skip", "unk"),
    "corpus": lambda value: {"files", "characters", "sha256"} <= value.keys() and all(type(file) is str for file in value["files"]),
    "quantization_aware": lambda value: value in (None, "int4"),
    "initialized_from": lambda value: value is None or type(value) is str,
    "teachers": lambda value: type(value) is list and all(type(path) is str for path in value),
    "hardware": lambda value: value is None or type(value) is str,
    "cpu_devices": lambda value: value is None or (type(value) is int and 1 <= value <= 64),
    "ended": lambda value: value is None or type(value) is str,
}
"""What `config.json` may say of that which others than the trainer read."""


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
    """The characters were given, and others in the text are left out."""
    initialized_from: str | None = None
    """The run whose weights were the first."""
    teachers: Sequence[str] = ()
    """The runs whose predictions were learnt from."""
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
        self.checkpoints.mkdir(parents=True, exist_ok=True)
        write_atomically(self._vocabulary, vocabulary.to_bytes())
        write_atomically(self._held_out, held_out[:MAX_HELD_OUT_CHARACTERS].encode())
        write_atomically(self._calibration, train_text[-CALIBRATION_CHARACTERS:].encode())
        self.write_config(config)

    def write_config(self, config: Config) -> None:
        write_atomically(self._config, (json.dumps(asdict(config), indent=2, ensure_ascii=False) + "\n").encode())

    def config(self) -> Config:
        """
        Raises:
            CharedgeError: the folder is no run, or its config.json is damaged.
        """
        if not self.path.is_dir():
            raise CharedgeError(f"{self.path} is not a run folder: give one that `charedge train --output` made.")
        try:
            values = json.loads(self._read(self._config))
            required = {field.name for field in fields(Config) if field.default is MISSING} - values.keys()
            if required:
                raise ValueError(f"it has no {', '.join(sorted(required))}")
            json.dumps(values, ensure_ascii=False).encode()  # not so halves of characters
            wrong = [name for name, readable in READABLE.items() if name in values and not readable(values[name])]
            if wrong:
                raise ValueError(f"it has no sensible {', '.join(wrong)}")
            return Config(**{field.name: values[field.name] for field in fields(Config) if field.name in values})
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
