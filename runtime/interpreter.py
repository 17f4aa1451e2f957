"""TFLite interpreters: which ones are installed, which one may run a file, and one step of a model on it."""

from __future__ import annotations

import importlib
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from .errors import CharedgeError, InvalidOption
from .model_file import SIGNATURE, ModelFile
from .wheels import advice

MODULES = {"ai-edge-litert": "ai_edge_litert", "tflite-runtime": "tflite_runtime"}
"""The interpreters by distribution name, the preferred one first."""

MAX_THREADS = 128
"""LiteRT crashes if the system gives it fewer threads than it asks for; on a 32-bit system there is no memory for 400 stacks."""

INT4 = "int4"  # the quantization that only XNNPACK computes well
INT4_TILE = 5  # fewer rows than this are faster one by one

CHATTER = re.compile(
    rb"^(INFO: Created TensorFlow Lite XNNPACK delegate for CPU\."
    rb"|WARNING: All log messages before absl::InitializeLog.*"
    rb"|I0000 .*)\n",
    re.MULTILINE,
)
"""Harmless log lines of LiteRT's and TensorFlow's C++ code, which no setting silences."""


@dataclass(frozen=True)
class Installed:
    """An installed interpreter."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def installed_interpreters() -> Iterator[Installed]:
    """The working interpreters of this machine, the preferred one first; tflite-runtime does not work with numpy 2."""
    for name, module in MODULES.items():
        if name == "tflite-runtime" and _release(np.__version__) >= (2,):
            continue
        try:
            yield Installed(name, importlib.import_module(module).__version__)
        except ImportError:
            continue


def choose_interpreter(file: ModelFile, name: str | None = None) -> Installed:
    """Choose the interpreter for a file: the first installed one that the file names, or the one called `name`.

    Raises:
        InvalidOption: `name` is not an interpreter.
        CharedgeError: none that the file was tested on is installed. Others are never given the file: they may crash or,
            worse, compute something else.
    """
    if name is not None and name not in MODULES:
        raise InvalidOption("interpreter", f"{name!r} is unknown: choose {' or '.join(MODULES)}.")
    needs = {entry.name: entry.minimum_version for entry in file.manifest.interpreters}
    installed = [found for found in installed_interpreters() if name in (None, found.name)]
    for found in installed:
        if found.name in needs and _release(found.version) >= _release(needs[found.name]):
            return found
    wanted = {key: needs[key] for key in MODULES if key in needs and name in (None, key)}
    if not wanted:
        raise CharedgeError(
            f"{file.path} ({file.manifest.quantization}) was not made for {name or 'any interpreter known here'}: "
            f"convert the run again with another `quantization`."
        )
    have = f"this machine has {' and '.join(map(str, installed))}" if installed else "no working one is installed"
    raise CharedgeError(
        f"{file.path} needs {' or '.join(f'{key} {minimum} or later' for key, minimum in wanted.items())}, and {have}: "
        f"{advice(wanted)}."
    )


def _release(version: str) -> tuple[int, ...]:
    """The numbers at the start of a version: '2.3.0rc1' -> (2, 3, 0)."""
    match = re.match(r"\d+(?:\.\d+)*", version)
    return tuple(map(int, match.group().split("."))) if match else ()


class Step:
    """One step of the model, for one or more rows: (token, state) -> (logits, state).

    Threads may share it: a lock gives one of them at a time the interpreter, whose memory is not visible outside a step.

    Attributes:
        interpreter: the interpreter that it runs on.
        threads: of the interpreter.
        vocabulary_size: V, the columns of `logits`.
        state_size: S, the columns of `state`.
    """

    def __init__(
        self,
        flatbuffer: bytes,
        vocabulary_size: int,
        state_size: int,
        interpreter: Installed,
        threads: int = 1,
        int4: bool = False,
        name: str = "the model",
    ) -> None:
        """Load a flatbuffer into an interpreter.

        Args:
            flatbuffer: with a signature `step`.
            vocabulary_size: V.
            state_size: S.
            interpreter: from `choose_interpreter`, or another one to try.
            threads: of the interpreter.
            int4: whether its weights have 4 bits, which needs XNNPACK.
            name: the name of the model in errors.

        Raises:
            InvalidOption: `threads` is not from 1 to `MAX_THREADS`.
            CharedgeError: the interpreter cannot load the flatbuffer.
        """
        if not 1 <= threads <= MAX_THREADS:
            raise InvalidOption("threads", f"{threads} must be from 1 to {MAX_THREADS}.")
        self.interpreter, self.vocabulary_size, self.state_size = interpreter, vocabulary_size, state_size
        self.threads, self.rows = threads, 1
        self._lock = threading.Lock()
        module = importlib.import_module(f"{MODULES[self.interpreter.name]}.interpreter")
        try:
            with quiet_stderr():
                self._interpreter: Any = module.Interpreter(model_content=flatbuffer, num_threads=threads)
                runner = self._interpreter.get_signature_runner(SIGNATURE)
                inputs, outputs = runner.get_input_details(), runner.get_output_details()
                del runner  # while it exists, no tensor can be resized
                self._interpreter.allocate_tensors()
        except (ValueError, RuntimeError) as error:
            raise CharedgeError(
                f"{name} cannot be loaded by {self.interpreter} ({_first_line(error)}): "
                "convert the run again with this version of charedge."
            ) from None
        try:
            self._token, self._state = inputs["token"]["index"], inputs["state"]["index"]
            self._logits, self._next_state = outputs["logits"]["index"], outputs["state"]["index"]
        except KeyError as error:
            raise CharedgeError(f"{name} has no tensor {error} in its signature: convert the run again.") from None
        self._check_shapes(name)
        if int4 and not self._has_xnnpack():
            raise CharedgeError(
                f"{name} (int4) needs XNNPACK, which {self.interpreter} lacks on this machine: "
                "convert the run with `quantization` int8."
            )
        self._singly_below = INT4_TILE if int4 else 0
        self._bind()

    @classmethod
    def load(cls, file: ModelFile, threads: int = 1, interpreter: str | None = None) -> Step:
        """Load a model file on the first installed interpreter that fits, or on the one called `interpreter`.

        Raises:
            InvalidOption: `threads` is not from 1 to `MAX_THREADS`, or `interpreter` is unknown.
            CharedgeError: no fitting interpreter is installed, or it cannot load the file.
        """
        manifest = file.manifest
        sizes, int4 = (manifest.vocabulary_size, manifest.state_size), manifest.quantization == INT4
        return cls(file.flatbuffer, *sizes, choose_interpreter(file, interpreter), threads, int4, str(file.path))

    def _has_xnnpack(self) -> bool:
        """Whether a delegate runs the operators: without it 4-bit kernels are slow and hardly tested."""
        return any(operator["op_name"] == "DELEGATE" for operator in self._interpreter._get_ops_details())

    def _check_shapes(self, name: str) -> None:
        """Compare the shapes and types of the allocated tensors with the sizes in the manifest.

        Raises:
            CharedgeError: they differ.
        """
        one_row = {
            self._token: ((1,), np.int32),
            self._state: ((1, self.state_size), np.float32),
            self._logits: ((1, self.vocabulary_size), np.float32),
            self._next_state: ((1, self.state_size), np.float32),
        }
        details = [*self._interpreter.get_input_details(), *self._interpreter.get_output_details()]
        found = {detail["index"]: (tuple(int(n) for n in detail["shape"]), detail["dtype"]) for detail in details}
        if len(details) != len(one_row) or found != one_row:
            raise CharedgeError(f"{name} has tensors whose shapes differ from its manifest: convert the run again.")

    def zeros(self, rows: int = 1) -> np.ndarray:
        """The state at the start of a text: float32 [rows, S]."""
        return np.zeros((rows, self.state_size), np.float32)

    def empty_logits(self, rows: int = 1) -> np.ndarray:
        """An uninitialised array for the logits of a step: float32 [rows, V]."""
        return np.empty((rows, self.vocabulary_size), np.float32)

    def __call__(self, tokens: np.ndarray, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Run one step.

        Args:
            tokens: int [rows], ids below the vocabulary size.
            state: float32 [rows, S], not modified.

        Returns:
            The logits float32 [rows, V] and the state after the step float32 [rows, S], both new arrays.
        """
        logits, state = self.empty_logits(len(tokens)), state.copy()
        self.advance(tokens, state, logits)
        return logits, state

    def advance(self, tokens: np.ndarray, state: np.ndarray, logits: np.ndarray) -> None:
        """Run one step in place, without allocating memory.

        Args:
            tokens: int [rows], ids below the vocabulary size.
            state: float32 [rows, S], replaced by the state after the step.
            logits: float32 [rows, V], replaced by those of the step.
        """
        rows = len(tokens)
        if 1 < rows < self._singly_below:  # a batch's kernel computes a whole tile
            for row in range(rows):
                self.advance(tokens[row : row + 1], state[row : row + 1], logits[row : row + 1])
            return
        with self._lock:
            if rows != self.rows:
                self._resize(rows)
            self._token_in[...] = tokens  # [...] is faster than [:] in numpy
            self._state_in[...] = state
            self._interpreter.invoke()
            state[...] = self._state_out
            logits[...] = self._logits_out

    def _resize(self, rows: int) -> None:
        self.rows = 0  # until it is done: if this fails or is interrupted, the next step resizes first
        self._interpreter.resize_tensor_input(self._token, [rows])
        self._interpreter.resize_tensor_input(self._state, [rows, self.state_size])
        self._interpreter.allocate_tensors()
        self._bind()
        self.rows = rows

    def _bind(self) -> None:
        """Find the tensors' memory, which stays in place until they are allocated again."""
        self._token_in, self._state_in = self._memory(self._token), self._memory(self._state)
        self._logits_out, self._state_out = self._memory(self._logits), self._memory(self._next_state)

    def _memory(self, index: int) -> np.ndarray:
        """A tensor's memory as an array.

        The interpreter refuses to run while an array that it made itself is in use, because such an array could outlive a
        reallocation. This array refers to the memory only. The probe, which every file must pass, reads through it.
        """
        return np.asarray(_Memory(self._interpreter.tensor(index)().__array_interface__))


class _Memory:
    """An address that numpy can make an array of."""

    def __init__(self, interface: dict[str, Any]) -> None:
        self.__array_interface__ = interface


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0].rstrip(".") or type(error).__name__


def _scratch() -> int:
    """The descriptor of a temporary file, in memory where the system has such files."""
    if hasattr(os, "memfd_create"):
        return os.memfd_create("stderr")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


@contextmanager
def captured_stderr() -> Iterator[Callable[[], bytes]]:
    """Keep what C++ code writes to stderr in the block from being shown.

    Yields:
        A function that returns all that was written so far, to call in the block; nothing, if stderr cannot be captured.
    """
    try:
        saved = os.dup(2)
        held = os.fdopen(_scratch(), "w+b")
    except OSError:  # stderr is closed, or no temporary file can be made
        yield lambda: b""
        return

    def written() -> bytes:
        held.seek(0)
        return held.read()

    with held:
        os.dup2(held.fileno(), 2)
        try:
            yield written
        finally:
            os.dup2(saved, 2)
            os.close(saved)


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Hold back what C++ code writes to stderr in the block, then write all of it but the `CHATTER`."""
    messages = b""
    try:
        with captured_stderr() as written:
            try:
                yield
            finally:
                messages = written()
    finally:
        rest = CHATTER.sub(b"", messages)
        if rest:
            with suppress(OSError):  # a full disk, or a closed pipe
                os.write(2, rest)
