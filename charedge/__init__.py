"""charedge: character-level language models, from a text to a small device.

import charedge

run = charedge.train("book.txt", output="runs/book")            # pip install 'charedge[train]'
charedge.convert(run, output="book.tflite")                     # pip install 'charedge[convert]'
model = charedge.load("book.tflite")
print(model.generate("It was", length=500, temperature=0.8))
"""

# ruff: noqa: PTH112, PTH118, PTH120
from __future__ import annotations

import os

TYPE_CHECKING = False  # `typing` and `pathlib` take a while to import, and Ctrl-C is not handled yet
_HERE = os.path.dirname(__file__)
if not os.path.isdir(os.path.join(_HERE, "runtime")):  # in a clone, where the rooms are beside this folder
    __path__.append(os.path.dirname(_HERE))

if TYPE_CHECKING:
    from typing import Any

    from .converter.c_array import CArray
    from .converter.convert import Conversion, convert, convert_all
    from .converter.exports import Page, export_c_array, export_html, export_saved_model
    from .deployer.api import deploy
    from .deployer.report import Deployment
    from .runtime.errors import CharedgeError, InvalidOption
    from .runtime.model import Model, UnknownCharacters, load
    from .runtime.progress import Report
    from .runtime.sampling import Sampling
    from .runtime.scoring import Score
    from .trainer.api import Evaluation, evaluate, finetune, train
    from .trainer.run import Run

    __version__: str

_HOMES = {
    "CArray": "converter.c_array",
    "CharedgeError": "runtime.errors",
    "Conversion": "converter.convert",
    "Deployment": "deployer.report",
    "Evaluation": "trainer.api",
    "InvalidOption": "runtime.errors",
    "Model": "runtime.model",
    "Page": "converter.exports",
    "Report": "runtime.progress",
    "Run": "trainer.run",
    "Sampling": "runtime.sampling",
    "Score": "runtime.scoring",
    "UnknownCharacters": "runtime.model",
    "convert": "converter.convert",
    "convert_all": "converter.convert",
    "deploy": "deployer.api",
    "evaluate": "trainer.api",
    "export_c_array": "converter.exports",
    "export_html": "converter.exports",
    "export_saved_model": "converter.exports",
    "finetune": "trainer.api",
    "load": "runtime.model",
    "train": "trainer.api",
}

__all__ = [
    "CArray",
    "CharedgeError",
    "Conversion",
    "Deployment",
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
    "convert_all",
    "deploy",
    "evaluate",
    "export_c_array",
    "export_html",
    "export_saved_model",
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
