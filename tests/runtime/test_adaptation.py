"""A model that adapts to what it reads: the figures of numpy, in float64, from the formula of docs/adaptation.md."""

import base64
import json
import zlib

import numpy as np
import pytest
import reference

from charedge import CharedgeError, InvalidOption, load

RATE = 0.0002
SHAPES = [{}, {"layers": 2}, {"cell": "lstm", "layers": 2}]


@pytest.fixture(scope="module")
def generator(model):
    return load(model.path)


@pytest.fixture(scope="module")
def prompt(model):
    """Longer than several blocks and decays, and not a multiple of either."""
    return model.vocabulary.decode(model.held_out)[:205]


def hidden_states(weights, ids):
    """The last layer's h after each id, from the states of the whole model."""
    state, states = None, []
    for token in ids:
        _, state = reference.run_model(weights, [token], state)
        units = weights.output_kernel.shape[0]
        states.append(state[-units:] if weights.cell == "gru" else state[-2 * units : -units])
    return np.array(states)


class Adapted:
    """The adaptation one character at a time: logits + D h, an outer product, and from time to time a decay and other rates."""

    def __init__(self, weights, rate=RATE):
        self.weights, self.rate, self.errors, self.ended = weights, rate, [], 0
        self.matrix = np.zeros(weights.output_kernel.shape[::-1])

    def learn(self, logits, hidden, target):
        """Returns the nats of the prediction."""
        size, read = len(logits), len(self.errors)
        if read % 16 == 0:
            self.prompt_ended()
        rates = self.rate / np.sqrt((np.sum(np.square(self.errors[: self.ended]), axis=0) + 64 / size) / (self.ended + 64) + 0.0003)
        shares = reference.log_softmax((logits + self.matrix @ hidden)[None])[0]
        self.errors.append(np.eye(size)[target] - np.exp(shares))
        self.matrix += np.outer(rates * self.errors[-1], hidden)
        if len(self.errors) % 64 == 0:
            self.matrix *= 0.998
        return -shares[target]

    def prompt_ended(self):
        self.ended = len(self.errors)

    def read(self, ids):
        """Score and learn a text; returns the nats of each prediction."""
        logits, _ = reference.run_model(self.weights, ids)
        hidden = hidden_states(self.weights, ids)
        return np.array([self.learn(logits[i], hidden[i], target) for i, target in enumerate(ids[1:])])

    def greedy(self, ids, length):
        """Write the most likely characters after a text, and learn nothing from them."""
        self.read(ids)
        self.prompt_ended()
        ids, start = list(ids), len(ids)
        for _ in range(length):
            logits, _ = reference.run_model(self.weights, ids)
            adapted = logits[-1] + self.matrix @ hidden_states(self.weights, ids)[-1]
            ids.append(1 + int(adapted[1:].argmax()))
        return ids[start:]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rate", [0.005, 0.05])
def test_the_score_is_what_numpy_finds(models, shape, rate):
    made = models(**shape)
    ids = made.held_out[:205]
    scored = load(made.path).score(made.vocabulary.decode(ids), adapt=True, adapt_rate=rate)
    nats = Adapted(made.weights, rate).read(ids)
    assert scored.nats_per_character == pytest.approx(nats.mean(), abs=1e-5)
    assert abs(reference.nats_per_character(made.weights, ids) - nats.mean()) > 1e-4
    assert scored.adapted


@pytest.mark.parametrize("shape", SHAPES[1:], ids=str)
def test_the_text_is_what_numpy_finds_and_nothing_is_learned_from_it(models, shape):
    made = models(**shape)
    ids = made.held_out[:100]
    text = load(made.path).generate(made.vocabulary.decode(ids), 30, temperature=0, adapt=True, adapt_rate=0.05)
    assert text == made.vocabulary.decode(Adapted(made.weights, 0.05).greedy(ids, 30))
    assert text != load(made.path).generate(made.vocabulary.decode(ids), 30, temperature=0)


def test_a_repetitive_text_becomes_predictable(generator):
    text = "abcdefgh" * 200
    assert generator.score(text, adapt=True, adapt_rate=0.01).nats_per_character < generator.score(text).nats_per_character / 2


def test_it_is_off_unless_asked_for(generator, prompt):
    assert generator.score(prompt) == generator.score(prompt, adapt=False, adapt_rate=1)
    assert not generator.score(prompt).adapted
    assert generator.generate(prompt, 40, seed=1) == generator.generate(prompt, 40, seed=1, adapt=False)
    assert generator.generate(prompt, 40, seed=1) != generator.generate(prompt, 40, seed=1, adapt=True, adapt_rate=0.01)


def test_calls_do_not_learn_from_each_other(generator, prompt):
    before = generator.score(prompt), generator.score(prompt, adapt=True)
    generator.generate(prompt, 5, adapt=True)
    assert (generator.score(prompt), generator.score(prompt, adapt=True)) == before


@pytest.mark.parametrize("size", [1, 7, 16, 64, 100])
def test_pieces_are_the_whole(generator, prompt, size):
    pieces = [prompt[i : i + size] for i in range(0, len(prompt), size)]
    whole = generator.score(prompt, adapt=True).nats_per_character
    assert generator.score(iter(pieces), adapt=True).nats_per_character == pytest.approx(whole, abs=1e-12)
    options = {"seed": 1, "adapt": True, "adapt_rate": 0.01}
    assert generator.generate(iter(pieces), 60, **options) == generator.generate(prompt, 60, **options)


@pytest.mark.parametrize("controls", [{}, {"stop": ["qq", "e"]}, {"top_p": 0.9}], ids=str)
def test_rows_of_a_batch_are_the_texts_alone(generator, prompt, controls):
    prompts = [prompt, "", prompt[:30], "A"]
    controls = {"adapt": True, "adapt_rate": 0.01, **controls}
    rows = generator.generate_batch(prompts, 60, seed=2, **controls)
    for number in range(4):
        others = [*["", *prompts][:number], prompts[number]]
        assert rows[number] == generator.generate_batch(others, 60, seed=2, **controls)[number]
    assert rows[0] == generator.generate(prompt, 60, seed=2, **controls)


@pytest.mark.parametrize("shape", [{"quantization": "int8"}, SHAPES[2]], ids=str)
@pytest.mark.parametrize("controls", [{}, {"repetition_penalty": 1.3}], ids=str)
def test_a_session_in_parts_is_the_text_uninterrupted(models, tmp_path, shape, controls):
    made, session = models(**shape), tmp_path / "session.json"
    prompt, generator = made.vocabulary.decode(made.held_out), load(made.path)
    first = {"seed": 7, "adapt": True, "adapt_rate": 0.01, **controls}
    text = generator.generate(prompt, 1, session=session, **first)
    for length, adapt in ((9, True), (64, False), (30, True)):
        text += generator.generate("", length, session=session, adapt=adapt, **controls)
    assert text == generator.generate(prompt, 104, **first)


def test_a_session_learns_what_is_added_to_it(models, tmp_path):
    """The prompt's first character too, which the text before it predicts."""
    made, session = models(), tmp_path / "session.json"
    generator, reader = load(made.path), Adapted(made.weights, 0.005)
    first, second = made.held_out[:50], made.held_out[60:130]
    options = {"temperature": 0, "session": session, "adapt": True, "adapt_rate": 0.005}
    written = made.vocabulary.encode(generator.generate(made.vocabulary.decode(first), 20, **options))
    more = generator.generate(made.vocabulary.decode(second), 20, **options)
    assert written.tolist() == reader.greedy(first, 20)
    ids = np.concatenate([first, written, second])
    logits, _ = reference.run_model(made.weights, ids)
    hidden = hidden_states(made.weights, ids)
    for i in range(len(ids) - len(second) - 1, len(ids) - 1):
        reader.learn(logits[i], hidden[i], ids[i + 1])
    saved = json.loads(session.read_text())["adaptation"]
    data, size = zlib.decompress(base64.b64decode(saved["arrays"])), 4 * reader.matrix.size
    np.testing.assert_allclose(np.frombuffer(data[:size], np.float32), reader.matrix.ravel(), atol=1e-5)
    np.testing.assert_allclose(np.frombuffer(data[size:]), np.sum(np.square(reader.errors), axis=0), rtol=1e-5)
    assert saved["characters"] == 49 + 70
    assert len(more) == 20


def test_a_session_without_adapt_uses_what_was_learned_and_learns_nothing_more(generator, prompt, tmp_path):
    session = tmp_path / "session.json"
    generator.generate(prompt, 5, seed=1, session=session, adapt=True)
    learned = json.loads(session.read_text())["adaptation"]
    generator.generate("More to read. " * 20, 5, session=session)
    assert json.loads(session.read_text())["adaptation"] == learned


def test_a_session_that_never_adapted_is_as_before(generator, tmp_path):
    session = tmp_path / "session.json"
    generator.generate("Hello", 5, seed=1, session=session)
    assert json.loads(session.read_text()).keys() == {
        *("model_sha256", "token", "state", "position", "tail", "format_version", "sha256")
    }
    generator.generate(" World", 5, session=session, adapt=True)
    assert "adaptation" in json.loads(session.read_text())


def test_a_forged_matrix_is_damage(generator, prompt, tmp_path):
    from charedge.runtime.session import _digest

    session = tmp_path / "session.json"
    generator.generate(prompt, 5, seed=1, session=session, adapt=True)
    body = json.loads(session.read_text())
    data = zlib.decompress(base64.b64decode(body["adaptation"]["arrays"]))
    columns, size = np.frombuffer(data, np.float32), len(data)  # of the matrix, and then float64

    def packed(data):
        return base64.b64encode(zlib.compress(data)).decode()

    floats = [np.where(np.arange(len(columns)) == 0, value, columns).astype(np.float32) for value in (3e6, np.nan, -np.inf)]
    squares = [columns[:-2].tobytes() + np.float64(value).tobytes() for value in (-1, 1e9, np.nan, np.inf)]
    forged = [
        *({"arrays": value} for value in (None, 5, "", "no base64!", base64.b64encode(b"no zlib").decode(), packed(b""))),
        *({"arrays": packed(data)} for data in (bytes(size - 4), bytes(size + 4), bytes(100_000_000))),
        *({"arrays": packed(data)} for data in [*(array.tobytes() for array in floats), *squares]),
        {"arrays": body["adaptation"]["arrays"][:-8]},
        *({"characters": value} for value in (-1, 2**53 + 1, 0, True, 1.0, None)),
        {"other": 1},
    ]
    for change in [*({**body["adaptation"], **fields} for fields in forged), None, [], {}]:
        changed = {**body, "adaptation": change}
        changed.pop("sha256")
        session.write_text(json.dumps({**changed, "sha256": _digest(changed)}))
        with pytest.raises(CharedgeError, match="is damaged: delete it"):
            generator.generate("", 5, session=session)


@pytest.mark.parametrize("rate", [0, -1, 1.1, float("nan"), float("inf"), "fast", None])
@pytest.mark.parametrize("adapt", [True, False])
def test_a_rate_that_is_none_is_refused_by_the_call(generator, rate, adapt):
    for call in (generator.stream, generator.score, lambda text, **options: generator.generate_batch([text], **options)):
        with pytest.raises(InvalidOption, match="adapt_rate"):
            call("Hello", adapt=adapt, adapt_rate=rate)


@pytest.mark.parametrize("rate", [1e-30, 1])
def test_extremes_stay_finite(generator, prompt, rate):
    """One character very often, whose prediction cannot get better, and after it a text that is nothing like it."""
    scored = generator.score("a" * 10_000 + prompt, adapt=True, adapt_rate=rate)
    assert np.isfinite(scored.nats_per_character)
    text = generator.generate("ab" * 2_000 + prompt, 50, seed=1, adapt=True, adapt_rate=rate)
    assert len(text) == 50


def test_a_vocabulary_that_is_too_large_is_refused(models, charedge, monkeypatch):
    made = models()
    monkeypatch.setattr("charedge.runtime.adaptation.MAX_BYTES", 5000)
    sentence = r"`adapt` needs .* MiB \(60 x 24 float32 numbers for 1 text\), more than the .* it may use: leave it out\."
    for call in (load(made.path).stream, load(made.path).score):
        with pytest.raises(InvalidOption, match=sentence):
            call("Hello", adapt=True)
    assert charedge("generate", made.path, "--prompt", "Hello", "--adapt").status == 2


def test_more_texts_than_the_memory_holds_are_refused(generator, monkeypatch):
    monkeypatch.setattr("charedge.runtime.adaptation.MAX_BYTES", 20_000)
    with pytest.raises(InvalidOption, match=r"for 4 texts.* or give fewer texts at once"):
        generator.generate_batch(["a", "b", "c", "d"], 5, adapt=True)
    assert len(generator.generate_batch(["a", "b"] * 5, 5, adapt=True)) == 10  # the same prompts learn once


def test_a_scorer_learns_from_text_to_text_and_each_starts_from_zeros(models):
    made = models()
    score, reader = load(made.path).scorer(adapt=True, adapt_rate=0.005), Adapted(made.weights, 0.005)
    for first, last in ((0, 40), (40, 90), (0, 40), (90, 300)):
        ids = made.held_out[first:last]
        nats = reader.read(ids)
        assert score(made.vocabulary.decode(ids)).nats_per_character == pytest.approx(nats.mean(), abs=1e-5)


def test_the_command_line_says_whether_a_figure_is_adapted(model, generator, prompt, charedge, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text(prompt)
    plain = json.loads(charedge("score", model.path, text, "--json").stdout)
    fields = json.loads(charedge("score", model.path, text, "--json", "--adapt", "--adapt-rate", "0.005").stdout)
    assert (plain["adapted"], fields["adapted"]) == (False, True)
    assert fields["nats_per_character"] == generator.score(prompt, adapt=True, adapt_rate=0.005).nats_per_character
    default = json.loads(charedge("score", model.path, text, "--json", "--adapt").stdout)
    assert default["nats_per_character"] == generator.score(prompt, adapt=True).nats_per_character
    assert "adapted" not in charedge("score", model.path, text).stdout
    assert charedge("score", model.path, text, "--adapt").stdout.endswith("carried, adapted while reading\n")
    assert charedge("score", model.path, text, "--adapt", "--adapt-rate", "0").stderr.startswith("charedge: --adapt-rate 0")
    for command in (("score", model.path, text), ("generate", model.path)):
        for rate in ("0.01", "0.0002"):
            alone = charedge(*command, "--adapt-rate", rate)
            assert (alone.status, "--adapt-rate has no effect without --adapt" in alone.stderr) == (2, True)
    written = json.loads(charedge("generate", model.path, "--prompt-file", text, "--adapt", "--seed", "3", "--json").stdout)
    assert (written["adapted"], written["texts"]) == (True, [generator.generate(prompt, seed=3, adapt=True)])


@pytest.mark.parametrize(("options", "learned"), [(("--prompt", "A"), False), ((), False), (("--prompt", "All"), True)])
def test_it_is_said_if_nothing_was_learned(model, process, options, learned):
    result = process("generate", model.path, "--adapt", "--length", "5", *options)
    assert ("--adapt has learned nothing" in result.stderr, result.returncode) == (not learned, 0)


def test_lines_are_scored_across_lines(model, generator, charedge, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("Hello World\nx\nHello World\nHello World")
    score = generator.scorer(adapt=True)
    nats = [score("Hello World").nats_per_character for _ in range(3)]
    assert nats == sorted(nats, reverse=True)
    printed = charedge("score", model.path, text, "--lines", "--adapt")
    assert printed.stdout.splitlines()[::2] == [f"{nats[0]:.4f}\tHello World", f"{nats[1]:.4f}\tHello World"]
    assert "adapted" in printed.stderr
    entries = map(json.loads, charedge("score", model.path, text, "--lines", "--adapt", "--json").stdout.splitlines())
    unknown = tmp_path / "unknown.txt"
    unknown.write_text("Hello漢\nWorld字\nHello漢\n")
    once = charedge("score", model.path, unknown, "--lines")
    assert (once.status, once.stderr.count("does not know"), "漢" in once.stderr, "字" in once.stderr) == (0, 1, True, True)
    assert [(entry["adapted"], entry["nats_per_character"]) for entry in entries] == [
        *((True, value) for value in (nats[0], None, nats[1], nats[2])),
    ]
