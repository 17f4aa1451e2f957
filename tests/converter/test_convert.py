"""`charedge convert` on runs that `charedge train` made."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

LSTM = ("--cell", "lstm", "--layers", "2", "--dropout", "0.1", "--epochs", "1")
KERAS_STEPS = """
import sys, keras, numpy as np
model = keras.saving.load_model(sys.argv[1])
ids = np.load(sys.argv[2])
state = np.zeros((1, int(sys.argv[4])), "float32")
out = model({"tokens": ids[None], "state": state})
np.save(sys.argv[3], np.asarray(out["logits"])[0])
"""


@pytest.mark.parametrize("options", [(), LSTM], ids=["gru", "lstm"])
def test_the_float32_file_gives_keras_logits_over_200_steps(converted, tmp_path, options):
    made = converted("float32", *options)
    runner = Interpreter(model_path=str(made.path)).get_signature_runner("step")
    size = runner.get_input_details()["state"]["shape"][1]
    vocabulary_size = runner.get_output_details()["logits"]["shape"][1]
    ids = np.random.default_rng(0).integers(1, vocabulary_size, 200).astype(np.int32)
    np.save(tmp_path / "ids.npy", ids)
    arguments = (made.run / "model.keras", tmp_path / "ids.npy", tmp_path / "out.npy", size)
    subprocess.run([sys.executable, "-c", KERAS_STEPS, *map(str, arguments)], check=True, capture_output=True)
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


def test_the_table_shows_quality_and_speed(converted):
    lines = converted("int8").stdout.splitlines()
    assert lines[0].endswith("bytes, int8")
    assert "us/character" in lines[1]
    assert lines[2].startswith("Keras")
    assert lines[3].startswith("ai-edge-litert")


def test_a_file_that_loses_too_much_is_not_written(converted, tmp_path):
    program = (
        "import sys; from charedge.converter import quantization; quantization.INT8_LEVELS = 1;"
        "from charedge.runtime.cli import run; sys.exit(run(sys.argv[1:]))"
    )
    convert = [sys.executable, "-c", program, "convert", str(converted("int8").run), "--output", str(tmp_path / "m.tflite")]
    result = subprocess.run(convert, capture_output=True, text=True, check=False)
    assert (result.returncode, "was not written" in result.stderr) == (1, True)
    assert list(tmp_path.iterdir()) == []
    assert subprocess.run([*convert, "--tolerance", "9"], capture_output=True, check=False).returncode == 0


def test_names_and_licence_go_into_the_file(converted, process, charedge, tmp_path):
    path = tmp_path / "m.tflite"
    options = ("--name", "bard", "--license", "CC0-1.0", "--author", "me", "--json")
    result = process("convert", converted("int8").run, "--output", path, *options)
    assert json.loads(result.stdout)["bytes"] == path.stat().st_size
    manifest = json.loads(charedge("info", path, "--json").stdout)
    assert (manifest["name"], manifest["license"]) == ("bard", "CC0-1.0")


def test_ctrl_c_leaves_no_file(converted, start, tmp_path):
    conversion = start("convert", converted("int8").run, "--output", tmp_path / "m.tflite", text=True)
    assert any("verifying" in line for line in conversion.stderr)
    conversion.send_signal(signal.SIGINT)
    assert conversion.wait() == 130
    assert "Traceback" not in conversion.stderr.read()
    assert list(tmp_path.iterdir()) == []


def test_bad_input_is_one_sentence(converted, charedge, tmp_path):
    run = converted("int8").run
    empty, fine = tmp_path / "empty", tmp_path / "m.tflite"
    empty.mkdir()
    for arguments, status, match in (
        ((empty, "--output", fine), 1, "not a whole run folder"),
        ((tmp_path / "missing", "--output", fine), 1, "not a run folder"),
        ((run, "--output", tmp_path), 1, "is a folder"),
        ((run, "--output", tmp_path / "no" / "m.tflite"), 1, "does not exist"),
        ((run, "--output", fine, "--quantization", "int3"), 2, "int3"),
        ((run, "--output", fine, "--tolerance", "nan"), 2, "--tolerance"),
        ((run,), 2, "--output"),
    ):
        result = charedge("convert", *arguments)
        assert (result.status, match in result.stderr) == (status, True), result.stderr
        assert "Traceback" not in result.stderr
        assert not fine.exists()


def test_a_run_without_its_model_is_refused(converted, charedge, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for name in ("config.json", "vocabulary.txt", "held_out.txt"):
        (run / name).write_bytes((converted("int8").run / name).read_bytes())
    result = charedge("convert", run, "--output", tmp_path / "m.tflite")
    assert (result.status, "model.keras" in result.stderr) == (1, True)
    (run / "model.keras").write_bytes(b"PK no model")
    result = charedge("convert", run, "--output", tmp_path / "m.tflite")
    assert (result.status, "cannot be loaded" in result.stderr) == (1, True)


def test_a_run_that_disagrees_with_itself_is_refused(converted, charedge, tmp_path):
    run = tmp_path / "run"
    run.mkdir()
    for path in converted("int8").run.iterdir():
        if path.is_file():
            (run / path.name).write_bytes(path.read_bytes())
    with (run / "vocabulary.txt").open("a", encoding="utf-8") as file:
        file.write("漢\n")
    result = charedge("convert", run, "--output", tmp_path / "m.tflite")
    assert (result.status, "disagrees with itself" in result.stderr) == (1, True)
