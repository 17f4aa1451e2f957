"""A run as a SavedModel: what plain TensorFlow writes with it, and that it is whole or not there."""

import ctypes
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import reference
from configs import make_config

PROMPTS = ["The ", "A function", "x", "Raise an exception if the object is not", "\nclass"]
CHARACTERS = sorted(set("\n\t abcdeé漢😀\u0301\ufeff"))  # with marks that combine, and one that looks like a byte order mark
TEXTS = ["a", "\ufeffé漢😀e\u0301\n\tb", "abc", "dd"]

# Writes with a seed set and determinism asked for, as a program may have; then once more, and is killed while it verifies.
WRITE = """
import os, signal, sys
from pathlib import Path
import keras, tensorflow as tf
from charedge import export_saved_model

def die_verifying(report):
    if report.stage == "verifying":
        os.kill(os.getpid(), signal.SIGKILL)

keras.utils.set_random_seed(1)
tf.config.experimental.enable_op_determinism()
run, output = Path(sys.argv[1]), Path(sys.argv[2])
export_saved_model(run, output)
export_saved_model(run, output, progress=die_verifying)
"""
# The loop of TensorFlow's text generation tutorial, as it stands there behind `tf.saved_model.load`.
TUTORIAL = """
import sys
import tensorflow as tf

one_step_reloaded = tf.saved_model.load(sys.argv[1])
states = None
next_char = tf.constant(['ROMEO:'])
result = [next_char]

for n in range(100):
  next_char, states = one_step_reloaded.generate_one_step(next_char, states=states)
  result.append(next_char)

print(tf.strings.join(result)[0].numpy().decode("utf-8"))
"""
PLAIN_TENSORFLOW = """
import json, sys
sys.modules["charedge"] = sys.modules["keras"] = None  # importing either fails
import tensorflow as tf

def write(prompts, temperature):
    generator = tf.saved_model.load(sys.argv[1])
    text, states, written = tf.constant(prompts), generator.zero_states(len(prompts)), []
    for _ in range(100):
        text, states = generator.generate_one_step(text, states, temperature)
        written.append(text)
    return [row.decode() for row in tf.strings.reduce_join(written, axis=0).numpy()]

prompts = json.loads(sys.argv[2])
alone = [write([prompt], 0.0)[0] for prompt in prompts]
drawn = [write(prompts[:1], 1.0)[0] for _ in range(2)]
print(json.dumps({"batch": write(prompts, 0.0), "alone": alone, "drawn": drawn}))
"""


@pytest.fixture(scope="module")
def written(converted, tmp_path_factory):
    """The SavedModel of a trained run, as a process left it that was killed while it wrote the next one."""
    folder = tmp_path_factory.mktemp("saved") / "model"
    arguments = [sys.executable, "-u", "-c", WRITE, converted("float32").run, folder]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode == -signal.SIGKILL, result.stderr
    return SimpleNamespace(path=folder, stdout=result.stdout)


@pytest.fixture(scope="module")
def texts(written):
    """What plain TensorFlow generates with it, in a process of its own."""
    arguments = [sys.executable, "-c", PLAIN_TENSORFLOW, written.path, json.dumps(PROMPTS)]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    return SimpleNamespace(**json.loads(result.stdout))


@pytest.fixture(scope="module")
def make_run(tmp_path_factory):
    """A function that makes a run folder with random weights: `make_run(cell="lstm", layers=2)`."""

    def make(cell="gru", layers=1, unknown="skip", held_out_characters=1500):
        from charedge.runtime.vocabulary import Vocabulary
        from charedge.trainer.model import build_model
        from charedge.trainer.run import Run

        random = np.random.default_rng(0)
        vocabulary = Vocabulary.of(CHARACTERS)
        run = Run(tmp_path_factory.mktemp("run"))
        shape = {"cell": cell, "layers": layers, "units": 48, "embedding_dim": 16}
        config = make_config(**shape, dropout=0.0, weight_drop=0.0, normalization="NFD", unknown=unknown)
        run.write_config(config)
        (run.path / "vocabulary.txt").write_bytes(vocabulary.to_bytes())
        (run.path / "held_out.txt").write_text("".join(random.choice(CHARACTERS, held_out_characters)), encoding="utf-8")
        model = build_model(len(vocabulary), config)
        model.set_weights([random.normal(0, 0.5, weight.shape) for weight in model.get_weights()])
        model.save(run.model)
        return run

    return make


@pytest.fixture(scope="module")
def export(make_run, tmp_path_factory):
    """A function that writes (once) the SavedModel of such a run, and loads it."""
    made = {}

    def call(**options):
        key = repr(options)
        if key not in made:
            import tensorflow as tf
            from charedge.converter.read_run import read_weights
            from charedge.trainer.model import load_model

            from charedge import export_saved_model

            run, path = make_run(**options), tmp_path_factory.mktemp("exported") / "model"
            measured = export_saved_model(run, path)
            weights = read_weights(load_model(run), run.config())
            loaded = tf.saved_model.load(str(path))
            made[key] = SimpleNamespace(run=run, path=path, measured=measured, weights=weights, loaded=loaded)
        return made[key]

    return call


@pytest.fixture
def write(tmp_path):
    """A function that writes a run's SavedModel to a name in an empty folder."""

    def call(run, name="model", **options):
        from charedge import export_saved_model

        return export_saved_model(run, tmp_path / name, **options)

    return call


SHAPES = [{"cell": "gru"}, {"cell": "lstm", "layers": 2}]


def ids_of(text):
    return [1 + CHARACTERS.index(c) for c in text]


def expected_states(weights, ids_of_rows, before):
    return np.stack([reference.run_model(weights, ids, state)[1] for ids, state in zip(ids_of_rows, before, strict=True)])


def random_states(weights, rows):
    return np.random.default_rng(7).uniform(-1, 1, (rows, weights.state_size)).astype(np.float32)


def greedy(loaded, texts, states):
    characters, states = loaded.generate_one_step(texts, states, 0.0)
    return [c.decode() for c in characters.numpy()], states.numpy()


def test_plain_tensorflow_writes_what_the_tflite_file_writes(converted, charedge, texts):
    path = converted("float32").path
    options = ("--length", "100", "--temperature", "0", "--json")
    of_file = [json.loads(charedge("generate", path, "--prompt", prompt, *options).stdout)["texts"][0] for prompt in PROMPTS]
    assert texts.alone == of_file


def test_the_loop_of_tensorflows_tutorial_runs_as_it_is(written, fork_server):
    result = fork_server.run(["-c", TUTORIAL, written.path])
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("ROMEO:")
    assert len(result.stdout) == len("ROMEO:") + 100 + len("\n")


@pytest.mark.parametrize("shape", SHAPES, ids=["gru", "lstm"])
def test_without_states_a_text_begins_from_zeros(export, shape):
    made = export(**shape)
    zeros = made.loaded.zero_states(len(TEXTS))
    characters, states = greedy(made.loaded, TEXTS, zeros)
    found, after = made.loaded.generate_one_step(TEXTS, None, 0.0)
    assert [c.decode() for c in found.numpy()] == characters
    np.testing.assert_array_equal(after, states)


def test_without_a_temperature_characters_are_drawn_at_1(export):
    made, rows = export(**SHAPES[0]), 20_000
    characters, _ = made.loaded.generate_one_step(["ab"] * rows)
    counts = {token.decode(): count for token, count in zip(*np.unique(characters.numpy(), return_counts=True), strict=True)}
    probabilities = reference.distribution(reference.run_model(made.weights, ids_of("ab"))[0][-1], temperature=1.0)[1:]
    drawn = np.array([counts.get(c, 0) for c in CHARACTERS])
    allowed = 5 * np.sqrt(rows * probabilities * (1 - probabilities)) + 10
    assert (np.abs(drawn - rows * probabilities) <= allowed).all()


@pytest.mark.parametrize("given", ["positions", "names", "an integer", "tensors"])
def test_states_and_temperature_may_be_given_in_any_way(export, given):
    import tensorflow as tf

    made = export(**SHAPES[1])
    before = random_states(made.weights, 2)
    step = made.loaded.generate_one_step
    _, states = {
        "positions": lambda: step(["a", "bc"], before, 0.0),
        "names": lambda: step(inputs=tf.constant(["a", "bc"]), states=before, temperature=0.0),
        "an integer": lambda: step(["a", "bc"], states=tf.constant(before), temperature=0),
        "tensors": lambda: step(tf.constant(["a", "bc"]), tf.constant(before), tf.constant(0.0)),
    }[given]()
    np.testing.assert_allclose(states, expected_states(made.weights, [ids_of("a"), ids_of("bc")], before), atol=1e-5)


def test_a_batch_of_prompts_of_different_lengths_writes_what_each_writes_alone(texts):
    assert texts.batch == texts.alone


def test_every_load_draws_other_characters_whatever_the_seed_of_the_writer(texts):
    assert texts.drawn[0] != texts.drawn[1]


def test_nothing_goes_to_stdout(written):
    assert written.stdout == ""


def test_leftovers_of_a_killed_process_are_removed_and_the_old_folder_is_whole(written, export, make_run, tmp_path):
    import tensorflow as tf

    from charedge import export_saved_model

    shutil.copytree(written.path.parent, tmp_path, dirs_exist_ok=True)
    assert len(list(tmp_path.glob(".charedge-*"))) == 1
    assert tf.saved_model.load(str(tmp_path / "model")).normalization() == "NFC"
    export_saved_model(export(**SHAPES[0]).run, tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert tf.saved_model.load(str(tmp_path / "model")).normalization() == "NFD"


@pytest.mark.parametrize("shape", SHAPES, ids=["gru", "lstm"])
def test_a_rows_state_is_the_one_after_its_own_last_character(export, shape):
    made = export(**shape)
    before = random_states(made.weights, len(TEXTS))
    characters, states = greedy(made.loaded, TEXTS, before)
    np.testing.assert_allclose(states, expected_states(made.weights, map(ids_of, TEXTS), before), atol=1e-5)
    logits = [reference.run_model(made.weights, ids_of(text), state)[0][-1] for text, state in zip(TEXTS, before, strict=True)]
    assert characters == [CHARACTERS[np.argmax(row[1:])] for row in logits]


@pytest.mark.parametrize("shape", SHAPES, ids=["gru", "lstm"])
def test_step_gives_the_logits_after_every_token(export, shape):
    made = export(**shape)
    tokens = np.random.default_rng(2).integers(0, 1 + len(CHARACTERS), (3, 20)).astype(np.int32)
    before = random_states(made.weights, 3)
    outputs = made.loaded.step(tokens, before)
    expected = [reference.run_model(made.weights, row, state)[0] for row, state in zip(tokens, before, strict=True)]
    np.testing.assert_allclose(outputs["logits"], expected, atol=1e-4)
    np.testing.assert_allclose(outputs["states"], expected_states(made.weights, tokens, before), atol=1e-5)


def test_unknown_characters_and_broken_bytes_are_left_out(export):
    made = export(**SHAPES[0])
    before = random_states(made.weights, 3)
    _, states = greedy(made.loaded, [b"aZ~bc", b"\xffab\xf0\x9fc", "Ωabc".encode()], before)
    np.testing.assert_allclose(states, expected_states(made.weights, [ids_of("abc")] * 3, before), atol=1e-5)


def test_unknown_characters_are_fed_as_such_where_the_run_says_so(export):
    made = export(unknown="unk")
    before = random_states(made.weights, 2)
    _, states = greedy(made.loaded, ["aZ~b", "Ω"], before)
    a, b = ids_of("ab")
    np.testing.assert_allclose(states, expected_states(made.weights, [[a, 0, 0, b], [0]], before), atol=1e-5)


def test_a_row_with_nothing_known_is_fed_the_start_text(export):
    made = export(**SHAPES[0])
    for texts in (["", "Z", "ab"], ["", "Z", ""]):
        before = random_states(made.weights, 3)
        _, states = greedy(made.loaded, texts, before)
        fed = [ids_of("\n"), ids_of("\n"), ids_of(texts[2] or "\n")]
        np.testing.assert_allclose(states, expected_states(made.weights, fed, before), atol=1e-5)


@pytest.mark.parametrize("temperature", [0.7, 100.0])
def test_characters_are_drawn_from_the_softmax_and_never_the_unknown_token(export, temperature):
    made, rows = export(**SHAPES[0]), 20_000
    characters, _ = made.loaded.generate_one_step(["ab"] * rows, made.loaded.zero_states(rows), temperature)
    counts = {token.decode(): count for token, count in zip(*np.unique(characters.numpy(), return_counts=True), strict=True)}
    assert set(counts) <= set(CHARACTERS)
    logits = reference.run_model(made.weights, ids_of("ab"))[0][-1]
    probabilities = reference.distribution(logits, temperature=temperature)[1:]
    drawn = np.array([counts.get(c, 0) for c in CHARACTERS])
    allowed = 5 * np.sqrt(rows * probabilities * (1 - probabilities)) + 10
    assert (np.abs(drawn - rows * probabilities) <= allowed).all()


@pytest.mark.parametrize("temperature", [-0.1, float("nan"), float("inf")])
def test_an_invalid_temperature_is_refused(export, temperature):
    import tensorflow as tf

    loaded = export(**SHAPES[0]).loaded
    with pytest.raises(tf.errors.InvalidArgumentError, match="temperature must be"):
        loaded.generate_one_step(["a"], loaded.zero_states(1), temperature)


def test_the_signatures_do_what_the_functions_do(export):
    import tensorflow as tf

    made = export(**SHAPES[1])
    before = random_states(made.weights, len(TEXTS))
    serve = made.loaded.signatures["serving_default"]
    outputs = serve(inputs=tf.constant(TEXTS), states=tf.constant(before), temperature=tf.constant(0.0))
    characters, states = greedy(made.loaded, TEXTS, before)
    assert set(outputs) == {"characters", "states"}
    assert [c.decode() for c in outputs["characters"].numpy()] == characters
    np.testing.assert_array_equal(outputs["states"], states)
    tokens = tf.constant([ids_of("abc")] * 4)
    outputs = made.loaded.signatures["step"](tokens=tokens, states=tf.constant(before))
    np.testing.assert_array_equal(outputs["logits"], made.loaded.step(tokens, before)["logits"])


def test_it_says_its_vocabulary_and_normalisation_and_where_a_text_begins(export):
    made = export(**SHAPES[1])
    assert [token.decode() for token in made.loaded.vocabulary().numpy()] == ["[UNK]", *CHARACTERS]
    assert made.loaded.normalization().numpy() == b"NFD"
    np.testing.assert_array_equal(made.loaded.zero_states(3), np.zeros((3, 2 * 2 * 48), np.float32))


@pytest.mark.parametrize("shape", SHAPES, ids=["gru", "lstm"])
def test_the_measured_figures_are_printed(export, shape):
    made = export(**shape)
    ids = ids_of((made.run.path / "held_out.txt").read_text(encoding="utf-8")[:1000])
    assert made.measured.folder == str(made.path)
    assert made.measured.characters == 1000
    assert made.measured.nats_per_character == pytest.approx(reference.nats_per_character(made.weights, np.array(ids)), abs=1e-4)
    assert 0 <= made.measured.largest_logit_difference < 1e-4
    assert made.measured.bytes == sum(file.stat().st_size for file in made.path.rglob("*") if file.is_file())


def test_a_short_held_out_text_is_enough_and_an_empty_one_is_refused(make_run, write, tmp_path):
    from charedge.runtime.errors import CharedgeError

    assert write(make_run(held_out_characters=130)).characters == 130
    with pytest.raises(CharedgeError, match=r"has no text in its held_out\.txt"):
        write(make_run(held_out_characters=1), "other")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


@pytest.mark.parametrize("system", ["swaps", "cannot swap"])
def test_a_saved_model_in_the_place_is_replaced(export, write, tmp_path, monkeypatch, system):
    import tensorflow as tf

    rmtree, whole = shutil.rmtree, []

    def remove_and_look(path, **options):
        rmtree(path, **options)
        whole.append((tmp_path / "model" / "saved_model.pb").is_file())

    monkeypatch.setattr(shutil, "rmtree", remove_and_look)
    if system == "cannot swap":
        monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(renameat2=lambda *_: -1))
    write(export(**SHAPES[0]).run)
    (tmp_path / "model" / "assets.extra").mkdir()
    write(export(**SHAPES[1]).run)
    assert tf.saved_model.load(str(tmp_path / "model")).zero_states(1).shape == (1, 2 * 2 * 48)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert not (tmp_path / "model" / "assets.extra").exists()
    assert whole == [True, True]


def test_an_empty_folder_and_a_link_are_places_to_write_to(export, write, tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "link").symlink_to("model")
    write(export(**SHAPES[0]).run)
    first = (tmp_path / "model" / "saved_model.pb").stat().st_ino
    write(export(**SHAPES[0]).run, "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "model" / "saved_model.pb").stat().st_ino != first
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "model"]


def test_what_is_not_a_saved_model_is_refused_and_stays(export, write, tmp_path):
    from charedge.runtime.errors import CharedgeError

    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "diary.txt").write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    for name, match in (
        ("file", r"`output` .*file is a file: give"),
        ("folder", r"`output` .*folder is a folder that holds no SavedModel .*: choose"),
        ("file/model", r"`output` .*model cannot be written, .*file is not a folder: choose"),
        ("n" * 256, r"`output` .*n cannot be written \(File name too long\): choose"),
    ):
        with pytest.raises(CharedgeError, match=match):
            write(export(**SHAPES[0]).run, name)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "folder" / "diary.txt").read_text() == "mine"


@pytest.mark.parametrize("limit", [30_000, 100_000], ids=["in the weights", "in the graph"])
def test_a_full_disk_is_one_sentence_and_the_old_one_stays(export, write, tmp_path, limit):
    from charedge.runtime.errors import CharedgeError

    write(export(**SHAPES[0]).run)
    before = {path: path.stat().st_ino for path in tmp_path.rglob("*")}
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))  # larger files are refused, as where the disk is full
    try:
        with pytest.raises(CharedgeError, match=r"`output` \S*model cannot be written \(File too large\): choose another place\.$"):
            write(export(**SHAPES[0]).run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert {path: path.stat().st_ino for path in tmp_path.rglob("*")} == before


def test_one_that_differs_from_keras_is_not_put_in_place(export, write, tmp_path, monkeypatch):
    import tensorflow as tf
    from charedge.runtime.errors import CharedgeError

    save = tf.saved_model.save

    def save_something_else(module, path, **options):
        save(module, path, **options)
        module.parameters[0].assign_add(tf.ones_like(module.parameters[0]))  # Keras continues with these

    monkeypatch.setattr(tf.saved_model, "save", save_something_else)
    with pytest.raises(CharedgeError, match="was not written: its logits differ by"):
        write(export(**SHAPES[0]).run)
    assert list(tmp_path.iterdir()) == []


def test_an_interrupt_leaves_nothing(export, write, tmp_path):
    def interrupt(report):
        if report.stage == "verifying":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write(export(**SHAPES[0]).run, progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_only_leftovers_of_a_killed_conversion_are_removed(export, write, tmp_path):
    leftover, kept = f".charedge-{'0' * 16}.partial", {".model.20231224", f".model.{os.getpid()}", ".model.backup"}
    for name in (leftover, *kept):
        (tmp_path / name / "variables").mkdir(parents=True)
    write(export(**SHAPES[0]).run)
    assert {path.name for path in tmp_path.iterdir()} == {"model", *kept}
