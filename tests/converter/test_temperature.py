"""The logits divided by one number, which `charedge convert --fit-temperature` finds and `--logit-temperature` takes."""

import json
import re
import shutil
import tracemalloc

import numpy as np
import pytest
import reference

GIVEN = 1.37


def loss(logits, targets, temperature):
    return -reference.log_softmax(logits / temperature)[np.arange(len(targets)), targets].mean()


def best(logits, targets):
    """The best temperature from 1/4 to 4, by ternary search: the loss is convex in its inverse."""
    low, high = 0.25, 4.0
    for _ in range(25):
        first, second = low + (high - low) / 3, high - (high - low) / 3
        if loss(logits, targets, 1 / first) < loss(logits, targets, 1 / second):
            high = second
        else:
            low = first
    return 2 / (low + high)


def drawn(random, length, size, spread=2.0):
    """Logits and targets that are drawn from them."""
    logits = random.normal(0, spread, (length, size)).astype(np.float32)
    return logits, (logits + random.gumbel(size=logits.shape)).argmax(axis=1)  # Gumbel-max


@pytest.mark.parametrize("size", [2, 11, 300])
@pytest.mark.parametrize("right", [0.6, 1.7])
def test_the_temperature_is_the_one_of_least_loss(right, size):
    """Targets are drawn from logits, which are then given too large or too small, in parts of any length."""
    from charedge.converter.temperature import best_temperature

    logits, targets = drawn(np.random.default_rng(3), 4_001, size)
    logits *= right
    fit = best_temperature(np.split(logits, [1, 1500, 1500, 2700]), targets)
    assert fit.temperature == pytest.approx(right, rel=0.1)
    assert fit.temperature == pytest.approx(best(logits, targets), rel=0.002)
    assert fit.before == pytest.approx(loss(logits, targets, 1), abs=1e-5)
    assert fit.after == pytest.approx(loss(logits, targets, fit.temperature), abs=1e-5)
    first, second = (logits[:2000], targets[:2000]), (logits[2000:], targets[2000:])
    unseen = 2000 * loss(*first, best(*second)) + 2001 * loss(*second, best(*first))
    assert fit.unseen == pytest.approx(unseen / 4001, abs=5e-5)


@pytest.mark.parametrize("sign", [1, -1])
def test_the_temperature_stays_within_bounds(sign):
    """Logits that are always right want to be infinite, ones that are always wrong to vanish."""
    from charedge.converter.temperature import best_temperature

    targets = np.arange(50) % 3
    fit = best_temperature([(sign * 5 * np.eye(3)[targets]).astype(np.float32)], targets)
    assert fit.temperature == pytest.approx({1: 0.25, -1: 4.0}[sign], rel=0.05)  # the loss is 1e-8 there


def test_no_temperature_is_taken_that_does_not_help_on_text_it_was_not_fitted_on():
    """Halves that want opposite temperatures: the best for both together gains on them, and tells nothing of a third."""
    from charedge.converter.temperature import best_temperature

    logits, targets = drawn(np.random.default_rng(4), 2_000, 9)
    logits[:1000] *= 0.6
    logits[1000:] *= 3
    assert loss(logits, targets, best(logits, targets)) < loss(logits, targets, 1) - 0.05
    fit = best_temperature([logits], targets)
    assert fit.temperature == 1
    assert fit.unseen > fit.before


def test_a_temperature_fitted_on_a_short_text_helps_on_both_halves():
    from charedge.converter.temperature import best_temperature

    random, fitted = np.random.default_rng(6), 0
    for _ in range(60):
        logits, targets = drawn(random, random.integers(2, 60), 5)
        logits *= random.choice([0.8, 1.0, 1.2])
        fit, half = best_temperature([logits], targets), len(targets) // 2
        if fit.temperature != 1:
            fitted += 1
            first, second = (logits[:half], targets[:half]), (logits[half:], targets[half:])
            assert loss(*first, best(*second)) < loss(*first, 1) + 1e-4
            assert loss(*second, best(*first)) < loss(*second, 1) + 1e-4
    assert 5 < fitted < 55


@pytest.mark.parametrize("length", [1, 2])
def test_a_text_that_is_too_short_to_check_is_left_alone(length):
    from charedge.converter.temperature import best_temperature

    logits = np.array([[3.0, 0.0], [0.0, -3.0]], np.float32)[:length]
    assert best_temperature([logits], np.array([0, 1])[:length]).temperature == 1


def test_logits_that_are_not_finite_are_left_alone():
    from charedge.converter.temperature import best_temperature

    logits, targets = drawn(np.random.default_rng(3), 100, 5)
    logits[70] = np.nan
    assert best_temperature([3 * logits], targets).temperature == 1


def test_memory_does_not_grow_with_the_text():
    from charedge.converter.temperature import best_temperature

    def peak(parts):
        logits, targets = drawn(np.random.default_rng(1), 500, 200)
        tracemalloc.start()
        best_temperature((logits.copy() for _ in range(parts)), np.tile(targets, parts))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak(40) < peak(2) + 500_000


@pytest.fixture(scope="module")
def fitted(train, process, tmp_path_factory):
    """Files of an overtrained run: as it is, with its temperature fitted, with a given one; and what was printed."""
    folder, run = tmp_path_factory.mktemp("fitted"), train("--epochs", "8", "--units", "96", "--learning-rate", "0.03").path
    results = {}
    every = {"plain": (), "fitted": ("--fit-temperature",), "given": ("--logit-temperature", GIVEN)}
    for name, options in every.items():
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
    temperature = float(results["fitted"].stderr.split("dividing the logits by ")[1].split(",")[0])
    np.testing.assert_allclose(divided, plain / temperature, rtol=1e-3, atol=2e-3)
    assert loss(divided, targets, 1) < loss(plain, targets, 1) - 0.001
    assert loss(divided, targets, 1) <= loss(plain, targets, best(plain, targets)) + 1e-4


def crossed(logits, targets):
    """The loss of each half at the temperature that is best for the other half."""
    half = len(targets) // 2
    first, second = (logits[:half], targets[:half]), (logits[half:], targets[half:])
    return (half * loss(*first, best(*second)) + (len(targets) - half) * loss(*second, best(*first))) / len(targets)


def test_the_loss_that_is_printed_is_over_text_that_the_temperature_was_not_fitted_on(fitted, charedge):
    run, folder, results = fitted
    text = (run / "held_out.txt").read_text(encoding="utf-8")
    plain, targets = logits_of(folder / "plain.tflite", text)
    line = results["fitted"].stderr.split("dividing the logits by ")[1].splitlines()[0]
    assert f"fitted on the first {len(text):,} held-out characters" in line
    before, after = map(float, line.split(": ")[1].split(" nats")[0].split(" -> "))
    assert before == pytest.approx(loss(plain, targets, 1), abs=2e-4)
    assert after == pytest.approx(crossed(plain, targets), abs=2e-4)
    outputs = [results["fitted"].stdout, charedge("info", folder / "fitted.tflite").stdout]
    where_it_was_fitted = loss(logits_of(folder / "fitted.tflite", text)[0], targets, 1)
    assert where_it_was_fitted < crossed(plain, targets) - 2e-4
    for output in outputs:
        losses = [float(number) for number in re.findall(r"\b\d+\.\d{4}(?= nats)", output)]
        assert pytest.approx(crossed(plain, targets), abs=2e-4) in losses
        assert pytest.approx(where_it_was_fitted, abs=1e-4) not in [float(n) for n in re.findall(r"\b\d+\.\d{4}\b", output)]


def test_the_file_records_what_its_temperature_was_fitted_on(fitted, charedge):
    run, folder, results = fitted
    text = (run / "held_out.txt").read_text(encoding="utf-8")
    plain, targets = logits_of(folder / "plain.tflite", text)
    manifest = json.loads(charedge("info", folder / "fitted.tflite", "--json").stdout)
    temperature = manifest["logit_temperature"]
    assert f"dividing the logits by {temperature['value']:.3f}," in results["fitted"].stderr
    assert temperature["value"] == pytest.approx(best(plain, targets), rel=0.002)
    assert temperature["fit"]["characters"] == len(text)
    assert temperature["fit"]["cross_validated_nats_per_character"] == pytest.approx(crossed(plain, targets), abs=2e-4)
    assert temperature["fit"]["undivided_nats_per_character"] == pytest.approx(loss(plain, targets, 1), abs=2e-4)
    assert "logit_temperature" not in json.loads(charedge("info", folder / "plain.tflite", "--json").stdout)
    for verified in manifest["verified"]:
        assert verified["nats_per_character"] == pytest.approx(verified["reference_nats_per_character"], abs=1e-3)
    rows = charedge("info", folder / "fitted.tflite").stdout
    assert f"logits divided by {temperature['value']:.4f}, fitted on the first {len(text):,} held-out characters" in rows
    assert f"{temperature['fit']['cross_validated_nats_per_character']:.4f} nats per character in Keras over them" in rows


def test_a_given_temperature_divides_the_logits_and_its_loss_is_a_result(fitted, charedge):
    run, folder, results = fitted
    text = (run / "held_out.txt").read_text(encoding="utf-8")
    plain, targets = logits_of(folder / "plain.tflite", text)
    divided, _ = logits_of(folder / "given.tflite", text)
    np.testing.assert_allclose(divided, plain / GIVEN, rtol=1e-3, atol=2e-3)
    assert "temperature" not in results["given"].stderr  # nothing was fitted
    assert f"Keras                       {loss(plain, targets, GIVEN):.4f}" in results["given"].stdout
    manifest = json.loads(charedge("info", folder / "given.tflite", "--json").stdout)
    assert manifest["logit_temperature"] == {"value": GIVEN}
    assert "logits divided by 1.37, which was given" in charedge("info", folder / "given.tflite").stdout
    assert manifest["verified"][0]["nats_per_character"] == pytest.approx(loss(plain, targets, GIVEN), abs=2e-4)


def test_a_temperature_is_either_fitted_or_given(charedge, tmp_path):
    both = ("--fit-temperature", "--logit-temperature", 1.2)
    result = charedge("convert", tmp_path / "run", "--output", tmp_path / "m.tflite", *both)
    assert (result.status, result.stdout) == (2, "")
    assert "--logit-temperature 1.2 and --fit-temperature exclude each other: choose one." in result.stderr


def test_a_temperature_that_does_not_help_on_other_text_is_reported_and_not_used(fitted, charedge, tmp_path):
    """The network knows half of the held-out text by heart, and that half wants other logits than the rest."""
    run, folder, _ = fitted
    copy = shutil.copytree(run, tmp_path / "run")
    known = (run / "calibration.txt").read_text(encoding="utf-8")[:3000]
    scrambled = "".join(np.random.default_rng(1).permutation(list(known[:1000])))
    (copy / "held_out.txt").write_text(known + 3 * scrambled, encoding="utf-8")
    result = charedge("convert", copy, "--fit-temperature", "--output", tmp_path / "m.tflite", "--quantization", "float32")
    assert (result.status, "not dividing the logits" in result.stderr) == (0, True), result.stderr
    logits, targets = logits_of(folder / "plain.tflite", known + 3 * scrambled)
    assert loss(logits, targets, best(logits, targets)) < loss(logits, targets, 1) - 0.05
    np.testing.assert_array_equal(logits_of(tmp_path / "m.tflite", known[:100])[0], logits[:99])


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
