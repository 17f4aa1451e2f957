"""Text at a pace, without waiting for it: clocks and sleeps are the tests' own."""

import signal

import pytest
from charedge.runtime.pace import Pace, paced

from charedge import InvalidOption, load


class Clock:
    """A time that passes only while somebody sleeps or works."""

    def __init__(self):
        self.now, self.slept = 1000.0, 0.0

    def __call__(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds
        self.slept += seconds

    def work(self, seconds):
        self.now += seconds


def times(clock, pieces, rate, work):
    """The time of each piece, if making it takes `work(number)` seconds."""

    def made():
        for number, piece in enumerate(pieces):
            clock.work(work(number))
            yield piece

    return [clock.now for _ in paced(made(), Pace(rate, clock), clock.sleep)]


def test_characters_come_at_even_times_whatever_each_takes():
    clock = Clock()
    found = times(clock, "x" * 1001, 8, lambda number: 0.001 * (number % 7))
    assert found == pytest.approx([found[0] + number / 8 for number in range(1001)])
    assert clock.slept > 120  # of 125 seconds


def test_a_piece_of_several_characters_takes_their_time():
    assert times(Clock(), ["a", "bcd", "e"], 2, lambda number: 0) == pytest.approx([1000, 1000.5, 1002])


def test_a_short_delay_is_caught_up():
    found = times(Clock(), "x" * 30, 10, lambda number: 0.75 if number == 10 else 0)
    assert found[10] - found[9] == pytest.approx(0.75)
    assert found[-1] - found[0] == pytest.approx(2.9)


def test_a_long_delay_is_followed_by_the_characters_of_a_second_at_most():
    found = times(Clock(), "x" * 100, 10, lambda number: 3600 if number == 50 else 0)
    after = [time - found[50] for time in found[50:]]
    assert sum(time == 0 for time in after) <= 11
    assert after[-1] == pytest.approx(49 / 10 - 1)


@pytest.mark.parametrize("rate", [0, -1, 0.0001, 1e7, float("nan"), float("inf"), "fast", 10**400])
def test_a_pace_out_of_bounds_is_refused_before_any_text(generator, rate):
    with pytest.raises(InvalidOption, match=r"^`characters_per_second`"):
        generator.stream("A", characters_per_second=rate)


@pytest.fixture(scope="module")
def generator(model):
    return load(model.path)


@pytest.fixture
def waits(monkeypatch):
    """The lengths of the pieces for which a `Pace` has waited; a wait takes no time."""
    lengths = []
    monkeypatch.setattr(Pace, "wait", lambda pace, characters, *_: lengths.append(characters))
    return lengths


@pytest.mark.parametrize("options", [{}, {"stop": "qqqq"}, {"end_at": "line"}, {"session": True}], ids=str)
def test_a_stream_waits_for_every_piece_and_writes_the_same_text(generator, waits, tmp_path, options):
    given = {**options, **({"session": tmp_path / "session"} if "session" in options else {})}
    pieces = list(generator.stream("A", 100, seed=1, characters_per_second=5, **given))
    assert waits == list(map(len, pieces))
    given.pop("session", None)
    assert "".join(pieces) == generator.generate("A", 100, seed=1, **given)


def test_ctrl_c_in_a_wait_leaves_the_session_after_the_received_text(generator, monkeypatch, tmp_path):
    received = []

    def wait(pace, characters, *_):
        if len(received) == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Pace, "wait", wait)
    pieces = generator.stream("A", 100, seed=1, characters_per_second=5, session=tmp_path / "session")
    with pytest.raises(KeyboardInterrupt):
        received.extend(pieces)
    rest = generator.generate("", 20, session=tmp_path / "session")
    assert "".join(received) + rest == generator.generate("A", 25, seed=1)


def test_the_command_line_waits_for_every_character(generator, model, charedge, waits):
    result = charedge("generate", model.path, "--length", 50, "--seed", 1, "--characters-per-second", 5)
    assert (result.stdout, waits) == (generator.generate("", 50, seed=1), [1] * 50)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_sleep(generator, model, start, tmp_path, number, status):
    """At this pace the next character would come after a quarter of an hour; the first one is written at once, into a pipe."""
    options = ["--length", 0, "--seed", 7, "--characters-per-second", 0.001, "--session", tmp_path / "session"]
    with start("generate", model.path, *options) as writer:
        text = writer.stdout.read(1)
        writer.send_signal(number)
        text += writer.stdout.read()
        assert (writer.wait(), writer.stderr.read(), len(text) <= 2) == (status, b"", True)
    rest = generator.generate("", 20, session=tmp_path / "session")
    assert text.decode() + rest == generator.generate("", len(text) + 20, seed=7)


def test_a_closed_pipe_ends_a_pace_quietly(model, start):
    with start("generate", model.path, "--length", 0, "--characters-per-second", 100_000) as writer:
        writer.stdout.read(20)
        writer.stdout.close()
        assert (writer.wait(), writer.stderr.read()) == (0, b"")


@pytest.mark.parametrize("option", [["--json"], ["--samples", "2"], ["--pattern", "a+"]], ids=str)
@pytest.mark.parametrize(
    ("paced", "field"), [(["--characters-per-second", 5], "--characters-per-second"), (["--length", 0], "--length")]
)
def test_whole_texts_have_neither_a_pace_nor_no_end(model, charedge, option, paced, field):
    result = charedge("generate", model.path, *paced, *option)
    assert (result.status, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert f"charedge: {field} " in result.stderr
    assert option[0] in result.stderr


def test_a_pattern_has_no_pace_in_python_either(generator):
    with pytest.raises(InvalidOption, match=r"^`characters_per_second` .*`pattern`"):
        generator.stream("A", pattern="a+", characters_per_second=5)
