"""One model in several threads: every text and score is what it is in a single thread."""

import itertools
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from random import Random

import pytest

from charedge import load

LENGTH = 200


@pytest.fixture(scope="module", params=["int8", "int4"])
def generator(models, request):
    """An int4 model takes a few rows one by one."""
    return load(models(quantization=request.param).path)


@pytest.fixture(autouse=True)
def busy_threads():
    """Let Python go from thread to thread as often as it can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def streamed(generator, **options):
    return "".join(list(generator.stream("A stream", LENGTH, **options)))


def in_session(generator, path):
    first = generator.generate("A session", LENGTH // 2, seed=6, session=path)
    return first + generator.generate("", LENGTH // 2, session=path)


CALLS = {
    "generate": lambda generator, _: generator.generate("ROMEO:", LENGTH, seed=1),
    "batch of 3": lambda generator, _: generator.generate_batch(["A", "Bb", "C"], LENGTH, seed=2),
    "batch of 6": lambda generator, _: generator.generate_batch([*"ABCDEF"], LENGTH, seed=3, stop=["e"]),
    "score": lambda generator, _: generator.score("Some text of which nothing is written. " * 5),
    "stream": lambda generator, _: streamed(generator, seed=4),
    "filtered stream": lambda generator, _: streamed(generator, seed=5, top_p=0.9, repetition_penalty=1.2),
    "pattern": lambda generator, _: generator.generate("A", LENGTH, seed=7, pattern="[A-Z][a-z]{40}"),
    "session": lambda generator, folder: in_session(generator, folder / "session"),
}


def test_eight_threads_write_what_one_writes(generator, tmp_path):
    alone, together, rounds = tmp_path / "alone", tmp_path / "together", 4
    for folder in (alone, *(together / str(number) for number in range(rounds))):
        folder.mkdir(parents=True)
    expected = {name: call(generator, alone) for name, call in CALLS.items()}
    start = threading.Barrier(len(CALLS))

    def repeat(call):
        start.wait()
        return [call(generator, together / str(number)) for number in range(rounds)]

    with ThreadPoolExecutor(len(CALLS)) as pool:
        written = {name: pool.submit(repeat, call) for name, call in CALLS.items()}
    assert {name: future.result() for name, future in written.items()} == {name: [expected[name]] * rounds for name in CALLS}


def test_eight_threads_mix_all_kinds_of_calls(generator):
    """Each makes every call once, in an order of its own, and reads some of a stream between them."""
    calls = {name: call for name, call in CALLS.items() if name != "session"}
    expected = {name: call(generator, None) for name, call in calls.items()}
    streams = [generator.generate("S", LENGTH, seed=seed, temperature=1.0) for seed in range(8)]
    start = threading.Barrier(8)

    def mix(number):
        start.wait()
        written, stream = {}, generator.stream("S", LENGTH, seed=number, temperature=1.0)
        pieces = []
        for name in Random(number).sample(sorted(calls), len(calls)):
            pieces += itertools.islice(stream, 10)
            written[name] = calls[name](generator, None)
        return written, "".join([*pieces, *stream])

    with ThreadPoolExecutor(8) as pool:
        results = list(pool.map(mix, range(8)))
    assert [written for written, _ in results] == [expected] * 8
    assert [text for _, text in results] == streams


def test_streams_may_be_advanced_by_turns_from_any_thread(generator):
    alone = [generator.generate("A", 60, seed=1), generator.generate("B", 60, seed=2, top_p=0.9)]
    streams, texts = [generator.stream("A", 60, seed=1), generator.stream("B", 60, seed=2, top_p=0.9)], ["", ""]
    between = generator.generate_batch(["C"] * 6, 2, seed=3), generator.score("between")
    with ThreadPoolExecutor(2) as pool:
        for count in range(60):
            pieces = list(pool.map(next, streams)) if count % 2 else list(map(next, streams))
            texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
            assert (generator.generate_batch(["C"] * 6, 2, seed=3), generator.score("between")) == between
    assert texts == alone


def test_an_abandoned_stream_blocks_nobody(generator):
    expected = generator.generate("ROMEO:", 50, seed=1)
    left = generator.stream("left in the middle", seed=1)
    next(left)
    texts = []
    other = threading.Thread(target=lambda: texts.append(generator.generate("ROMEO:", 50, seed=1)), daemon=True)
    other.start()
    other.join(60)
    assert texts == [expected]


def test_a_text_to_score_may_come_from_a_thread_that_uses_the_model(generator):
    """It is read while the score is under way: a lock held for the whole of a call would wait for itself."""

    def pieces():
        for seed in range(3):
            with ThreadPoolExecutor(1) as pool:
                yield pool.submit(generator.generate, "A", 20, seed=seed).result(60)

    written = "".join(generator.generate("A", 20, seed=seed) for seed in range(3))
    nats = generator.score(written).nats_per_character
    assert generator.score(pieces()).nats_per_character == pytest.approx(nats, rel=1e-12)  # summed up in other parts


def test_a_step_that_was_interrupted_leaves_the_model_as_it_was(generator, monkeypatch):
    """Ctrl-C may come while a batch is given its room."""
    expected = generator.generate("ROMEO:", 50, seed=1)

    def interrupt():
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(generator.step, "_bind", interrupt)
    with pytest.raises(KeyboardInterrupt):
        generator.generate_batch(["A"] * 6, 5, seed=1)
    assert generator.generate("ROMEO:", 50, seed=1) == expected
