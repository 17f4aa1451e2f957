"""charedge: character-level language models, from a text to a small device.

import charedge

run = charedge.train("book.txt", output="runs/book")            # pip install 'charedge[train]'
charedge.convert(run, output="book.tflite")                     # pip install 'charedge[convert]'
model = charedge.load("book.tflite")
print(model.generate("It was", length=500, temperature=0.8))
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if not (Path(__file__).parent / "runtime").is_dir():  # in a clone, where the rooms are beside this folder
    __path__.append(str(Path(__file__).parent.parent))

if TYPE_CHECKING:
    from .converter.convert import Conversion, Page, convert, export_html
    from .runtime.errors import CharedgeError, InvalidOption
    from .runtime.model import Model, UnknownCharacters, load
    from .runtime.progress import Report
    from .runtime.sampling import Sampling
    from .runtime.scoring import Score
    from .trainer.api import Evaluation, evaluate, finetune, train
    from .trainer.run import Run

    __version__: str

_HOMES = {
    "CharedgeError": "runtime.errors",
    "Conversion": "converter.convert",
    "Evaluation": "trainer.api",
    "InvalidOption": "runtime.errors",
    "Model": "runtime.model",
    "Page": "converter.convert",
    "Report": "runtime.progress",
    "Run": "trainer.run",
    "Sampling": "runtime.sampling",
    "Score": "runtime.scoring",
    "UnknownCharacters": "runtime.model",
    "convert": "converter.convert",
    "evaluate": "trainer.api",
    "export_html": "converter.convert",
    "finetune": "trainer.api",
    "load": "runtime.model",
    "train": "trainer.api",
}

__all__ = [
    "CharedgeError",
    "Conversion",
    "Evaluation",
    "InvalidOption",
    "Model",
    "Page",
    "Report",
    "Run",
    "Sampling",
    "Score",
    "UnknownCharacters",
    "__version__",
    "convert",
    "evaluate",
    "export_html",
    "finetune",
    "load",
    "train",
]


def __getattr__(name: str) -> Any:
    """Import a name when it is first used, which keeps the start fast on a small device."""
    if name == "__version__":
        from importlib.metadata import version

        value = version("charedge")
    elif name in _HOMES:
        from importlib import import_module

        value = getattr(import_module(f".{_HOMES[name]}", __name__), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
