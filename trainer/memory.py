"""Estimates the memory of a training before it starts: a system that runs out of memory kills the process without a message."""

from __future__ import annotations

import os
import resource
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.errors import CharedgeError
from .config import GATES, Config

if TYPE_CHECKING:
    from .accelerators import Hardware

FLOAT = 4
STARTED = 600 << 20
"""Memory of the process after importing TensorFlow, before a model is built."""
GPU_STARTED = 1 << 30
"""Memory of CUDA, cuDNN and their workspace on a GPU."""
ADAM_MOMENTS = 2
VALIDATION_POSITIONS = 64 * 500
"""Characters that validation reads at once."""


def training_bytes(vocabulary_size: int, config: Config, teachers: Sequence[Config] = (), replicas: int = 1) -> int:
    """Estimate the peak memory in bytes of a training on a CPU in float32; measured peaks differ by a third at most.

    Args:
        vocabulary_size: V.
        config: the shape of the network and the batch, and whether a moving average of the weights is kept.
        teachers: configurations of the teachers.
        replicas: logical devices of the CPU, each with a copy of the weights and a share of the batch.
    """
    kept = _kept(config)
    copies = (kept + 6) * replicas + 2 * kept  # + 6: gradients and temporaries; a checkpoint copies everything that is kept twice
    weights = copies * _parameters(vocabulary_size, config)
    weights += 2 * replicas * sum(_parameters(vocabulary_size, teacher) for teacher in teachers)
    return STARTED + FLOAT * int(weights + _batch_floats(vocabulary_size, config, teachers))


def gpu_training_bytes(vocabulary_size: int, config: Config, teachers: Sequence[Config] = (), gpus: int = 1) -> int:
    """Estimate the peak memory in bytes of a training on each GPU, in float32; not compared with measurements.

    Args:
        vocabulary_size: V.
        config: the shape of the network and the batch, and whether a moving average of the weights is kept.
        teachers: configurations of the teachers.
        gpus: GPUs that share the batch.
    """
    weights = (_kept(config) + 6) * _parameters(vocabulary_size, config)
    weights += 2 * sum(_parameters(vocabulary_size, teacher) for teacher in teachers)
    return GPU_STARTED + FLOAT * int(weights + _batch_floats(vocabulary_size, config, teachers) / gpus)


def _kept(config: Config) -> int:
    """Floats kept for each weight: itself, the moments of its gradient, its moving average."""
    return 1 + ADAM_MOMENTS + bool(config.average)


def _batch_floats(vocabulary_size: int, config: Config, teachers: Sequence[Config]) -> float:
    """Number of floats in a batch's activations and logits."""
    positions = config.batch_size * config.sequence_length
    activations = positions * (4 * config.embedding_dim + 15 * config.layers * config.units)
    activations += positions * sum(teacher.embedding_dim + 8 * teacher.units + 2 * vocabulary_size for teacher in teachers)
    return activations + 1.5 * max(positions, VALIDATION_POSITIONS) * vocabulary_size


def _parameters(vocabulary_size: int, config: Config) -> int:
    layers, units, embedding_dim = config.layers, config.units, config.embedding_dim
    inputs, columns = embedding_dim + (layers - 1) * units, GATES[config.cell] * units
    return vocabulary_size * embedding_dim + columns * (inputs + layers * (units + 2)) + (units + 1) * vocabulary_size


def require_memory(vocabulary_size: int, config: Config, teachers: Sequence[Config], hardware: Hardware) -> None:
    """Check that there is enough memory for a training.

    Args:
        vocabulary_size: V.
        config: the training's.
        teachers: configurations of the teachers.
        hardware: what the training runs on.

    Raises:
        CharedgeError: it needs more memory than is free on this machine, or on the GPU with the least free memory.
    """
    if hardware.gpus:
        where = hardware.gpus[0].name if len(hardware.gpus) == 1 else "each GPU"
        needed = gpu_training_bytes(vocabulary_size, config, teachers, len(hardware.gpus))
        available = min((gpu.free_bytes for gpu in hardware.gpus if gpu.free_bytes is not None), default=sys.maxsize)
    else:
        where = "this machine"
        needed, available = training_bytes(vocabulary_size, config, teachers, hardware.cpu_devices), available_bytes()
    if needed > available:
        raise CharedgeError(
            f"`units` {config.units}, `batch_size` {config.batch_size} and `sequence_length` {config.sequence_length} need about "
            f"{_gigabytes(needed)} of memory to train and {where} has {_gigabytes(available)} free: choose fewer `units`, "
            "a smaller `batch_size` or `sequence_length`."
        )


def available_bytes(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes that this process may still allocate: the least that the machine, its containers and its own limit leave.

    Args:
        proc: the folder of the proc file system.
        cgroups: the folder of the control groups.

    Returns:
        The bytes; `sys.maxsize` if nothing is known.
    """
    return max(0, min([*_machine(proc), *_containers(proc, cgroups), *_own_limit(proc)], default=sys.maxsize))


def _machine(proc: Path) -> Iterator[int]:
    for line in _read(proc / "meminfo").splitlines():
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) * 1024


def _containers(proc: Path, cgroups: Path) -> Iterator[int]:
    """Bytes that each control group (version 1 or 2) of this process leaves."""
    for line in _read(proc / "self" / "cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            top, names = cgroups / "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        elif not controllers:
            top, names = cgroups, ("memory.max", "memory.current", "inactive_file")
        else:
            continue
        group = top / path.strip("/")
        for folder in (group, *group.parents):  # in a container the path may be the host's: then the top folder is this container's
            if folder.is_relative_to(top):
                yield from _left(folder, *names)


def _left(folder: Path, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    """Bytes that one control group leaves; its reclaimable file cache counts as free."""
    most, used = _read(folder / limit).strip(), _read(folder / usage).strip()
    if most.isdecimal() and used.isdecimal():
        statistics = dict(line.split() for line in _read(folder / "memory.stat").splitlines())
        yield int(most) - int(used) + int(statistics.get(reclaimable, 0))


def _own_limit(proc: Path) -> Iterator[int]:
    """Bytes that `ulimit -v` leaves."""
    limit, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = _read(proc / "self" / "statm").split()
    if limit != resource.RLIM_INFINITY and pages:
        yield limit - int(pages[0]) * os.sysconf("SC_PAGE_SIZE")


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:,.0f} GB" if count >= 10e9 else f"{count / 1e9:.1f} GB"
