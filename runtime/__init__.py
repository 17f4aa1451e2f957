"""charedge on the device: text from one `.tflite` file, with numpy and one TFLite interpreter.

from charedge.runtime import Generator

generator = Generator.load("bard.tflite")
print(generator.generate("ROMEO:", length=500, temperature=0.8, seed=7))
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import CharedgeError, InvalidOption
    from .generator import Generator, UnknownCharacters
    from .sampling import Sampling
    from .scoring import Score

_HOMES = {
    "CharedgeError": "errors",
    "InvalidOption": "errors",
    "Generator": "generator",
    "UnknownCharacters": "generator",
    "Sampling": "sampling",
    "Score": "scoring",
}

__all__ = ["CharedgeError", "Generator", "InvalidOption", "Sampling", "Score", "UnknownCharacters"]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: start-up time is what a small device has least of."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
