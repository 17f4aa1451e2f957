"""Checks that TensorFlow is installed, and imports it quietly."""

from __future__ import annotations

import os
from importlib import import_module
from importlib.util import find_spec

from ..runtime.errors import CharedgeError
from ..runtime.interpreter import quiet_stderr


def require_installed(command: str, extra: str) -> None:
    """Check that TensorFlow is installed, without importing it.

    Args:
        command: the function or command that needs it.
        extra: the extra of the distribution that installs it.

    Raises:
        CharedgeError: TensorFlow is not installed.
    """
    if find_spec("tensorflow") is None:
        raise CharedgeError(
            f"`charedge {command}` needs TensorFlow, which a device does without: run `pip install 'charedge[{extra}]'`."
        )


def require_tensorflow(command: str, extra: str) -> None:
    """Import TensorFlow without its messages on stderr.

    Args:
        command: the function or command that needs it.
        extra: the extra of the distribution that installs it.

    Raises:
        CharedgeError: TensorFlow is not installed, or Keras runs on another backend in this process.
    """
    require_installed(command, extra)
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")  # its messages would bury our own lines
    os.environ["KERAS_BACKEND"] = "tensorflow"  # also if the user's environment sets another one
    with quiet_stderr():
        import_module("tensorflow")
        backend = import_module("keras").config.backend()
    if backend != "tensorflow":  # the calling program has imported Keras before
        raise CharedgeError(
            f"`charedge {command}` needs Keras on TensorFlow, and this process runs it on {backend}: use a new one."
        )
