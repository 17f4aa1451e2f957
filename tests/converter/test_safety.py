"""Whatever goes wrong with `charedge convert`: the file that was there stays or the new one is whole, and one sentence says why."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import zipfile
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from charedge.runtime.model_file import read_model_file

BEFORE = b"the file that was there before"
KILLED = """
import os, signal, sys
from pathlib import Path
from charedge.display import Display
from charedge.program import run

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

{}
run(sys.argv[1:])
"""
AT_WORK = "Display.__call__ = lambda self, report: die() if report.stage == 'verifying' else None"
HALF_WRITTEN = "os.fsync = lambda file: (os.ftruncate(file, 1000), die())"
NOT_RENAMED = "Path.replace = die"
RENAMED = "replace = Path.replace; Path.replace = lambda *paths: (replace(*paths), die())"
WAITING = """
import os, sys
from charedge.program import run

os.fsync = lambda file: (print("writing", flush=True), sys.stdin.readline())
sys.exit(run(sys.argv[1:]))
"""


@pytest.fixture
def destination(tmp_path):
    """Where a model goes, in a folder of its own."""
    (tmp_path / "out").mkdir()
    return tmp_path / "out" / "m.tflite"


@pytest.fixture
def run(converted, tmp_path):
    """A copy of a run folder, to be damaged."""
    return shutil.copytree(converted("int8").run, tmp_path / "run", ignore=shutil.ignore_patterns("checkpoints"))


def beside(path):
    return sorted(other for other in path.parent.iterdir() if other != path)


@pytest.mark.parametrize(
    ("moment", "left", "replaced"),
    [(AT_WORK, "nothing", False), (HALF_WRITTEN, "half", False), (NOT_RENAMED, "all", False), (RENAMED, "nothing", True)],
    ids=["at work", "half written", "not renamed", "renamed"],
)
def test_a_killed_conversion_leaves_the_old_file_or_the_new_one(
    converted, charedge, fork_server, destination, moment, left, replaced
):
    whole = converted("int8").path.read_bytes()
    destination.write_bytes(BEFORE)
    arguments = ["convert", str(converted("int8").run), "--output", str(destination)]
    killed = fork_server.run(["-c", KILLED.format(moment), *arguments])
    assert killed.returncode == -signal.SIGKILL
    assert destination.read_bytes() == (whole if replaced else BEFORE)
    assert [path.read_bytes() for path in beside(destination)] == {"nothing": [], "half": [whole[:1000]], "all": [whole]}[left]
    assert charedge(*arguments).status == 0
    assert (destination.read_bytes(), beside(destination)) == (whole, [])


def test_ctrl_c_in_the_middle_of_the_write_leaves_the_old_file(converted, charedge, destination, monkeypatch):
    def interrupted(_):
        raise KeyboardInterrupt

    destination.write_bytes(BEFORE)
    monkeypatch.setattr(os, "fsync", interrupted)
    result = charedge("convert", converted("int8").run, "--output", destination)
    assert result.status == 130
    assert (destination.read_bytes(), beside(destination)) == (BEFORE, [])


@pytest.mark.parametrize("before", [None, BEFORE], ids=["new", "old"])
def test_a_full_disk_is_one_sentence_and_changes_nothing(converted, charedge, destination, before):
    if before:
        destination.write_bytes(before)
    with largest_file(4096):
        result = charedge("convert", converted("int8").run, "--output", destination)
    assert result.status == 1
    assert sentence(result).startswith(f"charedge: --output {destination} cannot be written (File too large)")
    assert beside(destination) == []
    assert (destination.read_bytes() if destination.exists() else None) == before


def test_two_conversions_to_one_place_do_not_mix(converted, destination):
    made = converted("int8")
    arguments = [sys.executable, "-c", WAITING, "convert", str(made.run), "--output", str(destination)]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    both = [subprocess.Popen(arguments, **pipes) for _ in range(2)]
    assert [conversion.stdout.readline() for conversion in both] == ["writing\n"] * 2
    assert len(beside(destination)) == 2
    for conversion in both:
        conversion.communicate("go on\n")
    assert [conversion.returncode for conversion in both] == [0, 0]
    assert (destination.read_bytes(), beside(destination)) == (made.path.read_bytes(), [])


def test_what_only_looks_like_a_leftover_does_not_matter(converted, charedge, destination):
    (destination.parent / f".{destination.name}.swp").touch()
    (destination.parent / f".{destination.name}.20231224").touch()
    (destination.parent / f".{destination.name}.{2**22}").mkdir()
    others = beside(destination)
    assert charedge("convert", converted("int8").run, "--output", destination).status == 0
    assert beside(destination) == others


def test_a_pipe_or_a_device_is_not_replaced_by_a_file(converted, charedge, destination):
    os.mkfifo(destination)
    result = charedge("convert", converted("int8").run, "--output", destination)
    assert (result.status, "not a regular file" in sentence(result)) == (1, True)
    assert destination.is_fifo()


def config(**values):
    return lambda data: json.dumps({**json.loads(data), **values}).encode()


def content(data):
    return lambda _: data


def without_last_line(data):
    return data[: data.rindex(b"\n", 0, -1) + 1]


def in_other_letters(data):
    return b"[UNK]\n" + "".join(f"{chr(0x4E00 + i)}\n" for i in range(data.count(b"\n") - 1)).encode()


DISAGREES = "disagrees with itself"


@pytest.mark.parametrize(
    ("name", "change", "said"),
    [
        pytest.param("vocabulary.txt", lambda data: data + "漢\n".encode(), DISAGREES, id="a character more"),
        pytest.param("vocabulary.txt", without_last_line, DISAGREES, id="a character less"),
        pytest.param("vocabulary.txt", in_other_letters, DISAGREES, id="other characters"),
        pytest.param("vocabulary.txt", content(b"\xff\n"), "vocabulary.txt is not UTF-8", id="vocabulary is binary"),
        pytest.param("config.json", config(units=49), DISAGREES, id="units"),
        pytest.param("config.json", config(units=65_536), DISAGREES, id="more units than memory"),
        pytest.param("config.json", config(layers=2), DISAGREES, id="layers"),
        pytest.param("config.json", config(embedding_dim=17), DISAGREES, id="embedding_dim"),
        pytest.param("config.json", config(cell="lstm"), DISAGREES, id="cell"),
        pytest.param("config.json", config(cell="rnn"), "cell", id="no cell"),
        pytest.param("config.json", config(units="many"), "units", id="units is text"),
        pytest.param("config.json", config(layers=0), "layers", id="no layers"),
        pytest.param("config.json", config(dropout=7), "dropout", id="dropout is no share"),
        pytest.param("config.json", config(normalization="NFX"), "normalization", id="no normalization"),
        pytest.param("config.json", config(unknown="ask"), "unknown", id="no unknown"),
        pytest.param("config.json", config(corpus={}), "corpus", id="no corpus"),
        pytest.param("config.json", config(ended=5), "ended", id="ended is a number"),
        pytest.param("config.json", content(b"{"), "config.json is damaged", id="config is cut short"),
        pytest.param("config.json", content(b"[]"), "config.json is damaged", id="config is a list"),
        pytest.param("config.json", content(b"[" * 100_000), "config.json is damaged", id="config is nested"),
        pytest.param("held_out.txt", content(b""), "no text in its held_out.txt", id="held-out is empty"),
        pytest.param("held_out.txt", content(b"\xff"), "held_out.txt is damaged", id="held-out is binary"),
        pytest.param("held_out.txt", lambda data: data[:9] + "漢".encode() + data[9:], DISAGREES, id="held-out is of others"),
        pytest.param("history.csv", content(b"epoch,loss\n1,2\n"), "history.csv is damaged", id="history is of others"),
        pytest.param("history.csv", content(b"a" * 200_000), "history.csv is damaged", id="history is one word"),
        pytest.param("model.keras", content(b"PK no model"), "model.keras cannot be loaded", id="model is no ZIP"),
        pytest.param("model.keras", lambda data: data[: len(data) // 2], "model.keras cannot be loaded", id="model is cut short"),
    ],
)
def test_a_run_that_is_damaged_is_refused(run, charedge, destination, name, change, said):
    (run / name).write_bytes(change((run / name).read_bytes()))
    refused(charedge("convert", run, "--output", destination), said, destination)


@pytest.mark.parametrize("name", ["config.json", "vocabulary.txt", "held_out.txt", "model.keras"])
def test_a_run_that_lacks_a_file_is_refused(run, charedge, destination, name):
    (run / name).unlink()
    sentence = f"has no {name}" if name == "model.keras" else f"not a complete run folder, {name} is missing"
    refused(charedge("convert", run, "--output", destination), sentence, destination)


@pytest.mark.parametrize(
    ("content", "sentence"), [(None, "calibration.txt is missing"), ("", "has no text in its calibration.txt")]
)
def test_activations_are_not_quantized_without_the_text_to_measure_them_on(run, charedge, destination, content, sentence):
    (run / "calibration.txt").unlink()
    if content is not None:
        (run / "calibration.txt").write_text(content)
    refused(charedge("convert", run, "--output", destination, "--quantization", "int8-static"), sentence, destination)


@pytest.mark.filterwarnings("ignore:__array__:DeprecationWarning")  # Keras' own
def test_the_model_of_another_run_is_refused(run, charedge, destination):
    from charedge.trainer.model import build_model
    from charedge.trainer.run import Run

    rows = (run / "vocabulary.txt").read_bytes().count(b"\n")
    build_model(rows, replace(Run(run).config(), units=24)).save(run / "model.keras")
    refused(charedge("convert", run, "--output", destination), DISAGREES, destination)


def test_an_epoch_with_a_nan_loss_does_not_damage_the_file(run, charedge, destination):
    header, first, *others = (run / "history.csv").read_text().splitlines(keepends=True)
    columns = dict(zip(header.strip().split(","), first.strip().split(","), strict=True))
    columns["validation_nats_per_character"] = "nan"
    (run / "history.csv").write_text("".join([header, ",".join(columns.values()) + "\n", *others]))
    assert charedge("convert", run, "--output", destination).status == 0
    training = json.loads(charedge("info", destination, "--json").stdout)["training"]
    assert training["validation_nats_per_character"] == float(others[0].split(",")[2])


def test_info_names_the_first_files_of_a_long_corpus(run, charedge, destination):
    config = json.loads((run / "config.json").read_text())
    config["corpus"]["files"] = [f"/texts/{number}.txt" for number in range(1200)]
    (run / "config.json").write_text(json.dumps(config))
    assert charedge("convert", run, "--output", destination).status == 0
    card = charedge("info", destination).stdout
    assert "files 0.txt 1.txt 2.txt 3.txt 4.txt 5.txt 6.txt 7.txt and others, characters" in card
    assert len(json.loads(charedge("info", destination, "--json").stdout)["training"]["corpus"]["files"]) == 1000


@pytest.mark.parametrize(
    ("option", "value"),
    [("--name", os.fsdecode(b"bard\xff")), ("--author", "two\nlines"), ("--license", "x" * 1_000_000)],
    ids=["not UTF-8", "two lines", "a megabyte"],
)
def test_a_text_that_no_device_would_take_is_refused(converted, charedge, destination, option, value):
    result = charedge("convert", converted("int8").run, "--output", destination, option, value)
    assert (result.status, option in sentence(result)) == (2, True)
    assert list(destination.parent.iterdir()) == []


def test_folders_and_files_may_have_names_that_are_not_utf8(run, process, destination):
    run = run.rename(run.with_name(os.fsdecode(b"run\xff")))
    destination = destination.with_name(os.fsdecode(b"m\xff.tflite"))
    result = process("convert", run, "--output", destination, env={**os.environ, "PYTHONIOENCODING": "utf-8"})
    assert (result.returncode, "Traceback" in result.stderr) == (0, False)
    with zipfile.ZipFile(destination) as file:
        assert json.loads(file.read("charedge.json"))["name"] == "run\N{REPLACEMENT CHARACTER}"


@contextmanager
def largest_file(limit):
    """Let this process write no file beyond so many bytes, as if the disk were full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def sentence(result):
    """The last line of stderr, after lines that say what is done."""
    lines = result.stderr.splitlines()
    assert "Traceback" not in result.stderr
    assert lines[-1].startswith("charedge: "), result.stderr
    assert lines[-1].endswith(".")
    return lines[-1]


def refused(result, said, destination):
    assert (result.status, said in sentence(result)) == (1, True), result.stderr
    assert list(destination.parent.iterdir()) == []


def test_a_run_and_its_models_may_have_names_that_are_not_utf8(train, process, tmp_path):
    run, folder = tmp_path / "r\udcffn", tmp_path / "all\udcfe"
    shutil.copytree(train().path, run)
    result = process("convert", run, "--all", folder)
    assert result.returncode == 0, result.stderr
    assert (folder / "r\udcffn-comparison.png").exists()
    assert read_model_file(folder / "r\udcffn-int8.tflite").manifest.name == "r\ufffdn"


def test_tensorflow_is_not_given_a_path_that_is_not_utf8(charedge, corpus, tmp_path):
    for arguments in (
        ("convert", "run", "--format", "saved-model", "--output", tmp_path / "\udcff"),
        ("train", corpus, "--output", tmp_path / "\udcff"),
        ("train", "--output", tmp_path / "\udcff", "--resume"),
        ("finetune", "run", "--output", tmp_path / "\udcff"),
    ):
        result = charedge(*arguments)
        assert (result.status, result.stderr.count("\n")) == (1, 1)
        assert re.search("uDCFF is (not UTF-8, which TensorFlow needs|a path that is not valid UTF-8)", result.stderr)
