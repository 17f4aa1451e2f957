"""The C step of converter/c: as a library on the host, and as a program on emulated microcontrollers.

python tests/c_programs.py MODEL...    prints what the step costs there for each .tflite file of the profile int8-static or int8
"""

import ctypes
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np

REPOSITORY = Path(__file__).parent.parent
STEP = REPOSITORY / "converter" / "c" / "charedge_step.c"
HARNESS = Path(__file__).parent / "microcontroller"
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wdouble-promotion", "-Werror"]
C99, CPP17 = ["-x", "c", "-std=c99"], ["-x", "c++", "-std=c++17", "-ffp-contract=off"]
PACKAGES = {
    "gcc": "gcc",
    "g++": "g++",
    "arm-none-eabi-gcc": "gcc-arm-none-eabi libnewlib-arm-none-eabi",
    "qemu-system-arm": "qemu-system-arm",
}
BOARDS = {
    "cortex-m0plus": ("mps2-an385", 0x00000000, 0x20000000, 40),  # a Cortex-M3, which runs a Cortex-M0+'s instructions
    "cortex-m3": ("mps2-an385", 0x00000000, 0x20000000, 40),
    "cortex-m33": ("mps2-an505", 0x10000000, 0x38000000, 50),
}
"""Of each processor the emulated board, the addresses of its flash and RAM, and the nanoseconds of a tick of its timer."""
OK, NOT_A_MODEL, UNSUPPORTED, TOO_DEEP, DAMAGED = range(5)


def missing(*programs):
    """What to install for the programs that are not here, or nothing."""
    packages = [PACKAGES[program] for program in programs if shutil.which(program) is None]
    return f"needs {', '.join(programs)}: apt install {' '.join(packages)}" if packages else ""


def run(*arguments, **options):
    """A program's standard output; where it fails, what it wrote is the error."""
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, f"{' '.join(map(str, arguments))}\n{done.stdout}{done.stderr}"
    return done.stdout


class Error(Exception):
    """The number that charedge_open returned."""


class Library:
    """The step, compiled for this machine."""

    def __init__(self, folder, *options):
        path = Path(folder) / "step.so"
        run("gcc", *C99, "-O2", *WARNINGS, *options, "-shared", "-fPIC", STEP, "-o", path)
        self._library = ctypes.CDLL(str(path))
        self._library.charedge_score.restype = ctypes.c_float
        self._library.charedge_sample.argtypes = [ctypes.c_void_p, ctypes.c_uint32, ctypes.c_float, ctypes.c_float, ctypes.c_void_p]

    def open(self, flatbuffer):
        """A model: its sizes, `step(token)`, `score(ids)`, its `state` and `logits`.

        Raises:
            Error: the step does not take the bytes.
        """
        return OpenModel(self._library, flatbuffer)

    def sample(self, logits, temperature, top_p, random):
        """A token; `random` is a numpy array of one uint32."""
        logits = np.array(logits, np.float32)
        return self._library.charedge_sample(_pointer(logits), len(logits), temperature, top_p, _pointer(random))


class OpenModel:
    def __init__(self, library, flatbuffer):
        self._library, self._bytes, self._model = library, flatbuffer, ctypes.create_string_buffer(1 << 14)
        address = flatbuffer.ctypes.data if isinstance(flatbuffer, np.ndarray) else flatbuffer
        error = library.charedge_open(self._model, ctypes.c_char_p(address), ctypes.c_size_t(len(flatbuffer)))
        if error:
            raise Error(error)
        sizes = np.frombuffer(self._model.raw, np.uint32, 7)
        self.vocabulary_size, self.units, self.layers, self.embedding_dim, self.gates, self.state_size, self.scratch_size = (
            sizes.tolist()
        )
        self.state, self.logits = np.zeros(self.state_size, np.float32), np.zeros(self.vocabulary_size, np.float32)
        self._scratch = np.zeros(self.scratch_size, np.int8)

    def step(self, token, logits=True):
        """The logits after a token."""
        target = _pointer(self.logits) if logits else None
        self._library.charedge_step(self._model, ctypes.c_uint32(token), _pointer(self.state), target, _pointer(self._scratch))
        return self.logits.copy()

    def score(self, ids):
        ids = np.array(ids, np.int32)
        arrays = [_pointer(array) for array in (self.state, self.logits, self._scratch)]
        return self._library.charedge_score(self._model, _pointer(ids), len(ids), *arrays)


def _pointer(array):
    return ctypes.c_void_p(array.ctypes.data)


def definitions(folder, file, **sampling):
    """What generate.c wants to know of a model file, whose flatbuffer is put in the folder."""
    manifest = file.manifest
    (Path(folder) / "model.bin").write_bytes(file.flatbuffer)
    inner = manifest.units if manifest.input_table_folded else max(manifest.units, manifest.embedding_dim)
    values = {
        "MODEL": f'"\\"{folder}/model.bin\\""',
        "PROBE": ",".join(map(str, manifest.probe.token_ids)),
        "STATE": manifest.state_size,
        "VOCABULARY": manifest.vocabulary_size,
        "SCRATCH": manifest.units + inner,
        **{"SEED": 1, "TEMPERATURE": "0.8f", "TOP_P": "1.0f", **sampling},
    }
    return [f"-D{name}={value}" for name, value in values.items()]


def build_for_host(program, *arguments):
    """A program of this machine from sources and options of gcc."""
    run("gcc", "-std=gnu99", "-ffp-contract=off", "-O2", *arguments, "-I", STEP.parent, "-o", program)
    return program


def build_for_board(program, processor, *arguments):
    """A program of an emulated board from sources and options of gcc."""
    _, flash, memory, _ = BOARDS[processor]
    board = ["-T", HARNESS / "mps2.ld", f"-Wl,--defsym=flash={flash},--defsym=ram={memory},--gc-sections", HARNESS / "startup.c"]
    options = ["-std=gnu99", "-ffp-contract=off", "-O2", "-mthumb", *flags(processor), "--specs=rdimon.specs", "-nostartfiles"]
    run("arm-none-eabi-gcc", *options, *board, *arguments, "-I", STEP.parent, "-o", program)
    return program


def flags(processor):
    return [f"-mcpu={processor}", *(["-mfloat-abi=hard"] if processor == "cortex-m33" else [])]


def emulate(program, processor, counted=False):
    """What a program prints on its emulated board; if `counted`, slowly, and the board's clock counts instructions."""
    machine = ["-M", BOARDS[processor][0], "-display", "none", "-monitor", "none", "-serial", "none"]
    options = [*(["-icount", "shift=0"] if counted else []), "-semihosting-config", "enable=on,target=native"]
    return run("qemu-system-arm", *machine, *options, "-kernel", program, stdin=subprocess.DEVNULL, timeout=300)


def parse(output):
    """What generate.c printed: score, logits as bits, ticks and the ids of the text."""
    lines = {line.split()[0]: [int(number) for number in line.split()[1:]] for line in output.splitlines()}
    score = np.array(lines["score"], np.uint32).view(np.float32).item()
    return SimpleNamespace(score=score, logits=lines["logits"], ticks=lines["ticks"][0], text=lines["text"])


def sizes(folder, processor, *options):
    """Flash and RAM of the step's object in bytes, and the names that it wants from a library."""
    target = Path(folder) / f"{processor}.o"
    run("arm-none-eabi-gcc", "-mthumb", *flags(processor), *WARNINGS, *options, "-c", STEP, "-o", target)
    text, data, bss = (int(field) for field in run("arm-none-eabi-size", target).splitlines()[1].split()[:3])
    return text, data + bss, re.findall(r"U (\S+)", run("arm-none-eabi-nm", "-u", target))


def stack(folder, processor):
    """The bytes of stack that opening a model takes, the deepest chain of calls, without those of the C library."""
    target = Path(folder) / "stack.o"
    run("arm-none-eabi-gcc", "-mthumb", *flags(processor), *C99, "-O2", "-fstack-usage", "-c", STEP, "-o", target)
    lines = [line.split("\t") for line in target.with_suffix(".su").read_text().splitlines()]
    used = {name.split(":")[-1]: int(number) for name, number, _ in lines}
    return sum(used.get(name, 0) for name in ("charedge_open", "find_layers", "find_matrix", "find", "has_name", "vector", "field"))


def main(paths):
    from charedge.runtime.errors import CharedgeError
    from charedge.runtime.model_file import read_model_file

    if reason := missing("arm-none-eabi-gcc", "qemu-system-arm"):
        sys.exit(f"tests/c_programs.py {reason}")
    try:
        files = {path: read_model_file(Path(path)) for path in paths}
    except CharedgeError as error:
        sys.exit(str(error))
    with tempfile.TemporaryDirectory() as folder:
        for processor in BOARDS:
            for level in ("-Os", "-O2"):
                text, memory, _ = sizes(folder, processor, *C99, level)
                print(f"{processor} {level}: {text} bytes of flash, {memory} of RAM, {stack(folder, processor)} of stack")
        for path, file in files.items():
            named = definitions(folder, file)
            for processor in BOARDS:
                for level in ("-O2", "-funroll-loops"):
                    program = build_for_board(Path(folder) / "a.elf", processor, *named, level, HARNESS / "generate.c", STEP)
                    found = parse(emulate(program, processor, counted=True))
                    count = found.ticks * BOARDS[processor][3]
                    print(f"{path} {processor} {level}: {count:,} instructions a character, {found.score:.4f} nats on the probe")


if __name__ == "__main__":
    main(sys.argv[1:])
