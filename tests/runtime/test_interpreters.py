"""The same file on both interpreters, each in an environment of its own."""

import json

import pytest
from charedge.runtime.interpreter import MODULES, installed_interpreters


@pytest.mark.parametrize("shape", [{}, {"cell": "lstm", "layers": 2}], ids=["gru", "lstm"])
@pytest.mark.parametrize("quantization", ["float32", "int8"])
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


def test_the_older_interpreter_generates_the_same_text_from_a_trained_file(converted, process, tflite_runtime_python):
    path = converted("int8").path
    arguments = ("generate", path, "--prompt", "The ", "--length", "40", "--temperature", "0")
    there = process(*arguments, "--interpreter", "tflite-runtime", python=tflite_runtime_python)
    assert there.stderr == ""
    assert there.stdout[:20] == process(*arguments).stdout[:20]


def test_an_interpreter_that_is_not_installed_is_asked_for(model, charedge):
    missing = set(MODULES) - {found.name for found in installed_interpreters()}
    for name in missing:
        result = charedge("verify", model.path, "--interpreter", name)
        assert (result.status, "pip install" in result.stderr, name in result.stderr) == (1, True, True)
    assert missing, "this environment has LiteRT alone"


def test_an_unknown_interpreter_is_a_usage_error(model, charedge):
    result = charedge("verify", model.path, "--interpreter", "onnx")
    assert (result.status, "--interpreter" in result.stderr) == (2, True)
