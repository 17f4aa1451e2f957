"""Every command with careless arguments: one sentence and an exit status of 1 or 2, never a traceback, a crash or a hang."""

import json
import os
import socket
import subprocess
import sys

import pytest
from charedge.runtime.cli import app
from conftest import REPOSITORY

from charedge import CharedgeError, InvalidOption, load

MODEL_COMMANDS = ("info", "verify", "bench", "generate", "score")


@pytest.fixture(scope="module")
def careless_paths(tmp_path_factory):
    """Paths that are not what a command asks for, by what they are; a FIFO has nobody at its other end."""
    folder = tmp_path_factory.mktemp("careless")
    (folder / "empty").touch()
    (folder / "loop").symlink_to("loop")
    os.mkfifo(folder / "fifo")
    with (folder / "huge").open("wb") as huge:
        huge.truncate(1 << 40)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket"))
    return {
        "an empty string": "",
        "a folder": str(folder),
        "an empty file": str(folder / "empty"),
        "a loop of links": str(folder / "loop"),
        "a FIFO": str(folder / "fifo"),
        "a huge file": str(folder / "huge"),
        "a socket": str(folder / "socket"),
        "in a file": str(folder / "empty" / "x"),
        "a long name": "x" * 5000,
        "a name with a zero byte": "a\0b",
        "a missing name that is not UTF-8": "\udcff\udcfe",
        "a missing name with an escape sequence": "\x1b[31m\n\u202e",
        "zeros without end": "/dev/zero",
        "random bytes without end": "/dev/urandom",
        "a process' memory": "/proc/self/mem",
        "a full disk": "/dev/full",
    }


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory):
    """A function that runs the command line with many lists of arguments."""

    def call(calls, seconds=20):
        program = [sys.executable, str(REPOSITORY / "tests" / "careless.py"), "--seconds", str(seconds)]
        options = {"capture_output": True, "text": True, "cwd": tmp_path_factory.mktemp("empty"), "timeout": 300}
        result = subprocess.run(program, input=json.dumps(calls), check=True, **options)
        return [json.loads(line) for line in result.stdout.splitlines()]

    return call


def is_refused(outcome):
    """Whether the exit status is one of an error, and stderr has a single line that says what it is."""
    (line, *more) = outcome["stderr"].splitlines() or [""]
    return outcome["status"] in (1, 2) and line.startswith("charedge: ") and len(line) > 30 and not more and not outcome["stdout"]


def is_orderly(outcome):
    """Whether it was refused, or did what it does, warnings included."""
    return is_refused(outcome) or (
        outcome["status"] == 0 and all(line.startswith("charedge: ") for line in outcome["stderr"].splitlines())
    )


def test_paths_to_a_model_are_refused(careless_paths, outcomes):
    calls = [[name, path] for name in MODEL_COMMANDS for path in (*careless_paths.values(), "-")]
    wrong = {str(call): outcome for call, outcome in zip(calls, outcomes(calls), strict=True) if not is_refused(outcome)}
    assert not wrong, "\n".join(f"{call[-300:]} {outcome}" for call, outcome in wrong.items())


def test_paths_to_a_text_are_refused(careless_paths, outcomes, model):
    """A FIFO is waited for, as every program does; an empty prompt is none."""
    calls = [["score", str(model.path), path] for kind, path in careless_paths.items() if kind not in ("a FIFO", "an empty string")]
    calls += [
        ["generate", str(model.path), "--length", "3", "--prompt-file", path]
        for kind, path in careless_paths.items()
        if kind not in ("a FIFO", "an empty file")
    ]
    wrong = {str(call): outcome for call, outcome in zip(calls, outcomes(calls), strict=True) if not is_refused(outcome)}
    assert not wrong, "\n".join(f"{call[-300:]} {outcome}" for call, outcome in wrong.items())


def options(name):
    """The names of a command's options that take a value."""
    import typer.core
    import typer.main

    (command,) = [command for command in typer.main.get_group(app).commands.values() if command.name == name]
    return [p.opts[0] for p in command.params if isinstance(p, typer.core.TyperOption) and not p.is_flag]


VALUES = ("", "-", "-1", "nan", "9" * 25, "\udcff", "\0", "=", "(", "\x1b[31m\u202e")


def test_values_of_options_are_refused_or_taken(outcomes, model):
    calls = []
    for name, few in {"generate": ["--length", "3"], "bench": ["--characters", "3"], "score": [], "verify": []}.items():
        for option in set(options(name)) - {"--session", "--length"}:  # a text may be as long as somebody likes
            calls += [[name, str(model.path), *few, option, value] for value in VALUES]
            calls += [[name, str(model.path), *few, option], [name, str(model.path), *few, option, "1", option, "1"]]
        calls += [
            [name, str(model.path), *few, "--json", "--json"],
            [name, str(model.path), *few, "a", "b"],
            [name, "--", "--json"],
        ]
    wrong = {str(call): outcome for call, outcome in zip(calls, outcomes(calls), strict=True) if not is_orderly(outcome)}
    assert not wrong, "\n".join(f"{call[-300:]} {outcome}" for call, outcome in wrong.items())


def test_a_zero_byte_in_a_path_is_an_error_in_python_too():
    with pytest.raises(CharedgeError, match="zero byte"):
        load("a\0b")


@pytest.mark.parametrize("threads", [0, -1, 129, 50_000, 99_999_999_999])
def test_threads_have_bounds_in_python_too(model, threads):
    with pytest.raises(InvalidOption, match=f"`threads` {threads} must be from 1 to 128"):
        load(model.path, threads=threads)


def test_the_most_threads_work(model):
    assert load(model.path, threads=128).generate("A", 5, seed=1) == load(model.path).generate("A", 5, seed=1)


def test_careless_text_to_train_on_is_refused(careless_paths, outcomes):
    """A huge file is read: it may be a text."""
    paths = [path for kind, path in careless_paths.items() if kind not in ("a FIFO", "a huge file")]
    calls = [["train", path, "--output", "run"] for path in paths]
    calls += [["finetune", path, "--output", "run"] for path in careless_paths.values()]
    wrong = {str(call): outcome for call, outcome in zip(calls, outcomes(calls), strict=True) if not is_refused(outcome)}
    assert not wrong, "\n".join(f"{call[-300:]} {outcome}" for call, outcome in wrong.items())
