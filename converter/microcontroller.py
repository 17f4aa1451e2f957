"""TensorFlow Lite Micro on the workstation: its interpreter with reference kernels, from the package `tflite-micro`.

It runs the same bytes as a microcontroller, and shows how much memory they need there.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from ..runtime.errors import CharedgeError
from ..runtime.interpreter import Installed, Step, captured_stderr
from .profiles import MICRO

ARENA_MARGIN = 0.1
"""Part of the smallest arena that is added to it: a 32-bit processor needs smaller tables, but its own kernels may need more."""
ARENA_ALIGNMENT = 16
LARGEST_ARENA = 64 * 2**20  # bytes
OPERATORS = {value: name for name, value in vars(schema.BuiltinOperator).items() if not name.startswith("_")}

NOT_INSTALLED = (
    "tflite-micro, which runs a model as a microcontroller does, is not installed; on x86-64 Linux with Python 3.11, run "
    "`pip install 'charedge[micro]'`."
)


def installed_micro() -> Installed | None:
    """The package `tflite-micro`, or None if it is not installed; it has wheels for Python 3.11 on x86-64 Linux only."""
    try:
        return Installed(MICRO, importlib.import_module("tflite_micro").__version__)
    except ImportError:
        return None


def operators(flatbuffer: bytes) -> list[str]:
    """The names of the operators that a file uses, as in TFLite's schema, in alphabetical order."""
    model: Any = schema.Model.GetRootAs(flatbuffer, 0)
    return sorted({OPERATORS[model.OperatorCodes(i).BuiltinCode()] for i in range(model.OperatorCodesLength())})


class MicroStep(Step):
    """One step of a model in TensorFlow Lite Micro, one row at a time."""

    def __init__(self, flatbuffer: bytes, vocabulary_size: int, state_size: int, interpreter: Installed) -> None:
        """Load a flatbuffer.

        Args:
            flatbuffer: with inputs `token` and `state` and outputs `logits` and `state`, in this order.
            vocabulary_size: V.
            state_size: S.
            interpreter: from `installed_micro`.

        Raises:
            CharedgeError: TensorFlow Lite Micro does not take the file.
        """
        self.interpreter, self.vocabulary_size, self.state_size = interpreter, vocabulary_size, state_size
        self._flatbuffer = flatbuffer
        with captured_stderr() as written:
            try:
                self._interpreter = self._load(LARGEST_ARENA)
            except RuntimeError:
                raise CharedgeError(f"{interpreter} does not take the model ({_last_line(written())}).") from None

    def _load(self, arena_size: int) -> Any:
        return importlib.import_module("tflite_micro").runtime.Interpreter.from_bytes(self._flatbuffer, arena_size=arena_size)

    def advance(self, tokens: np.ndarray, state: np.ndarray, logits: np.ndarray) -> None:
        """Run one step of one row.

        Args:
            tokens: int [1].
            state: float32 [1, S], replaced by the state after the step.
            logits: float32 [1, V], replaced by those of the step.
        """
        self._interpreter.set_input(np.asarray(tokens, np.int32), 0)
        self._interpreter.set_input(state, 1)
        self._interpreter.invoke()
        logits[...] = self._interpreter.get_output(0)
        state[...] = self._interpreter.get_output(1)

    def arena_bytes(self) -> int:
        """The size of the arena that the model needs: bytes, a multiple of 16, with a margin of 10 %.

        Measured as the smallest arena in which the model loads. The allocator's own report can be smaller, because it leaves out
        the memory that is needed only while the model loads.
        """
        enough, too_small = LARGEST_ARENA, 0
        with captured_stderr():
            while enough - too_small > ARENA_ALIGNMENT:
                size = (enough + too_small) // 2
                try:
                    self._load(size)
                    enough = size
                except RuntimeError:
                    too_small = size
        return -(-int(enough * (1 + ARENA_MARGIN)) // ARENA_ALIGNMENT) * ARENA_ALIGNMENT


def _last_line(messages: bytes) -> str:
    return (messages.decode(errors="replace").strip().splitlines() or ["no reason given"])[-1]
