"""The benchmarks behind the README's figures and pictures run; their figures mean nothing here."""

import json
import subprocess
import sys

import pytest
from conftest import REPOSITORY
from model_files import CHARACTERS, build_model_file

PNG = b"\x89PNG\r\n"


def run(program, *arguments):
    command = [sys.executable, REPOSITORY / "benchmarks" / program, *arguments]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, encoding="utf-8", check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def profiles(tmp_path_factory):
    """What profiles.py prints and writes of a folder of two files."""
    folder = tmp_path_factory.mktemp("profiles")
    (folder / "compared").mkdir()
    for quantization in ("int4", "int8"):
        build_model_file(folder / "compared" / f"{quantization}.tflite", quantization)
    text, written = folder / "text.txt", folder / "profiles.json"
    text.write_text(CHARACTERS * 10, encoding="utf-8")
    options = ["--text", text, "--rounds", 1, "--seconds", 0.001, "--json", written]
    return run("profiles.py", folder / "compared", *options), written


@pytest.fixture(scope="module")
def growth(tmp_path_factory):
    """What growth.py prints and writes of two small networks."""
    written = tmp_path_factory.mktemp("growth") / "growth.json"
    options = ["--batch-units", 16, "--rows", 1, 6, "--largest", 1, "--rounds", 1, "--seconds", 0.001, "--json", written]
    return run("growth.py", "--units", 16, 32, *options), written


@pytest.mark.parametrize(("models", "sentence"), [(".", "holds no model files"), ("text.txt", "is not a charedge model")])
def test_profiles_refuses_what_is_not_a_model_file_with_a_sentence(tmp_path, models, sentence):
    (tmp_path / "text.txt").write_text(CHARACTERS, encoding="utf-8")
    command = [sys.executable, REPOSITORY / "benchmarks" / "profiles.py", models, "--text", "text.txt"]
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (result.returncode != 0, sentence in result.stderr, "Traceback" in result.stderr) == (True, True, False)


def test_profiles_measures_each_file_on_the_interpreter_it_was_made_for(profiles):
    printed, written = profiles
    rows = json.loads(written.read_text())
    assert [row["quantization"] for row in rows] == ["int8", "int4"]  # the largest first
    for row in rows:
        assert row["interpreter"].startswith("ai-edge-litert ")
        assert row["invoke_microseconds"] > 0
        assert row["microseconds_per_character"] > 0
        assert row["python_seconds"] > 0
        assert row["startup_seconds"] > 0
        assert 20e6 < row["peak_rss_bytes"] < 200e6  # a process with numpy and an interpreter, and nothing else
        assert row["nats_per_character"] == pytest.approx(row["windows_nats_per_character"], rel=0.05)
        assert f"{row['bytes']:,}" in printed


def test_growth_measures_units_rows_and_corpora(growth):
    printed, written = growth
    figures = json.loads(written.read_text())
    assert figures["machine"]["processor"] in printed
    assert [(size["units"], size["quantization"]) for size in figures["sizes"]] == [
        (units, quantization) for quantization in ("float32", "int8", "int4") for units in (16, 32)
    ]
    for size in figures["sizes"]:
        assert 0 < size["bytes_read"] < size["bytes"]
        assert size["read_floor_microseconds"] > 0
    assert [batch["rows"] for batch in figures["batches"]] == [1, 6] * 3
    (corpus,) = figures["corpora"]
    assert corpus["bytes"] == 1_000_000
    assert corpus["seconds"] > 0


def test_adaptation_measures_reading_and_writing(tmp_path):
    model, written = tmp_path / "model.tflite", tmp_path / "adaptation.json"
    build_model_file(model, "int8")
    run("adaptation.py", model, "--rounds", 1, "--seconds", 0.001, "--json", written)
    figures = json.loads(written.read_text())
    assert figures["read, added"] == figures["read, adapted"] - figures["read"]
    assert all(figures[name] > 0 for name in ("read", "read, adapted", "write", "write, adapted"))


def test_pictures_are_drawn_for_both_modes(growth, tmp_path):
    names = ("base", "shakespeare", "shakespeare-tiny", "wide")
    for i, name in enumerate(names):
        mean = {"carried": 1.4 + 0.01 * i, "windows of 256": 1.42 + 0.01 * i}
        figures = {"name": name, "quantization": "int4" if name == "wide" else "int8", "bytes": 300_000 * (i + 1), "mean": mean}
        (tmp_path / f"{name}.json").write_text(json.dumps(figures))
    run("pictures.py", tmp_path, growth[1], "--folder", tmp_path / "pictures")
    pictures = {path.name: path.read_bytes() for path in (tmp_path / "pictures").iterdir()}
    assert sorted(pictures) == ["quality-dark.png", "quality-light.png", "speed-dark.png", "speed-light.png"]
    assert all(data.startswith(PNG) for data in pictures.values())
    assert len(set(pictures.values())) == 4
