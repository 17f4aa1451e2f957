"""Texts that never end."""

import itertools
import signal
import tracemalloc

import pytest

from charedge import InvalidOption, load

CONTROLS = [{}, {"stop": "qqqq"}, {"repetition_penalty": 1.2, "top_p": 0.9}, {"session": True}, {"session": True, "stop": "qqqq"}]


@pytest.fixture(scope="module")
def generator(model):
    return load(model.path)


def options(controls, folder):
    return {**controls, **({"session": folder / "session"} if "session" in controls else {})}


@pytest.mark.parametrize(("controls", "characters"), list(zip(CONTROLS, (20_000, 2000, 1000, 2000, 2000), strict=True)), ids=str)
def test_a_text_without_end_takes_constant_memory(generator, tmp_path, controls, characters):
    pieces = generator.stream("A", 0, seed=1, **options(controls, tmp_path))
    assert len("".join(itertools.islice(pieces, 1100))) >= 1100  # more than a session's tail and the penalty's window
    tracemalloc.start()
    try:
        assert len(list(itertools.islice(pieces, 150))) == 150  # more than are drawn at once
        before, _ = tracemalloc.get_traced_memory()
        for _ in itertools.islice(pieces, characters):
            pass
        after, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        pieces.close()
    assert after - before < 4000  # less than four bytes a character


@pytest.mark.parametrize("controls", CONTROLS, ids=str)
def test_a_text_without_end_begins_as_one_with_an_end(generator, tmp_path, controls):
    pieces = generator.stream("A", 0, seed=1, **options(controls, tmp_path))
    text = "".join(itertools.islice(pieces, 300))
    pieces.close()
    rest = {key: value for key, value in controls.items() if key != "session"}
    assert text == generator.generate("A", len(text), seed=1, **rest)
    if "session" in controls:
        text += generator.generate("", 50, **options(controls, tmp_path))
        assert text == generator.generate("A", len(text), seed=1, **rest)


def test_a_stop_string_ends_a_text_without_end(generator):
    assert "".join(generator.stream("A", 0, seed=1, stop="\n")) == generator.generate("A", 10_000, seed=1, stop="\n")


def test_what_returns_a_whole_text_refuses_one_without_end(generator):
    for call in (lambda: generator.generate("A", 0), lambda: generator.generate_batch(["A", "B"], 0)):
        with pytest.raises(InvalidOption, match=r"^`length` 0 .*`stream`"):
            call()
    for call in (lambda: generator.stream("A", 0, pattern="a+"), lambda: generator.stream("A", -1)):
        with pytest.raises(InvalidOption, match=r"^`length`"):
            call()


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_it_and_the_session_resumes_it(generator, model, start, tmp_path, number, status):
    session = tmp_path / "session"
    with start("generate", model.path, "--length", 0, "--seed", 7, "--session", session) as writer:
        text = writer.stdout.read(1)
        writer.send_signal(number)
        text += writer.stdout.read()
        assert (writer.wait(), writer.stderr.read()) == (status, b"")
    rest = generator.generate("", 30, session=session)
    assert text.decode() + rest == generator.generate("", len(text) + 30, seed=7)


def test_a_closed_pipe_ends_it_quietly(model, start):
    with start("generate", model.path, "--length", 0) as writer:
        assert len(writer.stdout.read(20)) == 20
        writer.stdout.close()
        assert (writer.wait(), writer.stderr.read()) == (0, b"")
