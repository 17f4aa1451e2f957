"""A session covers what was handed over and nothing more, however a text ends."""

import errno
import fcntl
import io
import itertools
import json
import os
import pty
import signal
import subprocess
import sys
import termios
from contextlib import suppress
from pathlib import Path

import pytest
from charedge.runtime.sampling import Sampler
from conftest import command

from charedge import CharedgeError, load

SEED = 7
WHOLE = 400


@pytest.fixture(scope="module")
def generator(model):
    return load(model.path)


@pytest.fixture(scope="module")
def whole(generator):
    """The beginning of the text that nothing interrupts."""
    return generator.generate("", WHOLE, seed=SEED)


@pytest.fixture
def session(tmp_path):
    return tmp_path / "session"


def covered(session, whole):
    """How many characters of the text the session covers; 0 without one."""
    if not session.exists():
        return 0
    tail = json.loads(session.read_bytes())["tail"]
    assert tail in "\n" + whole
    return ("\n" + whole).index(tail) + len(tail) - 1


def assert_continues(generator, session, text):
    """The session stands exactly after a text."""
    rest = generator.generate("", 40, session=session, seed=SEED)
    assert text + rest == generator.generate("", len(text) + 40, seed=SEED)


@pytest.fixture
def during_the_text(monkeypatch):
    """A function that lets something happen while the twentieth character is drawn."""
    draw, draws = Sampler.__call__, itertools.count(1)

    def arrange(action):
        def drawn(*arguments):
            if next(draws) == 20:
                action()
            return draw(*arguments)

        monkeypatch.setattr(Sampler, "__call__", drawn)

    return arrange


@pytest.fixture
def save_always(monkeypatch):
    monkeypatch.setattr("charedge.runtime.saved_text.SESSION_SECONDS", 0)


@pytest.fixture
def handlers():
    """Signals are handled as a program finds them, however pytest was started, and afterwards as before."""
    found = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL, signal.SIGHUP: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in found.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Reader(io.RawIOBase):
    """What reads stdout until there is no more space."""

    def __init__(self, space):
        self.received = b""
        self._space = space

    def writable(self):
        return True

    def write(self, data):
        taken = bytes(data)[: self._space - len(self.received)]
        if not taken:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.received += taken
        return len(taken)


@pytest.fixture
def stdout(monkeypatch):
    """A function that makes stdout something else."""
    return lambda file: monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(file, encoding="utf-8", write_through=False))


@pytest.mark.parametrize("space", [0, 1, 37, 100])
def test_a_session_stands_where_a_full_disk_stopped_the_text(
    generator, charedge, model, session, whole, stdout, save_always, space
):
    reader = Reader(space)
    stdout(io.BufferedWriter(reader))
    with suppress(OSError):  # from the last flush
        charedge("generate", model.path, "--length", WHOLE, "--seed", SEED, "--session", session)
    assert covered(session, whole) == len(reader.received) == space
    assert_continues(generator, session, whole[:space])


@pytest.mark.parametrize("output", [[], ["--json"], ["--pattern", "[A-Za-z]{20}"]], ids=str)
@pytest.mark.parametrize("redirection", ["> /dev/full", ">&-"])
def test_a_session_does_not_move_where_nothing_can_be_written(generator, process, model, session, output, redirection):
    generator.generate("Hello", 10, seed=SEED, session=session)
    saved = session.read_bytes()
    arguments = ["generate", model.path, "--length", "50", "--session", session, *output]
    result = subprocess.run(["sh", "-c", f'"$@" {redirection}', "sh", *command(*arguments)], capture_output=True, check=False)
    assert result.returncode
    assert session.read_bytes() == saved


def test_a_session_is_not_made_for_a_pattern_that_fails(generator, charedge, model, session):
    arguments = ["--prompt", "Hello", "--length", "5", "--pattern", "[a-z]{9}", "--session", session]
    assert charedge("generate", model.path, *arguments).status == 1
    for call in (generator.generate, lambda *values, **options: list(generator.stream(*values, **options))):
        with pytest.raises(CharedgeError, match="not complete"):
            call("Hello", 5, pattern="[a-z]{9}", session=session)
    assert not session.exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_json_that_was_not_printed_is_not_covered(charedge, model, session, save_always, during_the_text, handlers, number):
    during_the_text(lambda: os.kill(os.getpid(), number))
    result = charedge("generate", model.path, "--json", "--session", session)
    assert (result.status, result.stdout) == (128 + number, "")
    assert not session.exists()


def test_json_that_was_printed_is_covered(generator, charedge, model, session, save_always):
    result = charedge("generate", model.path, "--json", "--length", "30", "--seed", SEED, "--session", session)
    assert_continues(generator, session, json.loads(result.stdout)["texts"][0])


@pytest.mark.parametrize("signals", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_saves_what_was_handed_over(generator, charedge, model, session, during_the_text, handlers, number, signals):
    """Two SIGHUPs are one: a closed connection sends several. The second Ctrl-C or SIGTERM stops at once, and saves nothing."""
    during_the_text(lambda: [os.kill(os.getpid(), number) for _ in range(signals)])
    result = charedge("generate", model.path, "--seed", SEED, "--session", session)
    assert result.status == 128 + number
    if signals == 1 or number == signal.SIGHUP:
        assert len(result.stdout) == 20
        assert_continues(generator, session, result.stdout)
    else:
        assert not session.exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_the_program_saves_on_the_signals_of_a_service_and_of_a_closed_connection(model, generator, start, session, number):
    with start("generate", model.path, "--length", "100000000", "--seed", SEED, "--session", session) as writer:
        text = writer.stdout.read(1)
        writer.send_signal(number)
        text += writer.stdout.read()
        assert (writer.wait(), writer.stderr.read()) == (128 + number, b"")
    assert_continues(generator, session, text.decode())


def test_sighup_is_ignored_under_nohup(model, start):
    ignore = {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)}
    with start("generate", model.path, "--length", "100000000", **ignore) as writer:
        assert writer.stdout.read(1)
        writer.send_signal(signal.SIGHUP)
        assert len(writer.stdout.read(200_000)) == 200_000  # more than a pipe and the buffers before it hold
        writer.send_signal(signal.SIGTERM)
        writer.stdout.read()
        assert writer.wait() == 143


def test_a_closed_terminal_leaves_the_session_after_the_shown_text(model, generator, start, session):
    terminal, end = pty.openpty()

    def take_terminal():
        os.setsid()
        fcntl.ioctl(end, termios.TIOCSCTTY, 0)

    arguments = ["--length", "100000000", "--seed", SEED, "--session", session]
    with start("generate", model.path, *arguments, stdout=end, stderr=end, preexec_fn=take_terminal) as writer:
        os.close(end)
        shown = os.read(terminal, 100).decode().replace("\r\n", "\n")
        os.close(terminal)
        assert writer.wait() == 129
    whole = generator.generate("", 20_000, seed=SEED)
    assert whole.startswith(shown)
    assert covered(session, whole) >= len(shown)
    assert_continues(generator, session, whole[: covered(session, whole)])


def test_the_text_is_on_the_disk_before_the_session_that_covers_it(charedge, model, session, stdout, save_always, monkeypatch):
    text = session.with_name("text")
    events, fsync, replace = [], os.fsync, Path.replace
    opened = Path("/proc/self/fd")
    monkeypatch.setattr("os.fsync", lambda number: events.append((opened / str(number)).readlink().name) or fsync(number))
    monkeypatch.setattr(Path, "replace", lambda *names: events.append(names[1].name) or replace(*names))
    with text.open("wb") as file:
        stdout(file)
        charedge("generate", model.path, "--length", "3", "--session", session)
        monkeypatch.undo()
    saves = [events[i : i + 4] for i in range(0, len(events), 4)]
    assert len(saves) >= 3
    assert all((save[0], save[2]) == ("text", "session") for save in saves[:3])


@pytest.mark.parametrize("stop", [["{}\0"], ["{}"], ["{}\0", "qq\0"], []], ids=repr)
def test_a_stream_continues_after_the_pieces_that_were_taken(generator, tmp_path, whole, stop):
    """What is held back as the possible beginning of a stop string was not taken."""
    stop = [text.format(whole[20:25]) for text in stop]
    for pieces in range(1, 35):
        session = tmp_path / f"session{pieces}"
        stream = generator.stream("", 200, seed=SEED, stop=stop, session=session)
        text = "".join(itertools.islice(stream, pieces))
        if len(text) < pieces:
            break  # it has ended at the stop string
        stream.close()
        assert_continues(generator, session, text)


def test_a_text_that_a_stop_string_ended_continues_after_it(generator, session, whole):
    stop = whole[20:25]
    assert generator.generate("", 200, seed=SEED, stop=[stop], session=session) == whole[: whole.index(stop)]
    assert json.loads(session.read_bytes())["tail"] == "\n" + whole[: whole.index(stop) + 5]
    assert_continues(generator, session, whole[: whole.index(stop) + 5])


def test_a_pattern_with_a_stop_string_stands_after_the_piece_until_the_text_has_ended(generator, tmp_path):
    whole = {seed: generator.generate("A", 9, seed=seed, pattern="[a-z]{7,9}") for seed in range(100)}
    seed = next(seed for seed, text in whole.items() if len(text) == 9 and text.index(text[-2:]) == 7)
    options = {"seed": seed, "pattern": "[a-z]{7,9}", "stop": [whole[seed][-2:]]}
    left, ended = tmp_path / "left", tmp_path / "ended"
    stream = generator.stream("A", 9, session=left, **options)
    text = next(stream)
    stream.close()
    generator.generate("A", 9, session=ended, **options)
    assert text == whole[seed][:7]
    assert json.loads(left.read_bytes())["tail"] == "A" + text
    assert json.loads(ended.read_bytes())["tail"] == "A" + whole[seed]


def test_a_piece_whose_reader_failed_is_not_covered(generator, session):
    stream = generator.stream("", 100, seed=SEED, session=session)
    text = "".join(itertools.islice(stream, 10))
    next(stream)
    with pytest.raises(ValueError, match="reader"):
        stream.throw(ValueError("the reader failed"))
    # the tenth piece was covered when the eleventh was asked for
    assert_continues(generator, session, text)


def interrupt():
    raise KeyboardInterrupt


def test_a_call_that_returned_nothing_covers_nothing(generator, session, during_the_text):
    during_the_text(interrupt)
    with pytest.raises(KeyboardInterrupt):
        generator.generate("", 100, seed=SEED, session=session)
    assert not session.exists()


def test_a_stream_that_is_interrupted_covers_the_pieces_that_were_taken(generator, session, during_the_text):
    during_the_text(interrupt)
    stream, taken = generator.stream("", 100, seed=SEED, session=session), []
    with pytest.raises(KeyboardInterrupt):
        taken.extend(stream)
    assert len(taken) == 19
    assert_continues(generator, session, "".join(taken))
