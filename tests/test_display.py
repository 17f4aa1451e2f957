"""What long work displays: on a terminal, in a pipe, with --quiet, and in a log."""

import fcntl
import json
import os
import pty
import re
import struct
import termios
import warnings
from contextlib import suppress

import pytest
from charedge.runtime.progress import Report

from charedge import CharedgeError
from charedge.display import Display

BATCH = {
    "event": "batch",
    "epoch": 2,
    "step": 1,
    "steps": 2,
    "nats_per_character": 2.0,
    "bits_per_character": 2.8854,
    "characters_per_second": 10_000.0,
    "seconds_left": 3_725.0,
    "learning_rate": 0.002,
}
EPOCH = {**BATCH, "event": "epoch", "step": 2, "validation_nats_per_character": 1.25}
RESULT = "epoch 2/3  training 1.5000  validation 1.2500 nats per character (1.8034 bits)  12.3 k chars/s  60 s"


@pytest.fixture
def every_batch(monkeypatch):
    monkeypatch.setattr("charedge.display.LINE_SECONDS", 0.0)


def batch(step, **figures):
    return Report("epoch 2/3", step, 2, "batches", figures={**BATCH, "step": step, **figures})


def show(**options):
    """An epoch of two batches, from beginning to end."""
    with Display(**options) as display:
        display(Report("training", message="untrained loss 4.0 nats"))
        display(batch(1))
        display(batch(2, nats_per_character=1.5, characters_per_second=12_000.0, seconds_left=62.0))
        display(Report("epoch 2/3", message=RESULT, figures=EPOCH))


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def on_a_terminal(monkeypatch, action, columns=80, term="xterm"):
    """What an action writes to a pseudo-terminal in place of stderr."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    with monkeypatch.context() as patch, os.fdopen(slave, "w") as stderr:
        patch.setenv("TERM", term)
        patch.setattr("sys.stderr", stderr)
        action()
        print("end", file=stderr, flush=True)
        written = b""
        while not written.endswith(b"end\r\n"):
            written += os.read(master, 100_000)
    os.close(master)
    return written.decode()


def screen(written):
    """The lines that a terminal shows in the end, and every state of its last line."""
    shown, last = [""], []
    for part in re.findall(r"\r\n|\r\x1b\[K|[^\r\x1b]+", written):
        if part == "\r\n":
            shown.append("")
        elif part == "\r\x1b[K":
            shown[-1] = ""
        else:
            shown[-1] += part
            last.append(shown[-1])
    assert "\x1b" not in "".join(shown)
    return shown, last


def test_a_terminal_shows_a_bar_that_disappears(monkeypatch):
    shown, drawn = screen(on_a_terminal(monkeypatch, show))
    assert shown == ["charedge: untrained loss 4.0 nats", f"charedge: {RESULT}", "end", ""]
    bars = [line for line in drawn if line.startswith("epoch 2/3  [")]
    assert re.fullmatch(r"epoch 2/3  \[#+\]  100%  1\.5000 nats/char  12\.0 k chars/s  1:02 left", bars[-1])
    assert re.fullmatch(r"epoch 2/3  \[#+-+\]   50%  2\.0000 nats/char  10\.0 k chars/s  1:02:05 left", bars[0])


@pytest.mark.parametrize("columns", [40, 60, 80, 200])
@pytest.mark.parametrize(("stage", "left"), [("epoch 2/3", 59.0), ("epoch 9999/10000", 360_000.0)])
def test_a_bar_has_ten_cells_and_fits_its_terminal(monkeypatch, columns, stage, left):
    def show():
        with Display() as display:
            display(Report(stage, 5, 10, "batches", figures={**BATCH, "seconds_left": left, "characters_per_second": 1_234_567.0}))

    _, drawn = screen(on_a_terminal(monkeypatch, show, columns))
    bar = drawn[0]
    done, left_over = re.search(r"\[(#*)(-*)\]", bar).groups()
    assert len(done) in (len(left_over), len(left_over) - 1)
    assert len(done + left_over) >= 10
    assert len(bar) < columns
    assert "50%" in bar
    assert ("nats/char" in bar) == (columns >= 60)
    assert (" left" in bar) == (columns >= 80 or (columns, stage) == (60, "epoch 2/3"))


def test_each_stage_has_its_bar(monkeypatch):
    def show():
        with Display() as display:
            for stage in ("encoding", "verifying"):
                for done in range(3):
                    display(Report(stage, done, 2, "bytes"))

    shown, drawn = screen(on_a_terminal(monkeypatch, show))
    assert shown == ["end", ""]
    assert [(line.split()[0], line.split()[-1]) for line in drawn[:-1] if "]    0%" in line or "100%" in line] == [
        *(("encoding", "0%"), ("encoding", "100%")),
        *(("verifying", "0%"), ("verifying", "100%")),
    ]


def test_warnings_and_messages_stand_above_the_bar(monkeypatch):
    from charedge.console import say

    def show():
        with Display() as display:
            display(batch(1))
            say("warning: a checkpoint is damaged.")
            display(Report("training", message="sample:\n  To be"))
            display(batch(2))

    shown, drawn = screen(on_a_terminal(monkeypatch, show))
    assert shown == ["charedge: warning: a checkpoint is damaged.", "charedge: sample:", "  To be", "end", ""]
    assert sum("]   50%" in line for line in drawn) == 3


def test_an_error_leaves_no_bar(monkeypatch):
    def show():
        with suppress(KeyError), Display() as display:
            display(batch(1))
            raise KeyError

    shown, drawn = screen(on_a_terminal(monkeypatch, show))
    assert "50%" in drawn[0]
    assert shown == ["end", ""]


def test_a_terminal_without_controls_gets_lines(monkeypatch, every_batch):
    written = on_a_terminal(monkeypatch, show, term="dumb")
    assert "\x1b" not in written
    assert "epoch 2/3  1 of 2 batches" in written


@pytest.mark.parametrize("quiet", [False, True])
def test_text_cannot_control_the_terminal(monkeypatch, quiet):
    from charedge.console import say

    def show():
        with Display(quiet) as display:
            display(batch(1))
            display(Report("training", message="a sample: \x1b]0;title\x07\x9b3J\u202e[red]"))
            say("warning: the log \x1b]0;title\x07\u202e cannot be written.")

    written = on_a_terminal(monkeypatch, show)
    assert "\\u001B]0;title\\u0007\\u202E cannot be written." in written
    assert ("a sample: \\u001B]0;title\\u0007\\u009B3J\\u202E[red]" in written) == (not quiet)
    assert not {"\x1b]", "\x07", "\x9b", "\u202e"} & {*written, *(written[i : i + 2] for i in range(len(written)))}


def test_a_pipe_gets_a_plain_line_now_and_then(capsys, every_batch):
    show()
    assert capsys.readouterr().err.splitlines() == [
        "charedge: untrained loss 4.0 nats",
        "charedge: epoch 2/3  1 of 2 batches  2.0000 nats/char  10.0 k chars/s  1:02:05 left",
        "charedge: epoch 2/3  2 of 2 batches  1.5000 nats/char  12.0 k chars/s  1:02 left",
        f"charedge: {RESULT}",
    ]


def test_a_pipe_gets_a_line_when_a_stage_begins(capsys):
    with Display() as display:
        for done in range(0, 2001, 1000):
            display(Report("encoding", done, 2000, "bytes"))
    assert capsys.readouterr().err == "charedge: encoding over 2,000 bytes\n"


def test_reports_between_two_lines_are_silent(capsys):
    show()
    assert "batch" not in capsys.readouterr().err


def test_quiet_shows_nothing(capsys, every_batch):
    show(quiet=True)
    assert capsys.readouterr() == ("", "")


def test_quiet_shows_no_bar(monkeypatch):
    assert on_a_terminal(monkeypatch, lambda: show(quiet=True)) == "end\r\n"


@pytest.mark.parametrize("quiet", [False, True])
def test_the_log_has_an_object_for_batches_and_for_epochs(tmp_path, every_batch, quiet):
    log = tmp_path / "log.jsonl"
    show(quiet=quiet, json_log=log)
    first, _, epoch = lines(log)
    assert first == BATCH
    assert epoch == EPOCH


def test_the_log_of_a_short_epoch_has_the_epoch_alone(tmp_path):
    show(json_log=tmp_path / "log.jsonl")
    assert lines(tmp_path / "log.jsonl") == [EPOCH]


def test_the_log_is_added_to_and_can_be_read_while_it_grows(tmp_path, every_batch):
    log = tmp_path / "log.jsonl"
    log.write_text('{"event": "earlier"}\n')
    display = Display(json_log=log)
    for step in range(1, 4):
        display(batch(step))
        assert [fields.get("step") for fields in lines(log)] == [None, *range(1, step + 1)]


def test_a_log_that_was_moved_is_made_again(tmp_path, every_batch):
    log = tmp_path / "log.jsonl"
    display = Display(json_log=log)
    display(batch(1))
    log.rename(tmp_path / "old.jsonl")
    display(batch(2))
    assert [fields["step"] for fields in lines(log)] == [2]


def test_nan_and_infinity_are_null_in_the_log(tmp_path, every_batch):
    log = tmp_path / "log.jsonl"
    Display(json_log=log)(batch(1, nats_per_character=float("nan"), characters_per_second=float("inf")))
    assert (lines(log)[0]["nats_per_character"], lines(log)[0]["characters_per_second"]) == (None, None)


def test_a_log_that_cannot_be_written_is_one_sentence(tmp_path):
    with pytest.raises(CharedgeError, match=r"`json_log` .*missing.log\.jsonl cannot be written .*choose another file"):
        Display(json_log=tmp_path / "missing" / "log.jsonl")


def test_a_log_on_a_disk_that_fills_ends_with_one_warning(tmp_path, every_batch, capsys):
    log = tmp_path / "log.jsonl"
    display = Display(quiet=True, json_log=log)
    log.symlink_to("/dev/full")
    for step in (1, 2):
        display(batch(step))
    said = capsys.readouterr().err
    assert said.startswith(f"charedge: warning: {log} can no longer be written (No space left on device)")
    assert said.count("\n") == 1


def test_a_library_warns_and_the_command_line_says_it(tmp_path, charedge, monkeypatch):
    """A message of the Python API is a warning there, and a line that names the option here."""
    from charedge.trainer import api

    def finetune(*arguments, **options):
        warnings.warn("`epochs` 3 is odd.", stacklevel=1)
        raise CharedgeError("stop.")

    monkeypatch.setattr(api, "finetune", finetune)
    result = charedge("finetune", tmp_path, "--output", tmp_path / "new")
    assert result.stderr == "charedge: warning: --epochs 3 is odd.\ncharedge: stop.\n"
