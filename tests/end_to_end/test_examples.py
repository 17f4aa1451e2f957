"""The reproductions of the two reference systems run, row by row, here on a small text and with few units."""

import re
import subprocess
import sys

import pytest
from conftest import REPOSITORY

EXAMPLES = REPOSITORY / "examples"


def rows_of(script, *arguments):
    """What a script printed, by row; a row may have several lines."""
    command = [sys.executable, EXAMPLES / script, *arguments]
    result = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    rows = {}
    for line in result.stdout.splitlines():
        name, figure = line.split(maxsplit=1)
        rows.setdefault(name, []).append(figure)
    return rows


@pytest.fixture(scope="module")
def tutorial(corpus, tmp_path_factory):
    output = tmp_path_factory.mktemp("tutorial") / "output"
    return rows_of("reproductions/tensorflow_tutorial.py", corpus, "--output", output, "--units", 16, "--epochs", 2)


@pytest.fixture(scope="module")
def charrnn(corpus, tmp_path_factory):
    output = tmp_path_factory.mktemp("charrnn") / "output"
    return rows_of("reproductions/charrnn.py", corpus, "--output", output, "--units", 16, "--epochs", 2, "--stride", 50)


def test_the_tutorial_prints_each_of_its_rows(tutorial):
    assert list(tutorial) == ["A1", "A2", "A3", "A4", "A5", "A6", "A7", "A11", "A8", "A9", "A10", "A12"]


def test_the_tutorials_data_are_those_of_the_text(tutorial, corpus):
    text = corpus.read_text(encoding="utf-8")
    assert tutorial["A1"] == [f"{len(text):,} characters, {len(set(text))} distinct"]
    for row, begins in (("A2", f"{len(set(text)) + 1} ids with [UNK] = 0"), ("A3", f"{(len(text) - 1) // 100:,} windows")):
        assert tutorial[row][0].startswith(begins)
        assert tutorial[row][0].endswith("True")
    assert tutorial["A4"][0].startswith("shuffled batches of (64, 100)")


def test_the_tutorial_trains_generates_and_exports(tutorial):
    untrained, expected = map(float, re.findall(r"\d+\.\d+", tutorial["A6"][0]))
    assert untrained == pytest.approx(expected, rel=0.1)
    assert tutorial["A7"] == ["Adam, 2 epochs, each with a checkpoint: 2 are kept"]
    assert len(re.findall(r"\d\.\d\d", tutorial["A11"][0])) == 2
    assert tutorial["A9"][0].endswith("5 differ")
    assert tutorial["A10"][0].startswith("exported, loaded, 100 characters: ")
    assert len(tutorial["A12"]) == 3


def test_charrnn_prints_each_of_its_rows(charrnn):
    assert list(charrnn) == ["B1", "B2", "B3", "B5", "B6", "B7", "B4", "B8", "B9"]


def test_charrnns_data_are_those_of_the_text(charrnn, corpus):
    text = corpus.read_text(encoding="utf-8")
    listed = (EXAMPLES / "reproductions" / "charrnn-vocabulary.txt").read_text(encoding="utf-8").split("\n")[1:-1]
    known = {{"\\n": "\n", "\\t": "\t", "\\r": "\r", "\\\\": "\\"}.get(token, token) for token in listed}
    kept = sum(character in known for character in text)
    boundary = int(kept * 0.8)
    assert charrnn["B1"] == [f"{len(text):,} characters"]
    assert charrnn["B2"] == [f"a fixed list of 114 characters: {kept:,} kept, {len(text) - kept:,} skipped"]
    assert charrnn["B3"] == [f"{boundary:,} to train, {kept - boundary:,} to test"]
    windows = len(range(0, kept - boundary - 100, 50))
    assert charrnn["B4"][0].startswith(f"last character of {windows:,} windows of 100: ")


def run_example(script, *arguments):
    return subprocess.run(
        list(map(str, [sys.executable, EXAMPLES / script, *arguments])), capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("script", ["tensorflow_tutorial.py", "charrnn.py"])
def test_a_reproduction_names_a_text_that_is_missing_and_a_folder_that_exists(script, tmp_path):
    missing = run_example(f"reproductions/{script}", tmp_path / "no.txt", "--output", tmp_path / "output")
    assert (missing.returncode, "no.txt does not exist" in missing.stderr, "Traceback" in missing.stderr) == (1, True, False)
    exists = run_example(f"reproductions/{script}", tmp_path / "no.txt", "--output", tmp_path)
    assert (exists.returncode, f"--output {tmp_path} exists: give a new folder" in exists.stderr) == (2, True)


def test_the_example_in_python_goes_from_a_text_to_a_text(corpus, fork_server, tmp_path):
    short = tmp_path / "short.txt"
    short.write_text(corpus.read_text(encoding="utf-8")[:6000], encoding="utf-8")
    result = fork_server.run([EXAMPLES / "train.py", short, tmp_path / "short.tflite"])
    assert result.returncode == 0, result.stderr
    assert re.search(r"short.tflite: [\d,]+ bytes, \d\.\d{4} nats per character\n", result.stdout)
    written = run_example("write.py", tmp_path / "short.tflite", "The")
    assert (written.returncode, written.stdout[:3], len(written.stdout) > 300) == (0, "The", True)


@pytest.mark.parametrize("script", ["train.py", "write.py"])
def test_an_example_without_arguments_shows_its_usage(script):
    result = run_example(script)
    assert (result.returncode, f"python examples/{script}" in result.stderr) == (1, True)
