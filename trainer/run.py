"""The run folder: configuration, vocabulary, weights, history and checkpoints of a training, which the converter reads."""

from __future__ import annotations

import csv
import io
import json
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from ..runtime.errors import CharedgeError
from ..runtime.files import write_atomically
from ..runtime.paths import StrPath, path_argument
from ..runtime.vocabulary import Vocabulary
from .config import ABSENT, REQUIRED, Config

LOCK = ".lock"
MAX_HELD_OUT_CHARACTERS = 1_000_000
CALIBRATION_CHARACTERS = 32_000
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
"""Files of a run, as patterns; `checkpoints/` and the lock come in addition."""


@dataclass(frozen=True)
class Epoch:
    """Figures of one epoch, a row of `history.csv`."""

    epoch: int
    train_nats_per_character: float
    validation_nats_per_character: float
    characters_per_second: float
    learning_rate: float
    seconds: float


def kept_epoch(config: Config, history: Sequence[Epoch]) -> Epoch | None:
    """The epoch whose weights `model.keras` has; None if there is none yet."""
    if config.keep == "last":
        return history[-1] if history else None
    finite = [epoch for epoch in history if math.isfinite(epoch.validation_nats_per_character)]
    return min(finite, key=lambda epoch: epoch.validation_nats_per_character, default=None)


@dataclass(frozen=True)
class Run:
    """A run folder; it is taken wherever a path is."""

    path: Path

    def __fspath__(self) -> str:
        return str(self.path)

    @classmethod
    def of(cls, field: str, value: Run | StrPath) -> Run:
        """The run of an argument that gives it or its folder.

        Raises:
            InvalidOption: it is neither a run nor a path.
        """
        return value if isinstance(value, Run) else cls(path_argument(field, value))

    @property
    def model(self) -> Path:
        """File of the weights that were best on the validation split."""
        return self.path / "model.keras"

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
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
        """Whether the folder holds a run."""
        return self._config.exists()

    @property
    def has_checkpoint(self) -> bool:
        """Whether a training can be continued."""
        return any(self.checkpoints.glob("epoch-*.npz"))

    def require_free(self, overwrite: bool) -> None:
        """Check that a new run may be written into the folder.

        Args:
            overwrite: whether to replace a run in the folder.

        Raises:
            CharedgeError: the folder holds a run and `overwrite` is False, it holds other files, or the path is a file.
        """
        if self.path.exists() and not self.path.is_dir():
            raise CharedgeError(f"`output` {self.path} is a file: give a folder for the run.")
        if self.exists() and not overwrite:
            raise CharedgeError(
                f"{self.path} already holds a run: continue it with `resume`, replace it with `overwrite`, or choose another "
                "`output`."
            )
        if self.path.is_dir() and not self.exists() and any(path.name != LOCK for path in self.path.iterdir()):
            raise CharedgeError(f"`output` {self.path} holds other files: choose a new folder.")

    def remove(self) -> None:
        """Delete the files of the run, and no other files in the folder."""
        if not self.exists():
            return
        shutil.rmtree(self.checkpoints, ignore_errors=True)
        for pattern in RUN_FILES:
            for path in self.path.glob(pattern):
                path.unlink()

    def create(self, config: Config, vocabulary: Vocabulary, train_text: str, held_out: str) -> None:
        """Make the run folder with its configuration, its vocabulary, and the parts of the text that the converter needs.

        Args:
            config: the configuration.
            vocabulary: the vocabulary.
            train_text: the training split, of which the last 32,000 characters are kept for calibration.
            held_out: the validation split, of which the first million characters are kept.

        Raises:
            OSError: the folder cannot be written.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        self.write_config(config)  # first, so that a failed start leaves a run that `overwrite` replaces
        self.checkpoints.mkdir(exist_ok=True)
        write_atomically(self._vocabulary, vocabulary.to_bytes())
        write_atomically(self._held_out, held_out[:MAX_HELD_OUT_CHARACTERS].encode())
        write_atomically(self._calibration, train_text[-CALIBRATION_CHARACTERS:].encode())

    def write_config(self, config: Config) -> None:
        """Write config.json."""
        write_atomically(self._config, (json.dumps(asdict(config), indent=2, ensure_ascii=False) + "\n").encode())

    def config(self) -> Config:
        """Read config.json.

        Raises:
            CharedgeError: the folder is not a run folder, or its config.json is damaged.
        """
        if not self.path.is_dir():
            raise CharedgeError(f"{self.path} is not a run folder: give one that `charedge train` made.")
        try:
            values = json.loads(self._read(self._config))
            if type(values) is not dict:
                raise ValueError("it is not a JSON object")
            missing = REQUIRED - values.keys()
            if missing:
                raise ValueError(f"it has no {', '.join(sorted(missing))}")
            json.dumps(values, ensure_ascii=False).encode()  # fails for halves of surrogate pairs
            return Config(**ABSENT | {field.name: values[field.name] for field in fields(Config) if field.name in values})
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise CharedgeError(f"{self._config} is damaged ({error}): train again, or copy the run folder again.") from None

    def vocabulary(self) -> Vocabulary:
        """Read vocabulary.txt.

        Raises:
            CharedgeError: the file is missing or damaged.
        """
        return Vocabulary.parse(self._read(self._vocabulary), str(self._vocabulary))

    def held_out(self) -> str:
        """Read the text of the validation split, its first million characters at most."""
        return self._read_text(self._held_out)

    def calibration(self) -> str:
        """Read the end of the training split."""
        return self._read_text(self._calibration)

    def history(self) -> list[Epoch]:
        """Read the finished epochs; empty if there is none.

        Raises:
            CharedgeError: history.csv is damaged.
        """
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
        """Write history.csv."""
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
                f"{self.path} is not a complete run folder, {path.name} is missing: give one that `charedge train` made."
            ) from None
