"""The same file on both interpreters, each in an environment of its own."""

import json
import os
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from charedge.runtime import wheels
from charedge.runtime.interpreter import MODULES, installed_interpreters
from charedge.runtime.model_file import read_model_file
from conftest import REPOSITORY

from charedge.program import as_options

EITHER = {"ai-edge-litert": "2.3.0", "tflite-runtime": "2.14.0"}
LITERT, TFLITE = ({name: EITHER[name]} for name in EITHER)


@pytest.mark.parametrize("shape", [{}, {"cell": "lstm", "layers": 2}], ids=["gru", "lstm"])
@pytest.mark.parametrize("quantization", ["float32", "float16", "int8", "int8-static"])
def test_both_interpreters_agree(models, process, tflite_runtime_python, tmp_path, quantization, shape):
    made = models(quantization=quantization, units=96, **shape)
    text = tmp_path / "text.txt"
    text.write_text(made.vocabulary.decode(made.held_out), encoding="utf-8")
    here = json.loads(process("score", made.path, text, "--json").stdout)
    arguments = ("score", made.path, text, "--json", "--interpreter", "tflite-runtime")
    there = json.loads(process(*arguments, python=tflite_runtime_python).stdout)
    assert here["interpreter"].startswith("ai-edge-litert")
    assert there["interpreter"] == "tflite-runtime 2.14.0"
    assert there["nats_per_character"] == pytest.approx(here["nats_per_character"], abs=1e-3)


@pytest.mark.parametrize("quantization", ["float32", "float16", "int8", "int8-static"])
def test_the_older_interpreter_takes_any_number_of_rows(models, process, tflite_runtime_python, quantization):
    program = """
import sys
from charedge import load
model = load(sys.argv[1], interpreter="tflite-runtime")
prompts = ["The ", "And ", "But ", "So ", "Then ", "I ", "You ", "We "]
together = model.generate_batch(prompts, length=20, temperature=0)
print(model.interpreter, together == [model.generate(prompt, length=20, temperature=0) for prompt in prompts])
"""
    path = models(quantization=quantization, units=96).path
    result = subprocess.run([tflite_runtime_python, "-c", program, path], capture_output=True, text=True, check=False)
    assert result.stdout == "tflite-runtime 2.14.0 True\n", result.stderr


def test_the_older_interpreter_generates_the_same_text_from_a_trained_file(converted, process, tflite_runtime_python):
    path = converted("int8").path
    arguments = ("generate", path, "--prompt", "The ", "--length", "40", "--temperature", "0")
    there = process(*arguments, "--interpreter", "tflite-runtime", python=tflite_runtime_python)
    assert there.stderr == ""
    assert there.stdout[:20] == process(*arguments).stdout[:20]


def test_an_int4_file_is_refused_by_the_older_interpreter(models, process, tflite_runtime_python):
    made = models(quantization="int4")
    result = process("verify", made.path, "--interpreter", "tflite-runtime", python=tflite_runtime_python)
    assert (result.returncode, "Traceback" in result.stderr) == (1, False)
    assert "(int4) was not made for tflite-runtime: convert the run again with another --quantization" in result.stderr
    raw = "import sys, tflite_runtime.interpreter as i; i.Interpreter(model_path=sys.argv[1]).allocate_tensors()"
    result = subprocess.run([tflite_runtime_python, "-c", raw, made.path], capture_output=True, text=True, check=False)
    assert result.returncode == 1  # an exception, and not a crash or a wrong answer
    assert "FULLY_CONNECTED" in result.stderr
    assert "version" in result.stderr


def test_conversion_measures_on_every_interpreter_there_is(tflite_runtime_python, tmp_path):
    program = """
import sys
from pathlib import Path
from model_files import build_model_file
for quantization in sys.argv[2:]:
    result = build_model_file(Path(sys.argv[1]) / f"{quantization}.tflite", quantization, units=96).result
    print(quantization, *(f"{m.quality.interpreter}={m.quality.loss:.6f}" for m in result.measurements))
"""
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY / "tests")}
    arguments = [tflite_runtime_python, "-c", program, tmp_path, "float32", "float16", "int8", "int8-static", "int4"]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False, env=environment)
    assert result.returncode == 0, result.stderr
    for line in result.stdout.splitlines():
        quantization, *measured = line.split()
        losses = {name: float(loss) for name, loss in (entry.split("=") for entry in measured)}
        assert set(losses) == ({"ai-edge-litert"} if quantization == "int4" else {"ai-edge-litert", "tflite-runtime"})
        assert max(losses.values()) - min(losses.values()) < 1e-3


def test_the_older_interpreter_is_not_used_beside_numpy_2(monkeypatch):
    for name, module in MODULES.items():
        monkeypatch.setitem(sys.modules, module, SimpleNamespace(__version__=EITHER[name]))
    monkeypatch.setattr(np, "__version__", "2.0.0")
    assert [found.name for found in installed_interpreters()] == ["ai-edge-litert"]
    monkeypatch.setattr(np, "__version__", "1.26.4")
    assert [found.name for found in installed_interpreters()] == ["ai-edge-litert", "tflite-runtime"]


def test_where_litert_has_no_wheel_an_int4_file_asks_for_another_quantization(models, charedge, monkeypatch):
    int4, int8 = models(quantization="int4").path, models(quantization="int8").path
    monkeypatch.setattr("charedge.runtime.interpreter.installed_interpreters", lambda: iter([]))
    monkeypatch.setattr("platform.machine", lambda: "armv7l")
    monkeypatch.setattr(wheels, "sys", SimpleNamespace(maxsize=NARROW, version_info=(3, 11, 0)))
    result = charedge("verify", int4)
    assert (result.status, "--quantization int8" in result.stderr) == (1, True)
    assert "'tflite-runtime>=2.14.0' 'numpy<2'" in charedge("verify", int8).stderr


WIDE, NARROW = 2**63 - 1, 2**31 - 1


@pytest.mark.parametrize(
    ("machine", "maxsize", "python", "glibc", "wanted", "expected"),
    [
        ("x86_64", WIDE, (3, 11), "2.36", EITHER, "run `pip install 'ai-edge-litert>=2.3.0'`"),
        ("aarch64", WIDE, (3, 13), "2.41", EITHER, "run `pip install 'ai-edge-litert>=2.3.0'`"),
        ("aarch64", WIDE, (3, 11), "2.36", TFLITE, "run `pip install 'tflite-runtime>=2.14.0' 'numpy<2'`"),
        ("aarch64", NARROW, (3, 11), "2.36", EITHER, "run `pip install 'tflite-runtime>=2.14.0' 'numpy<2'`"),
        ("armv7l", NARROW, (3, 11), "2.36", EITHER, "run `pip install 'tflite-runtime>=2.14.0' 'numpy<2'`"),
        ("armv7l", NARROW, (3, 13), "2.41", EITHER, "end with Python 3.11, and this is 3.13, so use an earlier Python or a 64-bit"),
        ("x86_64", WIDE, (3, 12), "2.39", TFLITE, "end with Python 3.11, and this is 3.12, so use an earlier Python"),
        ("armv7l", NARROW, (3, 11), "2.36", LITERT, "so use tflite-runtime, with a file of `quantization` int8"),
        ("aarch64", WIDE, (3, 10), "2.31", EITHER, "no interpreter runs on glibc 2.31, so use a system with 2.34 or later"),
        ("armv6l", NARROW, (3, 11), "2.36", EITHER, "no wheels for armv6l"),
    ],
)
def test_the_advice_is_the_right_one_for_the_machine(monkeypatch, machine, maxsize, python, glibc, wanted, expected):
    monkeypatch.setattr("platform.machine", lambda: machine)
    monkeypatch.setattr("os.confstr", lambda name: f"glibc {glibc}")
    monkeypatch.setattr(wheels, "sys", SimpleNamespace(maxsize=maxsize, version_info=(*python, 0)))
    assert expected in wheels.advice(wanted)


@pytest.mark.parametrize("name", MODULES)
def test_with_both_installed_litert_is_taken_unless_the_other_is_asked_for(models, process, tflite_runtime_python, name):
    path = models(quantization="int8").path
    verified = process("verify", path, "--json", python=tflite_runtime_python)
    assert json.loads(verified.stdout)["interpreter"].startswith("ai-edge-litert")
    verified = process("verify", path, "--json", "--interpreter", name, python=tflite_runtime_python)
    assert json.loads(verified.stdout)["interpreter"].startswith(name)


def test_an_interpreter_that_is_not_installed_is_asked_for(model, charedge):
    needs = {entry.name: entry.minimum_version for entry in read_model_file(model.path).manifest.interpreters}
    missing = set(MODULES) - {found.name for found in installed_interpreters()}
    for name in missing:
        result = charedge("verify", model.path, "--interpreter", name)
        advice = as_options(wheels.advice({name: needs[name]}))
        assert (result.status, name in result.stderr, advice in result.stderr) == (1, True, True)
    assert missing, "this environment has one of them alone"


def test_an_unknown_interpreter_is_a_usage_error(model, charedge):
    result = charedge("verify", model.path, "--interpreter", "onnx")
    assert (result.status, "--interpreter" in result.stderr) == (2, True)
