"""Models for the tests: ones with random weights, made without TensorFlow, and ones trained through the command line."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fork_server import COMMANDS, ForkServer
from model_files import build_model_file, kept_model_file

REPOSITORY = Path(__file__).parent.parent
DATA = Path(os.environ.get("CHAREDGE_DATA", REPOSITORY.parent / "shared" / "data"))
"""Where tests look for two texts, `shakespeare.txt` and `quijote.txt`."""


def pytest_collection_modifyitems(items):
    """Files of a trained model first: they take longest, and the short ones then fill both processes to the end."""
    items.sort(key=lambda item: "runtime" in item.path.parts)


def text_path(name):
    """The path of one of the two texts; skips the test where it is missing."""
    path = DATA / name
    if not path.exists():
        pytest.skip(f"{path} is missing: set CHAREDGE_DATA to a folder that has it")
    return path


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """A function that makes (once) a model file of some shape; a device finds in a folder what a workstation made before."""
    folder, kept, made = tmp_path_factory.mktemp("models"), os.environ.get("CHAREDGE_TEST_MODELS"), {}

    def make(**options):
        key = repr(sorted(options.items()))
        if key not in made:
            path = folder / f"model{len(made)}.tflite"
            made[key] = kept_model_file(Path(kept), **options) if kept else build_model_file(path, **options)
        return made[key]

    return make


@pytest.fixture(scope="session")
def model(models):
    """The model file that most tests use: GRU, int8."""
    return models(quantization="int8")


@pytest.fixture
def charedge(capsys):
    """Run the command line in this process: `charedge("info", path)` -> status, stdout, stderr."""
    from charedge.program import run

    def call(*arguments):
        capsys.readouterr()
        status = run([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return SimpleNamespace(status=status, stdout=captured.out, stderr=captured.err)

    return call


def heed_ctrl_c():
    """In a child: restore SIGINT, which a shell's background jobs ignore, and SIGHUP, which nohup ignores; both are inherited."""
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


def command(*arguments, python=sys.executable):
    return [str(python), "-m", "charedge", *map(str, arguments)]


@pytest.fixture(scope="session")
def fork_server():
    """Runs commands and programs that need TensorFlow without importing it each time."""
    server = ForkServer()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def process(fork_server):
    """Run the command line as a process of its own: `process("info", path)` -> CompletedProcess with text.

    A command that needs TensorFlow is a fork of a process that has imported it, unless there are options of `subprocess.run`.
    """

    def call(*arguments, python=sys.executable, **options):
        if arguments and arguments[0] in COMMANDS and python == sys.executable and not options:
            return fork_server.run(arguments)
        options = {"capture_output": True, "text": True, "encoding": "utf-8", **options}
        return subprocess.run(command(*arguments, python=python), check=False, **options)

    return call


@pytest.fixture(scope="session")
def start(fork_server):
    """Start the command line as a process, for tests that send it signals. With TensorFlow it is a fork whose streams are text."""

    def call(*arguments, **options):
        if arguments[0] in COMMANDS:
            return fork_server.start(arguments)
        options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "preexec_fn": heed_ctrl_c, **options}
        return subprocess.Popen(command(*arguments), **options)

    return call


@pytest.fixture(scope="session")
def corpus(tmp_path_factory):
    """A text of 40,000 characters that every Python carries."""
    from pydoc_data.topics import topics

    path = tmp_path_factory.mktemp("corpus") / "topics.txt"
    path.write_text("\n".join(topics[name] for name in sorted(topics))[:40_000], encoding="utf-8")
    return path


def config_of(run):
    return json.loads((run / "config.json").read_text())


def checkpoint(run):
    """The arrays of a run's newest checkpoint, by name."""
    with np.load(sorted((run / "checkpoints").iterdir())[-1]) as content:
        return {key: content[key] for key in content}


def kept_weights(run):
    """The weights in a run's model.keras, read by plain Keras."""
    import keras

    model: Any = keras.saving.load_model(run / "model.keras")
    return model.get_weights()


TINY = [
    *("--layers", "1", "--dropout", "0", "--weight-drop", "0"),
    *("--units", "48", "--embedding-dim", "16", "--epochs", "2", "--batch-size", "16"),
    *("--sequence-length", "50", "--learning-rate", "0.01", "--precision", "float32"),
]


@pytest.fixture(scope="session")
def train(tmp_path_factory, corpus, process):
    """A function that trains (once) a tiny model with some more options, and returns the run folder and what was printed."""
    folder, made = tmp_path_factory.mktemp("runs"), {}

    def call(*options):
        if find_spec("tensorflow") is None:
            pytest.skip("needs a trained model, and TensorFlow is not installed here")
        if options not in made:
            run = folder / f"run{len(made)}"
            result = process("train", corpus, "--output", run, *TINY, *options)
            assert result.returncode == 0, result.stderr
            made[options] = SimpleNamespace(path=run, stdout=result.stdout, stderr=result.stderr)
        return made[options]

    return call


@pytest.fixture(scope="session")
def converted(tmp_path_factory, train, process):
    """A function that converts (once) a run of `train`: `converted("int8", "--cell", "lstm")`."""
    folder, made = tmp_path_factory.mktemp("converted"), {}

    def call(quantization, *options):
        key = quantization, options
        if key not in made:
            path = folder / f"{quantization}{len(made)}.tflite"
            result = process("convert", train(*options).path, "--output", path, "--quantization", quantization)
            assert result.returncode == 0, result.stderr
            made[key] = SimpleNamespace(path=path, run=train(*options).path, stdout=result.stdout)
        return made[key]

    return call


@pytest.fixture(scope="session")
def tflite_runtime_python():
    """The Python of an environment with tflite-runtime, which `make test` sets up."""
    python = REPOSITORY / ".venv-tflite" / "bin" / "python"
    probe = [python, "-c", "import tflite_runtime, charedge.runtime"]
    if not python.exists() or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("no .venv-tflite with tflite-runtime 2.14: it has wheels for Python 3.9 to 3.11 only")
    return python


def local_addresses(count):
    """Addresses of this machine with free ports."""
    sockets = [socket.socket() for _ in range(count)]
    for s in sockets:
        s.bind(("127.0.0.1", 0))
    addresses = [f"127.0.0.1:{s.getsockname()[1]}" for s in sockets]
    for s in sockets:
        s.close()
    return addresses


def tf_config(addresses, index=0):
    return json.dumps({"cluster": {"worker": addresses}, "task": {"type": "worker", "index": index}})


@pytest.fixture
def start_worker(fork_server):
    """Start `charedge`, or another program, as one worker of a training; it is killed when the test ends."""
    running = []

    def call(addresses, index, *arguments):
        worker = fork_server.start(arguments, environment={**os.environ, "TF_CONFIG": tf_config(addresses, index)})
        running.append(worker)
        return worker

    yield call
    for worker in running:
        worker.kill()
        worker.communicate()


def assert_waits(worker, addresses):
    """Read a worker's stderr up to the line that names the peers it waits for."""
    line = next(line for line in worker.stderr if "waiting" in line)
    assert all(address in line for address in addresses)
