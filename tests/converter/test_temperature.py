"""`charedge convert --fit-temperature`: the logits divided by one number, found on the held-out text."""

import json

import numpy as np
import pytest
import reference


def loss(logits, targets, temperature):
    return -reference.log_softmax(logits / temperature)[np.arange(len(targets)), targets].mean()


@pytest.mark.parametrize("right", [0.6, 1.0, 1.7])
def test_the_temperature_is_the_one_of_least_loss(right):
    """Targets are drawn from logits, which are then given too large or too small."""
    from charedge.converter.temperature import fit_temperature

    random = np.random.default_rng(3)
    logits = random.normal(0, 2, (20_000, 11)).astype(np.float32)
    targets = np.array([random.choice(11, p=np.exp(row)) for row in reference.log_softmax(logits)])
    logits *= right
    found = fit_temperature(logits, targets)
    assert found == pytest.approx(right, rel=0.05)
    assert loss(logits, targets, found) <= min(loss(logits, targets, found * factor) for factor in (0.98, 0.999, 1.001, 1.02))


@pytest.mark.parametrize("sign", [1, -1])
def test_the_temperature_stays_within_bounds(sign):
    """Logits that are always right want to be infinite, ones that are always wrong to vanish."""
    from charedge.converter.temperature import fit_temperature

    targets = np.arange(50) % 3
    found = fit_temperature((sign * 5 * np.eye(3)[targets]).astype(np.float32), targets)
    assert found == pytest.approx({1: 0.25, -1: 4.0}[sign])


@pytest.fixture(scope="module")
def fitted(train, process, tmp_path_factory):
    """A file of an overtrained run as it is, one with its temperature fitted, and what was printed."""
    folder, run = tmp_path_factory.mktemp("fitted"), train("--epochs", "30", "--units", "96").path
    results = {}
    for name, options in {"plain": (), "fitted": ("--fit-temperature",)}.items():
        results[name] = process("convert", run, "--output", folder / f"{name}.tflite", "--quantization", "float32", *options)
        assert results[name].returncode == 0, results[name].stderr
    return run, folder, results


def logits_of(path, text):
    from charedge.runtime.interpreter import Step
    from charedge.runtime.model_file import read_model_file

    contents = read_model_file(path)
    step, logits = Step.load(contents), []
    state = step.zeros()
    ids = contents.vocabulary.encode(text)
    for token in ids[:-1]:
        row, state = step(np.array([token], np.int32), state)
        logits.append(row[0].copy())
    return np.array(logits), ids[1:]


def test_the_files_logits_are_divided_and_predict_the_held_out_text_better(fitted):
    run, folder, results = fitted
    text = (run / "held_out.txt").read_text(encoding="utf-8")
    plain, targets = logits_of(folder / "plain.tflite", text)
    divided, _ = logits_of(folder / "fitted.tflite", text)
    temperature = float(results["fitted"].stderr.split("dividing the logits by ")[1].split(":")[0])
    np.testing.assert_allclose(divided, plain / temperature, rtol=1e-3, atol=2e-3)
    assert loss(divided, targets, 1) < loss(plain, targets, 1) - 0.001
    assert loss(divided, targets, 1) <= min(loss(plain, targets, t) for t in np.arange(0.5, 3, 0.05)) + 0.001


def test_the_file_says_what_its_logits_were_divided_by_and_is_measured_against_the_same(fitted, charedge):
    _, folder, results = fitted
    manifest = json.loads(charedge("info", folder / "fitted.tflite", "--json").stdout)
    assert f"by {manifest['training']['logits_divided_by']:.3f}:" in results["fitted"].stderr
    assert "logits_divided_by" not in json.loads(charedge("info", folder / "plain.tflite", "--json").stdout)["training"]
    for verified in manifest["verified"]:
        assert verified["nats_per_character"] == pytest.approx(verified["reference_nats_per_character"], abs=1e-3)


def test_a_saved_model_is_divided_too(fitted, process, tmp_path):
    import tensorflow as tf

    run, folder, _ = fitted
    result = process("convert", run, "--format", "saved-model", "--fit-temperature", "--output", tmp_path / "saved")
    assert result.returncode == 0, result.stderr
    text = (run / "held_out.txt").read_text(encoding="utf-8")[:50]
    expected, _ = logits_of(folder / "fitted.tflite", text)
    loaded = tf.saved_model.load(str(tmp_path / "saved"))
    ids = [token.decode() for token in loaded.vocabulary().numpy()]
    tokens = tf.constant([[ids.index(character) for character in text[:-1]]])
    np.testing.assert_allclose(loaded.step(tokens, loaded.zero_states(1))["logits"][0], expected, atol=1e-3)
