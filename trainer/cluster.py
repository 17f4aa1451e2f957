"""The place of this process among the workers of a training, as TF_CONFIG says it. No TensorFlow."""

from __future__ import annotations

import json
import os

from ..runtime.errors import CharedgeError


def workers() -> int:
    """How many processes train together."""
    return len(_worker_addresses()) or 1


def is_chief() -> bool:
    """Whether this process is the one that writes: the only one, or the first worker.

    Raises:
        CharedgeError: TF_CONFIG is not as TensorFlow wants it.
    """
    if workers() == 1:
        return True
    try:
        task = json.loads(os.environ["TF_CONFIG"])["task"]
        if task["type"] != "worker" or not 0 <= int(task["index"]) < workers():
            raise ValueError(f"task {task}")
        return int(task["index"]) == 0
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable(error) from None


def _worker_addresses() -> list[str]:
    if not os.environ.get("TF_CONFIG"):
        return []
    try:
        addresses = json.loads(os.environ["TF_CONFIG"])["cluster"]["worker"]
        return [str(address) for address in addresses]
    except (ValueError, KeyError, TypeError) as error:
        raise _unusable(error) from None


def _unusable(error: Exception) -> CharedgeError:
    return CharedgeError(f"TF_CONFIG cannot be used ({error!r}): write it as docs/training.md shows.")
