"""The sketch for microcontrollers: the page quotes it, compilers take it, and it does with an interpreter what it says.

TensorFlow Lite Micro is not here. The headers below are stubs with the part of its API that the sketch uses; behind them is a toy
network: after token t at step k comes token 1 + (t + k) mod (V - 1), nearly for certain, and k is what the state counts.
"""

import math
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from charedge.converter.c_array import c_source, flash_bytes
from charedge.runtime.manifest import Microcontroller, Probe
from charedge.runtime.model_file import read_model_file
from configs import make_config
from conftest import REPOSITORY

SKETCH = REPOSITORY / "examples" / "microcontroller" / "main.cpp"
PAGE = REPOSITORY / "docs" / "microcontrollers.md"
CERTAIN = 20.0  # the logit of the token that comes next; all others have 0
OPERATORS = [
    *("ADD", "CAST", "CONCATENATION", "DEQUANTIZE", "FULLY_CONNECTED", "GATHER", "LOGISTIC", "MUL", "QUANTIZE", "SPLIT", "SUB"),
    "TANH",
]
STUBS = {
    "tensorflow/lite/schema/schema_generated.h": """
#pragma once
namespace tflite {
struct Model {};
inline const Model* GetModel(const void* bytes) { return static_cast<const Model*>(bytes); }
}
""",
    "tensorflow/lite/micro/micro_mutable_op_resolver.h": """
#pragma once
enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 };
namespace tflite {
class MicroOpResolver {
 public:
  virtual ~MicroOpResolver() = default;
  unsigned int registered = 0;
};
template <unsigned int tOpCount>
class MicroMutableOpResolver : public MicroOpResolver {
 public:
  METHODS
 private:
  TfLiteStatus Add() { return ++registered <= tOpCount ? kTfLiteOk : kTfLiteError; }
};
}
""",
    "tensorflow/lite/micro/micro_interpreter.h": """
#pragma once
#include <cstddef>
#include <cstdint>
#include "bard.h"
#include "tensorflow/lite/micro/micro_mutable_op_resolver.h"
#include "tensorflow/lite/schema/schema_generated.h"
union TfLitePtrUnion { int32_t* i32; float* f; };
struct TfLiteTensor { TfLitePtrUnion data; };
namespace tflite {
class MicroInterpreter {
 public:
  MicroInterpreter(const Model* model, const MicroOpResolver& resolver, uint8_t* arena, size_t arena_bytes)
      : fine_(static_cast<const void*>(model) == bard_model && resolver.registered == BARD_OPERATOR_COUNT &&
              arena_bytes == BARD_ARENA_BYTES && reinterpret_cast<uintptr_t>(arena) % 16 == 0) {
    input_[0].data.i32 = &token_;
    input_[1].data.f = before_;
    output_[0].data.f = logits_;
    output_[1].data.f = after_;
  }
  TfLiteStatus AllocateTensors() { return fine_ ? kTfLiteOk : kTfLiteError; }
  TfLiteTensor* input(size_t index) { return &input_[index]; }
  TfLiteTensor* output(size_t index) { return &output_[index]; }
  TfLiteStatus Invoke() {
    for (int i = 0; i < BARD_STATE_SIZE; ++i) after_[i] = before_[i] + 1;
    const int next = 1 + (token_ + static_cast<int>(before_[BARD_STATE_SIZE - 1])) % (BARD_VOCABULARY_SIZE - 1);
    for (int i = 0; i < BARD_VOCABULARY_SIZE; ++i) logits_[i] = i == next ? CERTAIN : 0.0f;
    token_ = -1;
    for (float& value : before_) value = -1;  // the arena of the real one is used for other tensors meanwhile
    return kTfLiteOk;
  }
 private:
  bool fine_;
  int32_t token_ = -1;
  float before_[BARD_STATE_SIZE], after_[BARD_STATE_SIZE], logits_[BARD_VOCABULARY_SIZE];
  TfLiteTensor input_[2], output_[2];
};
}
""",
}


def after(token, k, size):
    return 1 + (token + k) % (size - 1)


def toy_probe(size, error=0.0):
    """Ids half of which the toy network foresees, and its loss on them."""
    ids = [1]
    for k in range(63):
        ids.append(after(ids[-1], k, size) if k % 2 else 1 + k % (size - 1))
    normalizer = math.log(math.exp(CERTAIN) + size - 1)
    losses = [normalizer - (CERTAIN if after(ids[k], k, size) == ids[k + 1] else 0.0) for k in range(63)]
    return Probe(ids, sum(losses) / 63 + error, 0.01)


def build(folder, model, compiler="g++", options=("-o", "sketch"), error=0.0, **changes):
    """Compile the sketch with the C source of a model and the stubs, and return the program."""
    if shutil.which(compiler) is None:
        packages = {"g++": "g++", "arm-none-eabi-g++": "gcc-arm-none-eabi libstdc++-arm-none-eabi-newlib"}
        pytest.skip(f"{compiler} is not installed: apt install {packages[compiler]}")
    file = read_model_file(model)
    changes = {"microcontroller": Microcontroller(4096, OPERATORS), "probe": toy_probe(len(file.vocabulary), error), **changes}
    header, source = c_source(replace(file, manifest=replace(file.manifest, **changes)), "bard")
    names = ["Add" + "".join(word.capitalize() for word in name.split("_")) for name in OPERATORS]
    methods = "\n  ".join(f"TfLiteStatus {name}() {{ return Add(); }}" for name in names)
    contents = {"bard.h": header, "bard.c": source, "main.cpp": SKETCH.read_text(), **STUBS}
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(content.replace("METHODS", methods).replace("CERTAIN", f"{CERTAIN}f"))
    strict = ("-std=c++17", "-Wall", "-Wextra", "-Werror", "-I.")
    result = subprocess.run(
        [compiler, *strict, "main.cpp", "bard.c", *options], cwd=folder, capture_output=True, text=True, check=False
    )
    assert (result.returncode, result.stderr) == (0, "")
    return folder / "sketch"


def expected(vocabulary, prompt):
    """What the toy network writes after a prompt."""
    k, token, text = 0, 0, ""
    for fed in prompt:
        token, k = after(fed, k, len(vocabulary)), k + 1
    for _ in range(500):
        text += vocabulary.tokens[token]
        token, k = after(token, k, len(vocabulary)), k + 1
    return text


@pytest.mark.parametrize("unknown", ["skip", "unk"])
@pytest.mark.parametrize("characters", ["\nROMEO:é漢\U0001f600", "\nROM:", "xyz"], ids=["all known", "some known", "none known"])
def test_the_sketch_checks_the_probe_feeds_the_prompt_and_writes_with_the_state_carried(models, tmp_path, characters, unknown):
    made = models(quantization="int8", characters=characters, start_text=characters[0])
    sketch = build(tmp_path, made.path, unknown=unknown)
    ids = [int(i) for i in made.vocabulary.encode("ROMEO:")]
    fed = [i for i in ids if i or unknown == "unk"] or [int(i) for i in made.vocabulary.encode(characters[0])]
    result = subprocess.run([sketch], capture_output=True, check=False)
    assert (result.returncode, result.stdout.decode()) == (0, "ROMEO:" + expected(made.vocabulary, fed))


def test_the_sketch_writes_nothing_with_a_model_that_fails_its_probe(models, tmp_path):
    sketch = build(tmp_path, models(quantization="int8").path, error=0.02)
    result = subprocess.run([sketch], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "The probe failed: the model does not behave as it did on the workstation.\n")


@pytest.mark.parametrize("processor", ["cortex-m0plus", "cortex-m33"])
def test_the_sketch_compiles_for_microcontrollers(models, tmp_path, processor):
    build(tmp_path, models(quantization="int8").path, "arm-none-eabi-g++", (f"-mcpu={processor}", "-mthumb", "-Os", "-c"))


def test_the_page_quotes_the_sketch():
    assert re.findall(r"```cpp\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL) == [SKETCH.read_text(encoding="utf-8")]


@pytest.mark.parametrize("preset", ["small", "base"])
def test_the_pages_sizes_are_those_of_the_presets(models, preset):
    """Within an alignment or two: the names in a model have their lengths."""
    config = make_config(preset)
    shape = {"cell": config.cell, "layers": config.layers, "units": config.units, "embedding_dim": config.embedding_dim}
    file = read_model_file(models(quantization="int8-static", characters="\n" + "".join(map(chr, range(32, 96))), **shape).path)
    row = next(line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith(f"| `{preset}` | GRU"))
    flash, arena, state, products = (int(cell.replace(",", "")) for cell in row.split("|")[3:7])
    assert flash == pytest.approx(flash_bytes(file), abs=48)
    assert state == 4 * file.manifest.state_size
    assert products == config.units * (3 * 3 * config.units + 66)
    if file.manifest.microcontroller:  # without tflite-micro nothing says so
        assert arena == pytest.approx(file.manifest.microcontroller.arena_bytes, rel=0.05)
