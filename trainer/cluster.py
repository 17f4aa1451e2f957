"""The place of this process among the workers of a training, as TF_CONFIG says it. No TensorFlow."""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass

from ..runtime.errors import CharedgeError

ADDRESS = re.compile(r"([^\s/:\[\]]+|\[[^\s/\[\]]+\]):([0-9]{1,5})")  # a host, or an IPv6 address in brackets; a port


@dataclass(frozen=True)
class Cluster:
    """The workers that TF_CONFIG names, and this one's place among them."""

    addresses: list[str]
    """HOST:PORT of each worker; none if this process trains alone."""
    index: int
    """Which of them this process is."""

    @property
    def others(self) -> list[int]:
        """The indices of the other workers."""
        return [index for index in range(len(self.addresses)) if index != self.index]


def workers() -> int:
    """How many processes train together.

    Raises:
        CharedgeError: TF_CONFIG is not as TensorFlow wants it.
    """
    return len(read_cluster().addresses) or 1


def is_chief() -> bool:
    """Whether this process is the one that writes: the only one, or the first worker.

    Raises:
        CharedgeError: TF_CONFIG is not as TensorFlow wants it.
    """
    return read_cluster().index == 0


def read_cluster() -> Cluster:
    """Read TF_CONFIG. A single worker trains as a process without TF_CONFIG does.

    Raises:
        CharedgeError: it is not as TensorFlow wants it, or has an address that no worker can have.
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
    """The two parts of a worker's address.

    Raises:
        CharedgeError: a part is missing, or the port is out of range.
    """
    match = ADDRESS.fullmatch(address)
    if match is None or not 1 <= int(match[2]) <= 65_535:
        raise _unusable(f"the worker's address {address!r} is not HOST:PORT with a port from 1 to 65535")
    return match[1].strip("[]"), int(match[2])


def _unusable(reason: str) -> CharedgeError:
    return CharedgeError(f"TF_CONFIG cannot be used ({reason}): write it as docs/training.md shows.")
