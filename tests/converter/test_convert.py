"""`charedge convert` on runs that `charedge train` made."""

import json
import re
import shlex
import signal
from dataclasses import replace

import numpy as np
import pytest
import reference
from ai_edge_litert.interpreter import Interpreter
from charedge.converter.profiles import PROFILES
from charedge.trainer.config import OPTIONS

LSTM = ("--cell", "lstm", "--layers", "2", "--dropout", "0.1", "--epochs", "1")
COARSE = """
import sys
from charedge.converter import rounding
from charedge.program import run

rounding.INT8_LEVELS = 1
sys.exit(run(sys.argv[1:]))
"""
KERAS_STEPS = """
import sys, keras, numpy as np
model = keras.saving.load_model(sys.argv[1])
ids = np.load(sys.argv[2])
state = np.zeros((1, int(sys.argv[4])), "float32")
out = model({"tokens": ids[None], "state": state})
np.save(sys.argv[3], np.asarray(out["logits"])[0])
"""


@pytest.mark.parametrize("options", [(), LSTM], ids=["gru", "lstm"])
def test_the_float32_file_gives_keras_logits_over_200_steps(converted, fork_server, tmp_path, options):
    made = converted("float32", *options)
    runner = Interpreter(model_path=str(made.path)).get_signature_runner("step")
    size = runner.get_input_details()["state"]["shape"][1]
    vocabulary_size = runner.get_output_details()["logits"]["shape"][1]
    ids = np.random.default_rng(0).integers(1, vocabulary_size, 200).astype(np.int32)
    np.save(tmp_path / "ids.npy", ids)
    arguments = (made.run / "model.keras", tmp_path / "ids.npy", tmp_path / "out.npy", size)
    assert fork_server.run(["-c", KERAS_STEPS, *arguments]).returncode == 0
    state, logits = np.zeros((1, size), np.float32), []
    for token in ids:
        out = runner(token=np.array([token], np.int32), state=state)
        state = out["state"]
        logits.append(out["logits"][0])
    np.testing.assert_allclose(logits, np.load(tmp_path / "out.npy"), atol=1e-4)


@pytest.mark.parametrize("options", [(), LSTM], ids=["gru", "lstm"])
def test_int8_is_as_good_as_float_on_held_out_text(converted, charedge, options):
    made = converted("int8", *options)
    scores = [
        json.loads(charedge("score", converted(name, *options).path, made.run / "held_out.txt", "--json").stdout)
        for name in ("float32", "int8")
    ]
    assert scores[0]["characters"] == 4000
    assert scores[1]["nats_per_character"] == pytest.approx(scores[0]["nats_per_character"], abs=0.002)


def test_score_of_the_file_is_evaluate_of_the_run(converted, charedge, process):
    made = converted("float32")
    of_file = json.loads(charedge("score", made.path, made.run / "held_out.txt", "--json").stdout)
    of_run = json.loads(process("evaluate", made.run, "--json").stdout)
    assert of_file["nats_per_character"] == pytest.approx(of_run["nats_per_character"], abs=1e-4)


def test_the_manifest_says_what_was_trained_and_measured(converted, charedge):
    made = converted("int8")
    manifest = json.loads(charedge("info", made.path, "--json").stdout)
    config = json.loads((made.run / "config.json").read_text())
    assert manifest["name"] == made.run.name
    assert manifest["created"] == config["ended"]
    assert {key: manifest[key] for key in ("cell", "units", "layers", "embedding_dim")} == {
        key: config[key] for key in ("cell", "units", "layers", "embedding_dim")
    }
    assert manifest["training"]["corpus"]["sha256"] == config["corpus"]["sha256"]
    assert manifest["training"]["corpus"]["files"] == ["topics.txt"]
    recipe = manifest["training"]["recipe"]
    assert (recipe["learning_rate"], recipe["batch_size"], recipe["batching"]) == (0.01, 16, "carried")
    assert "weight_drop" not in recipe
    assert recipe == {name: config[name] for name, option in OPTIONS.items() if option.in_manifest and config[name]}
    (verified,) = [entry for entry in manifest["verified"] if entry["interpreter"] == "ai-edge-litert"]
    assert verified["characters"] == 4000
    assert abs(verified["nats_per_character"] - verified["reference_nats_per_character"]) < 0.002


def test_converting_again_gives_the_same_bytes(converted, process, tmp_path):
    made = converted("int8")
    assert process("convert", made.run, "--output", tmp_path / "again.tflite").returncode == 0
    assert (tmp_path / "again.tflite").read_bytes() == made.path.read_bytes()


def test_mixed_precision_weights_convert(converted):
    made = converted("int8", "--precision", "mixed_bfloat16", "--epochs", "1")
    assert "next: charedge generate" in made.stdout


def test_the_table_shows_quality_and_speed_and_fits_a_terminal(converted, process, tmp_path):
    path = tmp_path / f"{'a long name of a model ' * 3}.tflite"
    result = process("convert", converted("int8").run, "--output", path)
    losses, headings, keras, file, measured, following = result.stdout.splitlines()
    over = f"over the first 4,000 held-out characters of {converted('int8').run}, one stream with the state carried"
    assert losses == f"nats/char: nats per character {over}"
    assert headings.split("  ")[-1] == "us/char"
    for heading in ("nats/char", "vs Keras", "KL div.", "top-1", "logits"):
        assert heading in headings
    assert keras.startswith("Keras")
    assert file == f"{path.name}: int8, {path.stat().st_size:,} bytes"
    assert measured.startswith("  ai-edge-litert")
    assert len(measured.split()) == 8
    assert max(map(len, (headings, keras, measured))) < 80
    assert shlex.split(following) == ["next:", "charedge", "generate", str(path)]


def test_every_quantization_is_converted_and_compared(converted, process, charedge, tmp_path):
    folder = tmp_path / "all"
    result = process("convert", converted("int8").run, "--all", folder, "--name", "topics", "--json")
    assert result.returncode == 0, result.stderr
    files = json.loads(result.stdout)["files"]
    names = ["float32", "float16", "int8", "int8-static", "int4"]
    assert [entry["quantization"] for entry in files] == names
    assert sorted(path.name for path in folder.iterdir()) == sorted(
        [f"topics-{name}.tflite" for name in names] + ["topics-comparison.json", "topics-comparison.png"]
    )
    assert json.loads((folder / "topics-comparison.json").read_text()) == json.loads(result.stdout)
    assert (folder / "topics-comparison.png").read_bytes().startswith(b"\x89PNG")
    for entry in files:
        assert entry["bytes"] == (folder / f"topics-{entry['quantization']}.tflite").stat().st_size
        for verified in entry["verified"]:
            assert abs(verified["nats_per_character"] - verified["reference_nats_per_character"]) < 0.02
            assert 0 <= verified["kl_divergence"] < 0.02
            assert 0.9 < verified["top_1_agreement"] <= 1
            assert verified["microseconds_per_character"] > 0
        assert charedge("verify", entry["file"]).status == 0
    assert (folder / "topics-int8.tflite").stat().st_size < (folder / "topics-float32.tflite").stat().st_size


def test_of_all_quantizations_only_the_good_ones_are_written(converted, fork_server, tmp_path):
    result = fork_server.run(["-c", COARSE, "convert", converted("int8").run, "--all", tmp_path, "--name", "m"])
    assert (result.returncode, "Traceback" in result.stderr) == (1, False)
    assert "m-int8.tflite was not written" in result.stderr
    written = {path.name for path in tmp_path.iterdir() if path.suffix == ".tflite"}
    assert written == {"m-float32.tflite", "m-float16.tflite"}


def test_a_file_whose_probe_differs_between_interpreters_is_not_written(converted, charedge, tmp_path, monkeypatch):
    pytest.importorskip("tflite_micro", reason="tflite-micro is not installed: it has wheels for Python 3.11 on x86-64 Linux alone")
    monkeypatch.setitem(PROFILES, "int8-static", replace(PROFILES["int8-static"], probe_tolerance=0.0))
    output = tmp_path / "m.tflite"
    result = charedge("convert", converted("int8").run, "--output", output, "--quantization", "int8-static")
    assert (result.status, output.exists()) == (1, False)
    assert re.search(r"m.tflite was not written: the interpreters differ by 0\.\d{4} nats", result.stderr)


def test_the_measured_figures_are_numpys(models):
    made = models(quantization="int8", units=64)
    (measurement,) = made.result.measurements
    expected, _ = reference.run_model(made.weights, made.held_out[:-1])
    runner = Interpreter(model_path=str(made.path)).get_signature_runner("step")
    state, found = np.zeros((1, 64), np.float32), []
    for token in made.held_out[:-1]:
        out = runner(token=np.array([token], np.int32), state=state)
        state = out["state"]
        found.append(out["logits"][0])
    found, targets, rows = np.array(found), made.held_out[1:], np.arange(len(made.held_out) - 1)
    here, there = reference.log_softmax(found), reference.log_softmax(expected)
    quality = measurement.quality
    assert quality.nats_per_character == pytest.approx(-here[rows, targets].mean(), abs=1e-5)
    assert quality.reference_nats_per_character == pytest.approx(-there[rows, targets].mean(), abs=1e-5)
    assert quality.kl_divergence == pytest.approx((np.exp(there) * (there - here)).sum(axis=1).mean(), abs=1e-5)
    assert quality.top_1_agreement == pytest.approx((found.argmax(axis=1) == expected.argmax(axis=1)).mean(), abs=1e-5)
    assert quality.largest_logit_difference == pytest.approx(np.abs(found - expected).max(), abs=1e-4)


def test_a_file_that_loses_too_much_is_not_written(converted, fork_server, tmp_path):
    convert = ["-c", COARSE, "convert", converted("int8").run, "--output", tmp_path / "m.tflite"]
    result = fork_server.run(convert)
    assert (result.returncode, "was not written" in result.stderr) == (1, True)
    assert list(tmp_path.iterdir()) == []
    assert fork_server.run([*convert, "--tolerance", "9"]).returncode == 0


def test_names_and_licence_go_into_the_file(converted, process, charedge, tmp_path):
    path = tmp_path / "m.tflite"
    options = ("--name", "bard", "--license", "CC0-1.0", "--author", "me", "--notes", "Writes as Bard did.", "--json")
    result = process("convert", converted("int8").run, "--output", path, *options)
    assert json.loads(result.stdout)["bytes"] == path.stat().st_size
    manifest = json.loads(charedge("info", path, "--json").stdout)
    assert (manifest["name"], manifest["license"]) == ("bard", "CC0-1.0")
    assert manifest["training"]["notes"] == "Writes as Bard did."
    assert "notes: Writes as Bard did." in charedge("info", path).stdout
    assert b"one step at a time. Writes as Bard did." in path.read_bytes()


def test_ctrl_c_leaves_no_file(converted, start, tmp_path):
    conversion = start("convert", converted("int8").run, "--output", tmp_path / "m.tflite")
    assert any("converting" in line for line in conversion.stderr)
    conversion.send_signal(signal.SIGINT)
    assert conversion.wait() == 130
    assert "Traceback" not in conversion.stderr.read()
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_one_sentence(converted, charedge, tmp_path):
    run = converted("int8").run
    empty, file, fine = tmp_path / "empty", tmp_path / "file", tmp_path / "m.tflite"
    empty.mkdir()
    file.touch()
    for arguments, status, match in (
        ((empty, "--output", fine), 1, "not a complete run folder"),
        ((tmp_path / "missing", "--output", fine), 1, "not a run folder"),
        ((run, "--output", tmp_path), 1, "is a folder"),
        ((run, "--output", file / "m.tflite"), 1, "is not a folder"),
        ((run, "--output", fine, "--quantization", "int3"), 2, "int3"),
        ((run, "--output", fine, "--tolerance", "nan"), 2, "--tolerance"),
        ((run,), 2, "--output"),
        ((run, "--output", fine, "--all", tmp_path), 2, "--all"),
        ((run, "--all", file), 1, "--all"),
        ((run, "--all", tmp_path / "all", "--name", "../m"), 2, "--name"),
        ((run, "--output", fine, "--format", "onnx"), 2, "onnx"),
        ((run, "--all", tmp_path, "--format", "saved-model"), 2, "--all"),
    ):
        result = charedge("convert", *arguments)
        assert (result.status, match in result.stderr) == (status, True), result.stderr
        assert "Traceback" not in result.stderr
        assert not fine.exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--all", "out", "--output", "m.tflite"), "--output has no effect with --all"),
        (("--all", "out", "--quantization", "int8"), "--quantization has no effect with --all"),
        (
            ("--format", "saved-model", "--output", "out", "--tolerance", "0.1"),
            "--tolerance has no effect with --format saved-model",
        ),
        (("--format", "saved-model", "--output", "out", "--license", "MIT"), "--license has no effect with --format saved-model"),
        (("--format", "saved-model", "--all", "out"), "--all has no effect with --format saved-model"),
        ((), "--output is missing: give either --output MODEL or --all DIR"),
    ],
)
def test_an_option_that_would_do_nothing_is_refused(charedge, converted, options, message):
    result = charedge("convert", converted("int8").run, *options)
    assert (result.status, result.stdout) == (2, "")
    assert result.stderr.startswith(f"charedge: {message}")
