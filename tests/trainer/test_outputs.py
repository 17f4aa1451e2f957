"""A training whose outputs are among the files that it reads is refused, through links and `..` too."""

import shutil
import signal

import pytest
from conftest import TINY


@pytest.fixture
def run(train, tmp_path):
    shutil.copytree(train().path, tmp_path / "runs" / "run")
    return tmp_path / "runs" / "run"


@pytest.fixture
def text(corpus, tmp_path):
    """A folder with a text and a vocabulary in it."""
    (tmp_path / "texts").mkdir()
    shutil.copy(corpus, tmp_path / "texts" / "book.txt")
    return tmp_path / "texts" / "book.txt"


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def assert_refused(charedge, tmp_path):
    """Run a training that must be refused, and change nothing."""

    def call(named, *arguments):
        before = contents(tmp_path)
        result = charedge("train", *arguments, *TINY)
        assert (result.status, result.stdout) == (2, ""), result.stderr
        assert named in result.stderr
        assert contents(tmp_path) == before

    return call


def test_the_log_is_not_written_into_what_is_read(run, text, assert_refused, tmp_path):
    vocabulary, link, hard = tmp_path / "vocabulary.txt", tmp_path / "link", tmp_path / "hard"
    shutil.copy(run / "vocabulary.txt", vocabulary)
    link.symlink_to(text)
    hard.hardlink_to(text)
    options = ("--output", tmp_path / "new", "--vocabulary", vocabulary, "--json-log")
    for log in (text, link, hard, text.parent / ".." / "texts" / "book.txt", vocabulary):
        assert_refused(f"--json-log {log} is ", text, *options, log)
        assert_refused(f"--json-log {log} is ", text.parent, *options, log)
    assert_refused("--json-log", link, *options, text)


def test_the_log_is_not_written_into_a_runs_files(run, text, assert_refused, charedge, tmp_path):
    other, new = shutil.copytree(run, tmp_path / "other"), tmp_path / "new"
    for path in [path for path in other.rglob("*") if path.is_file()]:
        assert_refused("--json-log", text, "--output", new, "--teacher", other, "--json-log", path)
    assert_refused("--json-log", text, "--output", new, "--json-log", new / "config.json")
    assert_refused("--json-log", text, "--output", run, "--overwrite", "--json-log", run / "history.csv")
    result = charedge("train", "--resume", "--output", run, "--json-log", run / "model.keras")
    assert (result.status, "--json-log" in result.stderr) == (2, True)
    result = charedge("finetune", run, "--output", new, "--json-log", run / "model.keras")
    assert (result.status, "--json-log" in result.stderr) == (2, True)


def test_a_run_does_not_replace_what_is_read(run, text, assert_refused, tmp_path):
    link = tmp_path / "link.txt"
    link.symlink_to(run / "held_out.txt")
    for path in (run / "held_out.txt", run / "calibration.txt", run / ".." / "run" / "held_out.txt", link):
        assert_refused(f"would replace {path}", path, "--output", run, "--overwrite")
    options = ("--output", run, "--overwrite", "--vocabulary", run / "vocabulary.txt")
    assert_refused("would replace", text, *options)
    other = tmp_path / "other"
    other.symlink_to(run)
    assert_refused("are the same folder", text, "--output", other, "--overwrite", "--teacher", run)


def test_a_log_in_the_run_folder_is_fine(run, charedge, monkeypatch):
    monkeypatch.chdir(run)
    result = charedge("train", "--resume", "--output", ".", "--epochs", "3", "--json-log", "log.jsonl")
    assert result.status == 0, result.stderr
    assert (run / "log.jsonl").exists()


def test_a_log_in_the_folder_of_a_new_run_does_not_block_it(text, charedge, tmp_path):
    log = tmp_path / "run" / "log.jsonl"
    log.parent.mkdir()
    refused = charedge("train", text, "--output", log.parent, "--json-log", log, "--units", "0")
    assert (refused.status, list(log.parent.iterdir())) == (2, [])
    result = charedge("train", text, "--output", log.parent, "--json-log", log, *TINY)
    assert (result.status, log.exists()) == (0, True), result.stderr


def test_a_run_folder_may_have_any_name_and_be_the_current_one(text, charedge, tmp_path, monkeypatch):
    run = tmp_path / "a$x^$b \u8fd0"  # a formula for matplotlib, and a character that its font lacks
    run.mkdir()
    monkeypatch.chdir(run)
    result = charedge("train", text, "--output", ".", *TINY)
    assert (result.status, "Glyph" in result.stderr) == (0, False), result.stderr
    assert result.stdout.splitlines()[-1].startswith(f"next: charedge convert . --output '../{run.name}.tflite'")
    everything = charedge("convert", ".", "--all", "../all")
    assert (everything.status, (tmp_path / "all" / f"{run.name}-comparison.png").exists()) == (0, True), everything.stderr


def test_a_text_that_is_given_twice_is_warned_of(text, charedge, tmp_path):
    result = charedge("train", text, text.parent, "--output", tmp_path / "run", *TINY)
    assert (result.status, f"{text} is given twice" in result.stderr) == (0, True), result.stderr


def test_allow_unknown_needs_a_vocabulary(text, charedge, tmp_path):
    result = charedge("train", text, "--output", tmp_path / "run", "--allow-unknown")
    assert (result.status, "--allow-unknown has no effect without --vocabulary" in result.stderr) == (2, True)


def test_a_text_with_fewer_windows_than_devices_is_refused(process, tmp_path):
    (tmp_path / "short.txt").write_text("a short text, and a little more of it\n")
    options = ("--sequence-length", "25", "--cpu-devices", "2", "--output", tmp_path / "run")
    result = process("train", tmp_path / "short.txt", *TINY, *options)
    assert (result.returncode, "--sequence-length 25 leaves fewer windows" in result.stderr) == (2, True), result.stderr


def test_an_interruption_before_the_first_checkpoint_says_so(text, tmp_path, charedge, monkeypatch):
    from charedge.runtime.interrupts import Interrupted
    from charedge.trainer import loop

    def interrupted(*_):
        raise Interrupted(signal.SIGINT)

    monkeypatch.setattr(loop, "Learner", interrupted)
    result = charedge("train", text, "--output", tmp_path / "run", *TINY)
    assert result.status == 130
    assert "nothing was saved yet: train again with --overwrite" in result.stderr
