"""Where a training runs: one device, all GPUs of this machine, or several machines; and the precision that suits them."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ..runtime.errors import CharedgeError
from .cluster import signals_end_the_process, workers


def choose_strategy() -> tf.distribute.Strategy:
    """The workers that TF_CONFIG names, all GPUs of this machine, or the one device there is.

    Raises:
        CharedgeError: a worker cannot be reached.
    """
    if workers() > 1:
        try:
            with signals_end_the_process():
                return tf.distribute.MultiWorkerMirroredStrategy()
        except (tf.errors.OpError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise CharedgeError(f"the workers of TF_CONFIG cannot be reached ({reason}): start all of them again.") from None
    return tf.distribute.MirroredStrategy() if len(tf.config.list_logical_devices("GPU")) > 1 else tf.distribute.get_strategy()


def has_gpu() -> bool:
    """Without starting it."""
    return bool(tf.config.list_physical_devices("GPU"))


def deal(strategy: tf.distribute.Strategy, rows: np.ndarray) -> Any:
    """Rows [B, ...] shared out: replica k of n gets the k-th n-th of them, on whatever machine it is."""
    share = len(rows) // strategy.num_replicas_in_sync

    def part(context: tf.distribute.InputReplicaContext | Any) -> tf.Tensor:
        first = context.replica_id_in_sync_group * share
        return tf.constant(rows[first : first + share])

    return strategy.experimental_distribute_values_from_function(part)


def resolve_precision(precision: str) -> str:
    """The Keras dtype policy that `auto` means here: bfloat16 where the hardware multiplies it, else float32."""
    if precision != "auto":
        return precision
    gpus = tf.config.list_physical_devices("GPU")
    if gpus:
        capability = tf.config.experimental.get_device_details(gpus[0]).get("compute_capability", (0, 0))
        if capability >= (8, 0):
            return "mixed_bfloat16"
        return "mixed_float16" if capability >= (7, 0) else "float32"
    return "mixed_bfloat16" if _cpu_has_bfloat16() else "float32"


def _cpu_has_bfloat16() -> bool:
    try:
        with open("/proc/cpuinfo") as file:  # noqa: PTH123
            flags = next((line for line in file if line.startswith(("flags", "Features"))), "").split()
    except OSError:
        return False
    return not {"avx512_bf16", "amx_bf16", "bf16"}.isdisjoint(flags)
