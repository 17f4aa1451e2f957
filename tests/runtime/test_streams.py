"""stdin, stdout and stderr that are closed, full, a terminal, or in another encoding; text that would control a terminal."""

import itertools
import json
import os
import pty
import re
import subprocess
import sys
import unicodedata
import zipfile

import numpy as np
import pytest
from charedge.runtime.model_file import read_model_file
from conftest import command

from charedge import load

CONTROLS = [chr(code) for code in (*range(9), *range(11, 32), *range(127, 160))]
EMBEDDINGS = {"LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI"}
BIDIRECTIONAL = [c for c in map(chr, range(sys.maxunicode + 1)) if unicodedata.bidirectional(c) in EMBEDDINGS]
MARKS = ["\u061c", "\u200e", "\u200f"]
HARMFUL = {*CONTROLS, *BIDIRECTIONAL, *MARKS, "\u2028", "\u2029"}
STEERING = "".join(sorted(HARMFUL - {"\r", "\0"}))


def with_closed(descriptors, arguments, **options):
    """Run the command line with some of the descriptors 0, 1 and 2 closed."""

    def close():
        for descriptor in descriptors:
            os.close(descriptor)

    options = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True, "timeout": 60, **options}
    return subprocess.run(command(*arguments), preexec_fn=close, check=False, **options)


@pytest.fixture(scope="module")
def calls(model, tmp_path_factory):
    """Commands with a result, two of which have a warning too."""
    text = tmp_path_factory.mktemp("text") / "text.txt"
    text.write_text("Héllo, World", encoding="utf-8")
    return {
        "generate": ["generate", model.path, "--prompt", "Héllo", "--length", "20", "--seed", "1"],
        "info": ["info", model.path, "--json"],
        "score": ["score", model.path, text],
        "verify": ["verify", model.path],
    }


@pytest.mark.parametrize("name", ["generate", "info", "score", "verify"])
def test_closed_descriptors_get_nothing_and_stdout_only_the_result(calls, name):
    expected = with_closed((), calls[name])
    assert (expected.returncode, "U+00E9" in expected.stderr) == (0, name in ("generate", "score"))
    for count in (1, 2, 3):
        for closed in itertools.combinations((0, 1, 2), count):
            result = with_closed(closed, calls[name])
            assert (closed, result.stdout) == (closed, "" if 1 in closed else expected.stdout)
            assert (closed, result.returncode) == (closed, 1 if 1 in closed else 0)
            lost = ["charedge: stdout cannot be written (Bad file descriptor): send it to a file or a program that takes it."]
            lines = [] if 2 in closed else expected.stderr.splitlines() + (lost if 1 in closed else [])
            assert (closed, result.stderr.splitlines()) == (closed, lines)


def test_a_closed_stdin_is_an_error(model):
    for arguments in (["score", model.path], ["generate", model.path, "--prompt-file", "-"]):
        result = with_closed([0], arguments)
        assert (result.returncode, result.stdout) == (1, "")
        assert result.stderr == "charedge: stdin cannot be read (Bad file descriptor): give a file.\n"


@pytest.mark.parametrize(
    ("arguments", "unbuffered"),
    [
        *(("generate --length 5", flag) for flag in ("", "1")),
        *((call, "") for call in ("generate --length 20000", "info", "score", "verify", "--help", "--version")),
        ("--help", "1"),
    ],
)
def test_a_result_that_cannot_be_written_is_an_error(model, arguments, unbuffered):
    name, *options = arguments.split()
    arguments = [name] if name.startswith("--") else [name, model.path, *options]
    with open("/dev/full", "w") as full:  # noqa: PTH123
        options = {"input": "Hello", "text": True, "timeout": 60, "env": {**os.environ, "PYTHONUNBUFFERED": unbuffered}}
        result = subprocess.run(command(*arguments), stdout=full, stderr=subprocess.PIPE, check=False, **options)
    assert result.returncode == 1
    assert result.stderr == (
        "charedge: stdout cannot be written (No space left on device): send it to a file or a program that takes it.\n"
    )


def test_warnings_that_cannot_be_written_are_dropped(calls):
    with open("/dev/full", "w") as full:  # noqa: PTH123
        result = subprocess.run(command(*calls["score"]), stdout=subprocess.PIPE, stderr=full, text=True, check=False, timeout=60)
    assert (result.returncode, "nats per character" in result.stdout) == (0, True)


def on_a_terminal(arguments, **options):
    """What a terminal is sent, by stdout and stderr together, without the carriage returns that it adds to ends of lines."""
    leader, follower = pty.openpty()
    program = subprocess.Popen(command(*arguments), stdin=subprocess.DEVNULL, stdout=follower, stderr=follower, **options)
    os.close(follower)
    shown = b""
    try:
        while part := os.read(leader, 65_536):
            shown += part
    except OSError:  # how Linux says that nobody has the other end
        pass
    os.close(leader)
    program.wait(60)
    return shown.decode().replace("\r\n", "\n")


def rewritten(model, path, **fields):
    """The model with other fields in its manifest."""
    with zipfile.ZipFile(model.path) as archive:
        manifest, vocabulary = json.loads(archive.read("charedge.json")), archive.read("vocabulary.txt")
    path.write_bytes(read_model_file(model.path).flatbuffer)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("vocabulary.txt", vocabulary)
        archive.writestr("charedge.json", json.dumps({**manifest, **fields}))
    return path


@pytest.fixture(scope="module")
def steering_model(model, tmp_path_factory):
    """A model whose manifest has every character that controls a terminal."""
    fields = {"name": f"a{STEERING}z", "created_by": STEERING, "license": STEERING, "training": {STEERING: [STEERING]}}
    return rewritten(model, tmp_path_factory.mktemp("steering") / "model.tflite", **fields)


def test_a_terminal_is_not_controlled_by_what_a_file_says(steering_model):
    shown = on_a_terminal(["info", steering_model])
    assert "a\\u0001\\u0002" in shown
    assert not HARMFUL & set(shown)


def test_a_terminal_is_not_controlled_by_the_lines_of_a_text(model, tmp_path):
    (tmp_path / "text.txt").write_text(f"Hello{STEERING}", encoding="utf-8")
    for options in ([], ["--json"]):
        shown = on_a_terminal(["score", model.path, tmp_path / "text.txt", "--lines", *options])
        assert "Hello" in shown
        assert not HARMFUL & set(shown)


@pytest.mark.parametrize(
    "arguments", ["info", "score MODEL", "generate MODEL --prompt-file", "generate --length", "generate --stop \\x", "info x", ""]
)
def test_a_terminal_is_not_controlled_by_an_error(model, arguments):
    given = [model.path if part == "MODEL" else part for part in arguments.split()]
    shown = on_a_terminal([*given, f"no{STEERING}\nwhere"])
    assert shown.startswith("charedge: ")
    assert shown.count("\n") == 1
    assert not HARMFUL & set(shown)


def test_a_terminal_of_another_encoding_replaces_characters_that_it_lacks(models):
    made = models(characters="é漢\n")
    environment = {"PATH": os.environ["PATH"], "PYTHONIOENCODING": "latin-1"}
    arguments = ["generate", made.path, "--length", "40", "--seed", "1"]
    expected = load(made.path).generate("", 40, seed=1)
    leader, follower = pty.openpty()
    subprocess.run(command(*arguments, "--json"), stdout=follower, env=environment, check=True)
    assert json.loads(os.read(leader, 10_000).decode("ascii"))["texts"] == [expected]
    subprocess.run(command(*arguments), stdout=follower, env=environment, check=True)
    assert os.read(leader, 10_000).decode("latin-1").replace("\r\n", "\n") == expected.replace("漢", "\\u6f22") + "\n"
    os.close(follower)
    os.close(leader)


def test_json_has_the_values_and_no_controls(steering_model, charedge):
    printed = charedge("info", steering_model, "--json").stdout
    manifest = read_model_file(steering_model).manifest.to_dict()
    assert {key: value for key, value in json.loads(printed).items() if key in manifest} == manifest
    assert not HARMFUL & set(printed)


@pytest.mark.parametrize(
    "encoding", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"PYTHONIOENCODING": "latin-1"}]
)
def test_json_is_utf8_in_every_locale(models, tmp_path, encoding):
    path = rewritten(models(characters="é漢\n"), tmp_path / "é.tflite", name="né漢", notes="é")
    text = tmp_path / "text.txt"
    text.write_text("é漢é漢\n漢é", encoding="utf-8")

    def printed(*arguments):
        call, environment = command(*arguments, "--json"), {"PATH": os.environ["PATH"], **encoding}
        return subprocess.run(call, capture_output=True, env=environment, check=True).stdout.decode("utf-8")

    assert json.loads(printed("info", path))["name"] == "né漢"
    assert json.loads(printed("generate", path, "--prompt", "é漢", "--length", "9"))["prompt"] == "é漢"
    assert [json.loads(line)["text"] for line in printed("score", path, text, "--lines").splitlines()] == ["é漢é漢", "漢é"]


@pytest.mark.parametrize("encoding", [{"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}, {"LC_ALL": "C.UTF-8"}])
def test_paths_that_are_not_utf8_are_paths(model, tmp_path, encoding):
    folder = os.fsencode(tmp_path)
    path, text = folder + b"/mod\xff\xe9l.tflite", folder + b"/t\xffxt"
    for name, content in ((path, model.path.read_bytes()), (text, b"Hello, World")):
        with open(name, "wb") as file:  # noqa: PTH123
            file.write(content)
    for arguments in (
        [b"generate", path, b"--length", b"5", b"--prompt-file", text, b"--session", folder + b"/s\xff"],
        [b"info", path],
        [b"info", path, b"--json"],
        [b"verify", path],
        [b"score", path, text],
    ):
        environment = {"PATH": os.environ["PATH"], **encoding}
        result = subprocess.run([*command(), *arguments], capture_output=True, env=environment, check=False)
        assert (result.returncode, result.stderr) == (0, b""), arguments
        if b"--json" in arguments:
            fields = json.loads(result.stdout)
            assert os.fsencode(fields.get("file", os.fsdecode(path))) == path
    for arguments in ([b"info", path + b"no"], [b"score", path, text + b"no"], [b"generate", path, b"--prompt-file", text + b"no"]):
        result = subprocess.run([*command(), *arguments], capture_output=True, env=environment, check=False)
        assert result.returncode == 1
        assert re.fullmatch(rb"charedge: .*\\uDCFF.*no does not exist: check the path\.\n", result.stderr)


@pytest.mark.parametrize("block", [1, 2, 3, 7, 65_536])
def test_lines_end_as_those_of_a_corpus_do(model, charedge, tmp_path, monkeypatch, block):
    from charedge.runtime import text

    random = np.random.default_rng(block)
    whole = "".join(random.choice(list("ab\r\n"), 300, p=[0.2, 0.2, 0.3, 0.3])) + "end"
    (tmp_path / "text.txt").write_bytes(whole.encode())
    monkeypatch.setattr(text, "BLOCK_BYTES", block)
    printed = charedge("score", model.path, tmp_path / "text.txt", "--lines", "--json").stdout
    expected = whole.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    assert [json.loads(line)["text"] for line in printed.splitlines()] == expected


def test_a_long_line_takes_no_longer_than_many_short_ones():
    """In the square of its length it would take hours."""
    program = """if True:
        from charedge.runtime.text import split_lines
        lines = list(split_lines("x" * 64 for _ in range(1_000_000)))
        assert list(map(len, lines)) == [64_000_000]"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
