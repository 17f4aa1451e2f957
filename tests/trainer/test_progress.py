"""What a training shows: on a terminal, in a pipe, to those who want quiet, and in a log."""

import json
import os
import pty

import pytest
from charedge.trainer.progress import Progress
from charedge.trainer.run import Epoch

from charedge import CharedgeError

EPOCH = Epoch(
    epoch=2,
    train_nats_per_character=1.5,
    validation_nats_per_character=1.25,
    characters_per_second=12_345.6,
    learning_rate=0.001,
    seconds=60.0,
)


@pytest.fixture
def every_batch(monkeypatch):
    monkeypatch.setattr("charedge.trainer.progress.LINE_SECONDS", 0.0)


def show(**options):
    """An epoch of two batches, from beginning to end."""
    with Progress(epochs=3, steps=2, **options) as progress:
        progress.say("untrained loss 4.0 nats")
        progress.start_epoch(2, 0)
        progress.update(2, 1, 2.0, 10_000.0, 3_725.0, 0.002)
        progress.update(2, 2, 1.5, 12_000.0, 62.0, 0.001)
        progress.end_epoch(EPOCH, best=True)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def on_a_terminal(monkeypatch, show=show, **options):
    """What is written to a pseudo-terminal in the place of stderr, by default by an epoch."""
    master, slave = pty.openpty()
    with monkeypatch.context() as patch, os.fdopen(slave, "w") as stderr:
        patch.setenv("TERM", "xterm")
        patch.setenv("COLUMNS", "200")
        patch.setattr("sys.stderr", stderr)
        show(**options)
        print("end", file=stderr, flush=True)
        written = b""
        while not written.endswith(b"end\r\n"):
            written += os.read(master, 100_000)
    os.close(master)
    return written.decode()


def test_a_terminal_shows_a_bar_that_disappears(monkeypatch):
    written = on_a_terminal(monkeypatch)
    bar = written.rindex("epoch 2/3")
    assert "100 %  1.5000 nats  2.1640 bits/char  12.0 k chars/s  1:02 left" in written[bar:]
    assert "\x1b[2K" in written[bar:]
    assert "train 1.5000  validation 1.2500 nats" in written
    assert "untrained loss" in written


@pytest.mark.parametrize("quiet", [False, True])
def test_text_cannot_control_the_terminal(monkeypatch, quiet):
    def show(quiet):
        with Progress(epochs=3, steps=2, quiet=quiet) as progress:
            progress.start_epoch(1, 0)
            progress.say("a sample: \x1b]0;title\x07\x9b3J\u202e[red]")
            progress.warn("the log \x1b]0;title\x07\u202e cannot be written.")

    written = on_a_terminal(monkeypatch, show, quiet=quiet)
    assert "\\u001B]0;title\\u0007\\u202E cannot be written." in written
    assert ("a sample: \\u001B]0;title\\u0007\\u009B3J\\u202E[red]" in written) == (not quiet)
    assert not {"\x1b]", "\x07", "\x9b", "\u202e"} & {*written, *(written[i : i + 2] for i in range(len(written)))}


def test_a_pipe_gets_a_plain_line_now_and_then(capsys, every_batch):
    show()
    assert capsys.readouterr().err.splitlines() == [
        "untrained loss 4.0 nats",
        "epoch 2/3  batch 1/2  2.0000 nats  2.8854 bits/char  10.0 k chars/s  1:02:05 left",
        "epoch 2/3  batch 2/2  1.5000 nats  2.1640 bits/char  12.0 k chars/s  1:02 left",
        "epoch 2/3  train 1.5000  validation 1.2500 nats (1.8034 bits)/char  12.3 k chars/s  60 s  (best so far)",
    ]


def test_batches_between_two_lines_are_silent(capsys):
    show()
    assert "batch" not in capsys.readouterr().err


def test_quiet_shows_nothing_but_warnings(capsys, every_batch):
    show(quiet=True)
    assert capsys.readouterr() == ("", "")
    Progress(epochs=1, steps=1, quiet=True).warn("the loss is odd.")
    assert capsys.readouterr().err == "warning: the loss is odd.\n"


def test_quiet_shows_no_bar(monkeypatch):
    assert on_a_terminal(monkeypatch, quiet=True) == "end\r\n"


@pytest.mark.parametrize("quiet", [False, True])
def test_the_log_has_an_object_for_batches_and_for_epochs(tmp_path, every_batch, quiet):
    log = tmp_path / "log.jsonl"
    show(quiet=quiet, json_log=log)
    first, _, epoch = lines(log)
    assert first == {
        "event": "batch",
        "epoch": 2,
        "step": 1,
        "steps": 2,
        "nats_per_character": 2.0,
        "bits_per_character": pytest.approx(2.8854, abs=1e-4),
        "characters_per_second": 10_000.0,
        "seconds_left": 3_725.0,
        "learning_rate": 0.002,
    }
    assert epoch == {
        "event": "epoch",
        "epoch": 2,
        "step": 2,
        "steps": 2,
        "nats_per_character": 1.5,
        "bits_per_character": pytest.approx(2.1640, abs=1e-4),
        "characters_per_second": 12_345.6,
        "seconds_left": 60.0,
        "learning_rate": 0.001,
        "validation_nats_per_character": 1.25,
    }


def test_the_log_is_added_to_and_can_be_read_while_it_grows(tmp_path, every_batch):
    log = tmp_path / "log.jsonl"
    log.write_text('{"event": "earlier"}\n')
    progress = Progress(epochs=1, steps=3, json_log=log)
    for step in range(1, 4):
        progress.update(1, step, 2.0, 10_000.0, 1.0)
        assert [fields.get("step") for fields in lines(log)] == [None, *range(1, step + 1)]


def test_the_log_begins_anew_when_its_file_was_moved(tmp_path, every_batch):
    log = tmp_path / "log.jsonl"
    progress = Progress(epochs=1, steps=2, json_log=log)
    progress.update(1, 1, 2.0, 10_000.0, 1.0)
    log.rename(tmp_path / "old.jsonl")
    progress.update(1, 2, 2.0, 10_000.0, 1.0)
    assert [fields["step"] for fields in lines(log)] == [2]


def test_what_is_no_number_is_null_in_the_log(tmp_path, every_batch):
    log = tmp_path / "log.jsonl"
    Progress(epochs=1, steps=1, json_log=log).update(1, 1, float("nan"), float("inf"), 1.0)
    assert (lines(log)[0]["nats_per_character"], lines(log)[0]["characters_per_second"]) == (None, None)


def test_a_log_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(CharedgeError, match=r"missing.log\.jsonl cannot be written .*choose another file"):
        Progress(epochs=1, steps=1, json_log=tmp_path / "missing" / "log.jsonl")


def test_a_log_that_fails_later_ends_with_one_warning(tmp_path, every_batch, capsys):
    folder = tmp_path / "folder"
    folder.mkdir()
    progress = Progress(epochs=1, steps=2, quiet=True, json_log=folder / "log.jsonl")
    (folder / "log.jsonl").unlink()
    folder.rmdir()
    for step in (1, 2):
        progress.update(1, step, 2.0, 10_000.0, 1.0)
    assert capsys.readouterr().err.count("cannot be written any more") == 1
