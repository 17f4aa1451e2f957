"""Data-parallel training: a batch is shared among workers, GPUs, or logical devices of one CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import tensorflow as tf

from ..runtime.errors import CharedgeError
from .accelerators import Hardware, cpu_threads
from .cluster import workers
from .config import GATES, Config
from .rendezvous import signals_end_the_process

MOST_CPU_DEVICES = 4
ROWS_PER_DEVICE = 16
"""Smallest share of a batch; with fewer windows a device's matrix products are too small."""
SMALLEST_UNITS = 128
LARGEST_MATRIX_BYTES = 8 << 20
"""Largest recurrent matrix for which several devices are faster: every device reads it at every step."""


def choose_strategy(hardware: Hardware) -> tf.distribute.Strategy:
    """The strategy for the workers of TF_CONFIG, else for several GPUs, several CPU devices, or a single device.

    Args:
        hardware: what the training runs on.

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
    if len(hardware.gpus) > 1:
        return tf.distribute.MirroredStrategy()
    if hardware.cpu_devices > 1:
        devices = [f"CPU:{i}" for i in range(hardware.cpu_devices)]
        return tf.distribute.MirroredStrategy(devices, cross_device_ops=tf.distribute.ReductionToOneDevice())
    return tf.distribute.get_strategy()


def faster_cpu_devices(config: Config, windows: int) -> int:
    """Number of logical CPU devices that train fastest: several devices wait less than the threads of one.

    Measured on two cores: networks of 2 x 160 to 2 x 608 are faster on two devices in batches of 32 windows and more; 1 x 1024 is
    not, because every device reads its larger matrices. The number depends only on the machine and the configuration, so that a
    training can be repeated.

    Args:
        config: the network, the batch and the precision, resolved.
        windows: windows in the text, which may be fewer than a batch.
    """
    width = 2 if config.precision != "float32" else 4
    if config.units < SMALLEST_UNITS or GATES[config.cell] * config.units**2 * width > LARGEST_MATRIX_BYTES:
        return 1
    rows = min(config.batch_size, windows)
    fitting = (n for n in range(min(MOST_CPU_DEVICES, cpu_threads()), 1, -1) if config.batch_size % n == 0)
    return next((n for n in fitting if rows // n >= ROWS_PER_DEVICE), 1)


def divide_cpu(devices: int) -> Hardware:
    """Divide the CPU into logical devices, which share its threads.

    Args:
        devices: how many.

    Returns:
        The hardware; with fewer devices if TensorFlow was initialised before, because it can then not be divided further.
    """
    threads = max(1, cpu_threads() // devices)
    if devices > 1:
        (processor,) = tf.config.list_physical_devices("CPU")
        try:
            tf.config.threading.set_intra_op_parallelism_threads(threads)
            tf.config.threading.set_inter_op_parallelism_threads(devices)
            tf.config.set_logical_device_configuration(processor, [tf.config.LogicalDeviceConfiguration()] * devices)
        except RuntimeError:
            devices = min(devices, len(tf.config.list_logical_devices("CPU")))
            threads = max(1, cpu_threads() // devices)
    return Hardware((), devices, threads)


def deal(strategy: tf.distribute.Strategy, rows: np.ndarray) -> Any:
    """Share rows among the replicas of all workers.

    Args:
        strategy: from `choose_strategy`, n replicas.
        rows: [B, ...], B a multiple of n.

    Returns:
        A distributed value: replica k has rows k * B / n to (k + 1) * B / n.
    """
    share = len(rows) // strategy.num_replicas_in_sync

    def part(context: tf.distribute.InputReplicaContext | Any) -> tf.Tensor:
        first = context.replica_id_in_sync_group * share
        return tf.constant(rows[first : first + share])

    return strategy.experimental_distribute_values_from_function(part)
