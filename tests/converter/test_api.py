"""`charedge.convert` and the other exports from Python: what they refuse, what they return, and that they print nothing."""

import inspect
import json
import re
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from charedge.trainer.run import Run

import charedge
from charedge import convert_all, export_c_array, export_html, export_saved_model

WITHOUT_TENSORFLOW = """
import sys
from pathlib import Path

for name in ("tensorflow", "keras", "flatbuffers", "ml_dtypes", "ai_edge_litert"):
    sys.modules[name] = None  # as where it is not installed
import charedge
from charedge import convert_all, export_saved_model

run, folder = sys.argv[1:]
for convert in (charedge.convert, convert_all, export_saved_model):
    try:
        convert(run, Path(folder) / "new" / "m")
    except charedge.CharedgeError as error:
        print(error)
"""


@pytest.fixture
def run(train):
    return train().path


@pytest.fixture
def command_line(request):
    """The command line in this process; its fixture has the name of the package."""
    return request.getfixturevalue("charedge")


def without_time(figures):
    """JSON without what differs each time it is measured."""
    for file in figures.get("files", [figures]):
        for measured in file["verified"]:
            del measured["microseconds_per_character"]
    return figures


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("run", value) for value in (5, None, b"run", "", "a\0b")),
        *(("output", value) for value in (5, None, b"m.tflite", "", "a\0b")),
        *(("quantization", value) for value in ("int3", "", None, 8, ["int8"])),
        *(("tolerance", value) for value in (-0.1, float("nan"), float("inf"), "0.1", True, 1j)),
        *(("fit_temperature", value) for value in ("no", 1, None)),
        *(("logit_temperature", value) for value in (0, 0.2, 4.1, -1, float("nan"), float("inf"), "1.2", True)),
        *((field, value) for field in ("name", "author", "license", "notes") for value in (5, "two\nlines", "x" * 1001, b"x")),
        *(("progress", value) for value in (None, "yes")),
    ],
    ids=lambda value: repr(value)[:20],
)
def test_an_impossible_value_names_its_argument_before_a_file_is_touched(field, value, tmp_path):
    arguments = {"run": tmp_path / "run", "output": tmp_path / "new" / "m.tflite", field: value}
    with pytest.raises(charedge.InvalidOption, match=f"^`{field}` ") as caught:
        charedge.convert(**arguments)
    assert caught.value.field == field
    assert str(caught.value).endswith(".")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("function", "arguments", "field"),
    [
        (convert_all, {"folder": 5}, "folder"),
        (convert_all, {"folder": "new", "tolerance": "0.1"}, "tolerance"),
        (convert_all, {"folder": "new", "name": "a/b"}, "name"),
        (convert_all, {"folder": "new", "name": "x" * 201}, "name"),
        (export_saved_model, {"output": 5}, "output"),
        (export_saved_model, {"output": "new", "fit_temperature": 1}, "fit_temperature"),
        (export_saved_model, {"output": "new", "fit_temperature": True, "logit_temperature": 1.2}, "logit_temperature"),
        (export_saved_model, {"output": "new", "logit_temperature": 5}, "logit_temperature"),
        (convert_all, {"folder": "new", "fit_temperature": True, "logit_temperature": 1.2}, "logit_temperature"),
        (export_html, {"output": "new.html", "fit_temperature": True, "logit_temperature": 1.2}, "logit_temperature"),
        (export_c_array, {"output": "new.h", "fit_temperature": True, "logit_temperature": 1.2}, "logit_temperature"),
        (export_saved_model, {"output": "new", "progress": None}, "progress"),
        (export_html, {"output": "new.html", "notes": "a\nb"}, "notes"),
        (export_html, {"output": "new.html", "quantization": "int4"}, "quantization"),
        (export_html, {"output": "new"}, "output"),
    ],
)
def test_the_other_exports_of_a_run_name_arguments_too(function, arguments, field, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(charedge.InvalidOption, match=f"^`{field}` ") as caught:
        function("run", **arguments)
    assert caught.value.field == field
    assert list(tmp_path.iterdir()) == []


def test_without_tensorflow_a_sentence_has_the_line_that_installs_it(run, tmp_path):
    arguments = [sys.executable, "-c", WITHOUT_TENSORFLOW, run, tmp_path]
    result = subprocess.run(arguments, capture_output=True, text=True, check=True)
    assert [line.count("pip install 'charedge[convert]'") for line in result.stdout.splitlines()] == [1, 1, 1]
    assert list(tmp_path.iterdir()) == []


def test_the_result_is_what_the_command_prints(run, command_line, tmp_path):
    path = tmp_path / "new" / "folder" / "m.tflite"
    printed = json.loads(command_line("convert", run, "--output", path, "--json").stdout)
    assert list(printed) == ["file", "bytes", "quantization", "interpreters", "verified", "logit_temperature"]
    content = path.read_bytes()
    result = charedge.convert(run, path)
    assert isinstance(result, charedge.Conversion)
    assert path.read_bytes() == content
    assert result.verified[0].microseconds_per_character > 0
    assert without_time(json.loads(json.dumps(asdict(result)))) == without_time(printed)
    assert (result.file, result.bytes, result.quantization) == (str(path), len(content), "int8")
    assert charedge.load(result.file).manifest.verified[0].nats_per_character == result.verified[0].nats_per_character


def test_all_quantizations_give_what_the_command_prints(run, command_line, tmp_path):
    printed = json.loads(command_line("convert", run, "--all", tmp_path / "all", "--name", "m", "--json").stdout)
    results = convert_all(Run(run), tmp_path / "all", name="m")
    assert [result.quantization for result in results] == ["float32", "float16", "int8", "int8-static", "int4"]
    assert without_time({"files": json.loads(json.dumps([asdict(result) for result in results]))}) == without_time(printed)


def test_a_saved_model_gives_what_the_command_prints(run, command_line, tmp_path):
    path = tmp_path / "new" / "saved"
    printed = json.loads(command_line("convert", run, "--format", "saved-model", "--output", path, "--json").stdout)
    result = asdict(export_saved_model(str(run), path))
    keys = {"folder", "characters", "nats_per_character", "largest_logit_difference", "bytes", "logit_temperature"}
    assert set(result) == keys
    assert result["folder"] == printed["folder"] == str(path)
    assert result["nats_per_character"] == pytest.approx(printed["nats_per_character"], abs=1e-6)


def test_progress_is_reported_and_nothing_is_printed(run, tmp_path, capfd):
    reports = []
    charedge.convert(Run(run), tmp_path / "m.tflite", quantization="int4", fit_temperature=True, progress=reports.append)
    stages = list(dict.fromkeys(report.stage for report in reports))
    assert stages == ["converting", "fitting the temperature", "calibrating int4", "verifying"]
    for stage in stages[1:]:
        counted = [report for report in reports if report.stage == stage and report.total]
        done = [report.done for report in counted]
        assert done == sorted(done)
        assert done[-1] == counted[-1].total
        assert {report.unit for report in counted} == {"characters"}
    assert len([report for report in reports if report.stage == "verifying"]) == 1 + 4  # of 4,000 characters
    captured = capfd.readouterr()
    assert (captured.out, [line for line in captured.err.splitlines() if "charedge" in line]) == ("", [])


def test_a_file_that_loses_too_much_leaves_neither_itself_nor_its_folder(run, tmp_path):
    with pytest.raises(charedge.CharedgeError, match=r"was not written: .*`quantization`.*`tolerance`\."):
        charedge.convert(run, tmp_path / "new" / "m.tflite", quantization="int4", tolerance=0)
    assert list(tmp_path.iterdir()) == []


def test_the_options_of_the_command_line_are_named_in_its_module_alone():
    folder = Path(inspect.getfile(convert_all)).parent
    named = [path.name for path in folder.glob("*.py") if re.search(r'["( ]--[a-z]', path.read_text(encoding="utf-8"))]
    assert named == ["cli.py"]
