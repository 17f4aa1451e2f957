"""Workers of a distributed training, read from TF_CONFIG. Does not import TensorFlow."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass

from ..runtime.errors import CharedgeError

ADDRESS = re.compile(r"([^\s/:\[\]]+|\[[^\s/\[\]]+\]):([0-9]{1,5})")  # a host, or an IPv6 address in brackets; a port


@dataclass(frozen=True)
class Cluster:
    """The workers that TF_CONFIG names, and the index of this one."""

    addresses: list[str]
    """HOST:PORT of each worker; empty if this process trains alone."""
    index: int
    """Index of this process in `addresses`."""

    @property
    def others(self) -> list[int]:
        """The indices of the other workers."""
        return [index for index in range(len(self.addresses)) if index != self.index]


def workers() -> int:
    """Number of processes that train together.

    Raises:
        CharedgeError: TF_CONFIG is not valid.
    """
    return len(read_cluster().addresses) or 1


def is_chief() -> bool:
    """Whether this process is the chief: the one that writes the run folder and reports.

    Raises:
        CharedgeError: TF_CONFIG is not valid.
    """
    return read_cluster().index == 0


def read_cluster() -> Cluster:
    """Read TF_CONFIG.

    Returns:
        The cluster; without addresses if TF_CONFIG is not set or names a single worker.

    Raises:
        CharedgeError: TF_CONFIG is not valid, or an address in it is not.
    """
    if not os.environ.get("TF_CONFIG"):
        return Cluster([], 0)
    try:
        config = json.loads(os.environ["TF_CONFIG"])
        jobs = config["cluster"]
        addresses = [str(address) for address in jobs["worker"]]
        if len(addresses) <= 1:
            return Cluster([], 0)
        task = config["task"]
        index = int(task["index"])
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable(repr(error)) from None
    if set(jobs) != {"worker"}:
        raise _unusable(f"its cluster has the jobs {', '.join(jobs)}, but all must be in the job worker")
    if task.get("type") != "worker" or not 0 <= index < len(addresses):
        raise _unusable(f"there is no task {task}")
    for address in addresses:
        host_and_port(address)
    if len(set(addresses)) < len(addresses):
        raise _unusable("two workers have the same address")
    return Cluster(addresses, index)


def host_and_port(address: str) -> tuple[str, int]:
    """Split a worker's address.

    Args:
        address: HOST:PORT, an IPv6 host in brackets.

    Returns:
        The host without brackets, and the port.

    Raises:
        CharedgeError: a part is missing, or the port is out of range.
    """
    match = ADDRESS.fullmatch(address)
    if match is None or not 1 <= int(match[2]) <= 65_535:
        raise _unusable(f"the worker's address {address!r} is not HOST:PORT with a port from 1 to 65535")
    return match[1].strip("[]"), int(match[2])


def _unusable(reason: str) -> CharedgeError:
    return CharedgeError(f"TF_CONFIG cannot be used ({reason}): write it as docs/training.md shows.")
