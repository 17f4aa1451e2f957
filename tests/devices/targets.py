"""The devices that the runtime is tried on, under emulation: choices are data."""

from __future__ import annotations

from dataclasses import dataclass

BASE = frozenset({"annotated-doc", "charedge", "markdown-it-py", "mdurl", "pygments", "rich", "shellingham", "typer"})
LITERT = frozenset({"ai-edge-litert", "backports-strenum", "flatbuffers", "ml-dtypes", "protobuf", "tqdm", "typing-extensions"})
NUMPY, TFLITE_RUNTIME = frozenset({"numpy"}), frozenset({"tflite-runtime"})
"""What an install may add, by distribution name."""


@dataclass(frozen=True)
class Target:
    """A processor, the Debian on it, and the interpreter there."""

    name: str
    suite: str
    """Debian's, which Raspberry Pi OS follows: `bookworm` or `trixie`."""
    architecture: str
    """Debian's name for it: `arm64` or `armhf`."""
    processor: str
    """qemu's name for the processor. Its default has instructions that no Pi has."""
    python: str
    interpreter: str
    brings: frozenset[str] = BASE | NUMPY | LITERT
    """All that `pip install` may put there."""
    install: str = "charedge"
    """What `pip install` is given."""
    uninstall: tuple[str, ...] = ()
    """What is uninstalled afterwards, so that only the older interpreter remains."""
    packages: tuple[str, ...] = ()
    """What Debian itself brings, seen through `venv --system-site-packages`; PyPI has no wheels of them for this machine."""
    kernel: str = ""
    """The kernel's name for the machine, where it differs from the processor's mode."""
    most_megabytes: int = 190
    """Upper limit on the disk space of `pip install charedge`."""

    @property
    def root(self) -> str:
        """The folder of its system, which targets share."""
        return f"{self.suite}-{self.architecture}"

    @property
    def qemu(self) -> str:
        return {"arm64": "qemu-aarch64", "armhf": "qemu-arm"}[self.architecture]

    @property
    def wheel_tags(self) -> list[str]:
        """The platforms whose wheels its pip takes, from its C library's version downwards."""
        machine = {"arm64": "aarch64", "armhf": "armv7l"}[self.architecture]
        newest = {"bookworm": 36, "trixie": 41}[self.suite]
        return [*(f"manylinux_2_{minor}_{machine}" for minor in range(newest, 16, -1)), f"manylinux2014_{machine}"]


TARGETS = (
    Target("pi3-litert", "bookworm", "arm64", "cortex-a53", "3.11", "ai-edge-litert"),
    Target("pi5-litert", "bookworm", "arm64", "cortex-a76", "3.11", "ai-edge-litert"),
    Target(
        "pi4-tflite-runtime",
        "bookworm",
        "arm64",
        "cortex-a72",
        "3.11",
        "tflite-runtime",
        brings=BASE | NUMPY | LITERT | TFLITE_RUNTIME,
        install="charedge[tflite-runtime]",
        uninstall=("ai-edge-litert",),
    ),
    Target("pi5-trixie", "trixie", "arm64", "cortex-a76", "3.13", "ai-edge-litert"),
    Target(
        "pi-32-bit",
        "bookworm",
        "armhf",
        "cortex-a7",
        "3.11",
        "tflite-runtime",
        brings=BASE | TFLITE_RUNTIME,
        packages=("python3-numpy", "python3-regex"),
        kernel="aarch64",
        most_megabytes=90,
    ),
)
SMOKE = ("pi3-litert", "pi-32-bit")

NOT_RUN = {
    "test_both_interpreters_agree": "compares with a second environment of the workstation",
    "test_the_older_interpreter_generates_the_same_text_from_a_trained_file": "trains a model, which needs TensorFlow",
    "test_an_int4_file_is_refused_by_the_older_interpreter": "needs a second environment of the workstation",
    "test_with_both_installed_litert_is_taken": "needs a second environment of the workstation; tried here before the tests",
    "test_conversion_measures_on_every_interpreter_there_is": "converts, which a device does not",
}
"""Tests of `tests/runtime` that are left out, and why."""

SMOKE_MODELS = "gru-int?.tflite"
SMOKE_FILES = ("test_generator.py", "test_interpreters.py", "test_model_file.py", "test_power_cuts.py", "test_vocabulary.py")
"""The files of `tests/runtime` in the smoke test: few of their tests start processes, which is slow under emulation."""
