"""Hardware detection: the GPUs that TensorFlow can use, their memory, the CPU's threads, and the precision to train in."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import tensorflow as tf

from ..runtime.errors import CharedgeError, InvalidOption
from .cluster import workers
from .config import BFLOAT16, Config

NVIDIA = ("dev/nvidia[0-9]*", "proc/driver/nvidia/gpus/*", "usr/lib/wsl/lib/libcuda.so*")
"""Files of an NVIDIA driver, also under the Windows Subsystem for Linux."""
DIAGNOSIS_SECONDS = 120
OUT_OF_MEMORY = re.compile("out.of.memory|ALLOC_FAILED|OOM when|failed to allocate|Dst tensor is not initialized", re.IGNORECASE)
TO_THE_CPU = "hide the GPU with CUDA_VISIBLE_DEVICES=-1 to train on the CPU"


@dataclass(frozen=True)
class Gpu:
    """A GPU that TensorFlow can use."""

    name: str
    """Product name."""
    total_bytes: int | None = None
    """Total memory; None if `nvidia-smi` is missing."""
    free_bytes: int | None = None
    """Memory that no process uses; None if `nvidia-smi` is missing."""


@dataclass(frozen=True)
class Hardware:
    """Hardware of a training: all GPUs, or else the CPU as one or several logical devices."""

    gpus: tuple[Gpu, ...] = ()
    cpu_devices: int = 1
    threads_per_device: int = 1
    workers: int = 1

    def __str__(self) -> str:
        """For people: `NVIDIA H100 80GB HBM3 (80 GB)`, `the CPU (2 threads)`."""
        if self.gpus:
            kinds = {gpu: self.gpus.count(gpu) for gpu in self.gpus}
            here = " and ".join(f"{count} x {_described(gpu)}" if count > 1 else _described(gpu) for gpu, count in kinds.items())
        else:
            threads = f"{self.threads_per_device} thread{'s' if self.threads_per_device > 1 else ''}"
            here = f"the CPU ({threads})" if self.cpu_devices == 1 else f"the CPU ({self.cpu_devices} devices of {threads})"
        return here if self.workers == 1 else f"{self.workers} workers, each with {here}"


def _described(gpu: Gpu) -> str:
    return f"{gpu.name} ({gpu.total_bytes / 1e9:.0f} GB)" if gpu.total_bytes else gpu.name


def cpu_threads() -> int:
    """Number of processors that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def find_gpus(warn: Callable[[str], object]) -> tuple[Gpu, ...]:
    """Find the GPUs that TensorFlow can use, and let it allocate their memory on demand.

    This initialises TensorFlow only if it lists a GPU and there is one worker: without a GPU the CPU can still be divided later,
    and several workers must connect first.

    Args:
        warn: called with a sentence if a GPU of this machine cannot be used.

    Returns:
        The GPUs; empty if training runs on the CPU.

    Raises:
        CharedgeError: a GPU is listed and TensorFlow cannot initialise it.
    """
    listed = tf.config.list_physical_devices("GPU")
    if not listed:
        if has_nvidia_gpu():
            warn(
                f"this machine has an NVIDIA GPU and TensorFlow cannot use it ({tensorflow_reason()}): training runs on the CPU; "
                "check the driver with `nvidia-smi`, and install CUDA's libraries with `pip install 'charedge[gpu]'`."
            )
        return ()
    for device in listed:
        with suppress(RuntimeError, ValueError):  # TensorFlow is already initialised
            tf.config.experimental.set_memory_growth(device, True)
    try:
        usable = tf.config.list_logical_devices("GPU") if workers() == 1 else listed
    except (tf.errors.OpError, RuntimeError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CharedgeError(f"TensorFlow cannot start with the GPU ({reason}): end what else uses it, or {TO_THE_CPU}.") from None
    if len(usable) < len(listed):
        warn(
            f"TensorFlow uses {len(usable)} of this machine's {len(listed)} GPUs ({tensorflow_reason()}): "
            f"{'training runs on the CPU; ' if not usable else ''}update the driver and `pip install 'charedge[gpu]'`, or hide the "
            "others with CUDA_VISIBLE_DEVICES."
        )
    names = [str(tf.config.experimental.get_device_details(device).get("device_name", "a GPU")) for device in listed]
    memory = _nvidia_smi()
    return tuple(Gpu(name, *memory.get(name, (None, None))) for name in names[: len(usable)])


def hide_gpus() -> None:
    """Hide the GPUs from TensorFlow, which would allocate their memory even for work on the CPU."""
    with suppress(RuntimeError):  # TensorFlow is already initialised
        tf.config.set_visible_devices([], "GPU")


def has_nvidia_gpu(root: Path = Path("/")) -> bool:
    """Whether this machine has an NVIDIA GPU that CUDA_VISIBLE_DEVICES does not hide.

    Args:
        root: the folder to look for the driver's files in.
    """
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if hidden is not None and (not hidden.strip() or hidden.strip().startswith("-")):
        return False
    return any(True for pattern in NVIDIA for _ in root.glob(pattern))


def tensorflow_reason() -> str:
    """Why TensorFlow cannot use a GPU, from the log of a separate process."""
    if not tf.test.is_built_with_cuda():
        return "this TensorFlow was built without CUDA"
    program = "import tensorflow as tf; tf.config.list_logical_devices('GPU')"
    try:
        result = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "0"},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
            timeout=DIAGNOSIS_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    said = re.findall(r"^[IWEF]\d{4} [^\]]*\] (.*(?:GPU|gpu|CUDA|cuda|cuInit|dlopen).*)$", result.stderr, re.MULTILINE)
    telling = [line.strip().rstrip(".") for line in dict.fromkeys(said) if not line.startswith("Created device")]
    return "; ".join(telling)[:500] or "it does not say why"


def _nvidia_smi() -> dict[str, tuple[int, int]]:
    """Total and free memory in bytes by GPU name, as `nvidia-smi` prints it; empty if the tool is missing or fails.

    Of several GPUs with one name, the smallest figures; GPUs that CUDA_VISIBLE_DEVICES hides do not count.
    """
    options = ["query-gpu=name,memory.total,memory.free", "format=csv,noheader,nounits"]
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    options += [f"id={visible}"] if visible else []
    query = ["nvidia-smi", *(f"--{option}" for option in options)]
    try:
        lines = subprocess.run(query, capture_output=True, text=True, timeout=30, check=True).stdout.splitlines()
        rows = [line.rsplit(", ", 2) for line in lines]
        found: dict[str, tuple[int, int]] = {}
        for name, total, free in rows:
            before = found.get(name, (sys.maxsize, sys.maxsize))
            found[name] = min(before[0], int(total) << 20), min(before[1], int(free) << 20)
        return found
    except (OSError, ValueError, subprocess.SubprocessError):
        return {}


def is_out_of_memory(error: tf.errors.OpError) -> bool:
    """Whether an error of TensorFlow, CUDA or cuDNN means that memory ran out."""
    return isinstance(error, tf.errors.ResourceExhaustedError) or bool(OUT_OF_MEMORY.search(str(error)))


@contextmanager
def memory_explained(config: Config, hardware: Hardware) -> Iterator[None]:
    """Replace TensorFlow's error by a sentence if memory runs out in a `with` block.

    Args:
        config: the training's, whose sizes the sentence names.
        hardware: what the training runs on.

    Raises:
        CharedgeError: memory ran out.
    """
    try:
        yield
    except tf.errors.OpError as error:
        if not is_out_of_memory(error):
            raise
        lines = str(error.message).splitlines()  # of a compiled step the first is "Graph execution error:"
        reason = next(filter(OUT_OF_MEMORY.search, lines), type(error).__name__).strip()[:200]
        raise CharedgeError(
            f"the memory of {'the GPU' if hardware.gpus else 'this machine'} is not enough ({reason}): train again with a smaller "
            f"`batch_size` than {config.batch_size}, a smaller `sequence_length` or fewer `units`, or end what else uses it."
        ) from None


def resolve_precision(precision: str, gpus: Sequence[Gpu]) -> str:
    """The Keras dtype policy to train in: `auto` is bfloat16 on a CPU that supports it, else float32.

    On a GPU bfloat16 is refused. TensorFlow 2.21's backward kernel of cuDNN's recurrent layers (cudnn_rnn_ops.cc,
    `DoBackward<bfloat16>`) allocates the forward pass's reserve space again and does not copy it, so that it computes from memory
    was never written. float32 also uses a GPU's tensor cores (TF32, from Ampere on) and needs no loss scaling.

    Args:
        precision: a Keras dtype policy, or `auto`.
        gpus: the GPUs to train on; empty for the CPU.

    Raises:
        InvalidOption: bfloat16 on a GPU.
    """
    if gpus and precision == BFLOAT16:
        raise InvalidOption(
            "precision",
            f"{BFLOAT16} gives wrong gradients on a GPU (TensorFlow's cuDNN kernel reads memory that it never wrote): "
            "choose float32 or mixed_float16.",
        )
    if precision != "auto":
        return precision
    return BFLOAT16 if not gpus and _cpu_has_bfloat16() else "float32"


def _cpu_has_bfloat16() -> bool:
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)
