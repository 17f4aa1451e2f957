"""`charedge convert --format c-array`: C compilers take it without a warning, a program finds the model in it, and linkers put
it into flash."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest
from charedge.converter.c_array import c_source, flash_bytes
from charedge.runtime.manifest import Microcontroller
from charedge.runtime.model_file import read_model_file

import charedge
from charedge import export_c_array

STRICT = ("-Wall", "-Wextra", "-Wpedantic", "-Werror")
LANGUAGES = {"C99": ("gcc", "-std=c99"), "C11": ("gcc", "-std=c11"), "C++17": ("g++", "-x", "c++", "-std=c++17")}
ODD = "\0\1\n\r\t\x7f\x85 !\"#%'()/07<=>?\\abfnx\u0301é漢\ufeff\U0001f600"  # with all of trigraphs, escapes, and digits behind them
BEFORE = b"/* Written by charedge, another time */"

# Prints what a program sees of bard.h, the strings and the model as numbers.
PROGRAM = """
#include <stdio.h>
#include "bard.h"
#define QUOTED(method) "\\"" #method "\\","

int main(void) {
  unsigned long i, k;
  printf("{\\"model\\": [");
  for (i = 0; i < sizeof bard_model; ++i) printf("%d,", bard_model[i]);
  printf("-1], \\"aligned\\": %d", (int)((unsigned long)bard_model % 16 == 0));
  printf(", \\"vocabulary\\": [");
  for (i = 0; i < BARD_VOCABULARY_SIZE; ++i) {
    printf("[");
    for (k = 0; bard_vocabulary[i][k]; ++k) printf("%d,", (unsigned char)bard_vocabulary[i][k]);
    printf("0],");
  }
  printf("[]], \\"start\\": [");
  for (i = 0; i < BARD_START_LENGTH; ++i) printf("%d,", (int)bard_start[i]);
  printf("-1], \\"probe\\": [");
  for (i = 0; i < BARD_PROBE_LENGTH; ++i) printf("%d,", (int)bard_probe[i]);
  printf("-1], \\"nats\\": %.9g, \\"tolerance\\": %.9g", BARD_PROBE_NATS, BARD_PROBE_TOLERANCE);
  printf(", \\"operators\\": [%s 0], \\"operator_count\\": %d", BARD_OPERATORS(QUOTED), BARD_OPERATOR_COUNT);
  printf(", \\"sizes\\": [%d, %d, %d]", BARD_MODEL_BYTES, BARD_STATE_SIZE, BARD_ARENA_BYTES);
  printf(", \\"skip\\": %d, \\"form\\": \\"%s\\", \\"sha256\\": \\"%s\\"", BARD_SKIP_UNKNOWN, BARD_NORMALIZATION, BARD_SHA256);
  printf(", \\"name\\": [");
  for (i = 0; BARD_NAME[i]; ++i) printf("%d,", (unsigned char)BARD_NAME[i]);
  printf("0]}\\n");
  return 0;
}
"""
METHODS = [
    *("AddAdd", "AddCast", "AddDequantize", "AddFullyConnected", "AddGather", "AddLogistic", "AddMul", "AddQuantize"),
    *("AddSplit", "AddSub", "AddTanh"),
]
"""Of tflite::MicroMutableOpResolver, as its header spells them, that a GRU of one layer needs."""

needs_micro = pytest.mark.skipif(find_spec("tflite_micro") is None, reason="needs tflite-micro: pip install 'charedge[micro]'")


def run_compiler(name, *arguments, folder, package=None):
    """Run a compiler in a folder, or skip the test where it is not installed."""
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed: apt install {package or name}")
    return subprocess.run([name, *arguments], cwd=folder, capture_output=True, text=True, check=False)


def seen_by_a_program(folder, language):
    """What a program prints of the bard.h and bard.c in a folder."""
    (folder / "main.c").write_text(PROGRAM)
    name, *options = LANGUAGES[language]
    result = run_compiler(name, *options, *STRICT, "main.c", "bard.c", "-o", "main", folder=folder)
    assert (result.returncode, result.stderr) == (0, "")
    printed = json.loads(subprocess.run([folder / "main"], capture_output=True, check=True).stdout)
    return {key: value[:-1] if isinstance(value, list) and key != "sizes" else value for key, value in printed.items()}


def tried(path, **changes):
    """The model file as one that TensorFlow Lite Micro was tried with, which these tests do not need."""
    file = read_model_file(path)
    return replace(
        file, manifest=replace(file.manifest, microcontroller=Microcontroller(4096, ["ADD", "FULLY_CONNECTED"]), **changes)
    )


def write_source(file, folder, name="bard"):
    header, source = c_source(file, name)
    (folder / f"{name}.h").write_text(header)
    (folder / f"{name}.c").write_text(source)


@pytest.fixture(scope="module")
def exported(train, process, tmp_path_factory):
    """A run as a C array and as a model file of the same profile."""
    if find_spec("tflite_micro") is None:
        pytest.skip("needs tflite-micro: pip install 'charedge[micro]'")
    folder, run = tmp_path_factory.mktemp("exported"), train().path
    options = ("--quantization", "int8-static")
    result = process("convert", run, *options, "--format", "c-array", "--output", folder / "new" / "bard.h", "--json")
    assert result.returncode == 0, result.stderr
    assert process("convert", run, *options, "--output", folder / "bard.tflite").returncode == 0
    return SimpleNamespace(
        folder=folder / "new", run=run, printed=json.loads(result.stdout), file=read_model_file(folder / "bard.tflite")
    )


@pytest.fixture
def command_line(request):
    """The command line in this process; its fixture has the name of the package."""
    return request.getfixturevalue("charedge")


def test_the_files_hold_the_model_of_the_run_and_all_that_its_manifest_says(exported):
    seen, file = seen_by_a_program(exported.folder, "C99"), exported.file
    manifest, micro = file.manifest, file.manifest.microcontroller
    assert bytes(seen["model"]) == file.flatbuffer
    assert [bytes(token[:-1]).decode() for token in seen["vocabulary"]] == list(file.vocabulary.tokens)
    assert seen["start"] == [file.vocabulary.tokens.index(manifest.start_text)]
    assert seen["probe"] == manifest.probe.token_ids
    assert (seen["nats"], seen["tolerance"]) == (manifest.probe.nats_per_character, manifest.probe.tolerance)
    assert seen["sizes"] == [len(file.flatbuffer), manifest.state_size, micro.arena_bytes]
    assert (seen["skip"], seen["form"], seen["sha256"]) == (1, manifest.normalization, manifest.flatbuffer_sha256)
    assert bytes(seen["name"]).decode() == manifest.name
    assert seen["operators"] == METHODS
    assert seen["operator_count"] == len(METHODS)


@pytest.mark.parametrize("language", LANGUAGES)
def test_any_token_and_any_name_is_taken_without_a_warning_and_the_model_is_aligned(models, tmp_path, language):
    file = tried(models(characters=ODD).path, name='a "quoted" \\ name ??/ */ é', unknown="unk")
    write_source(file, tmp_path)
    seen = seen_by_a_program(tmp_path, language)
    assert seen["aligned"] == 1
    tokens = [bytes(token[:-1]).decode() for token in seen["vocabulary"]]
    assert tokens == ["" if token == "\0" else token for token in file.vocabulary.tokens]
    assert bytes(seen["name"]).decode() == file.manifest.name
    assert seen["skip"] == 0
    assert seen["operators"] == ["AddAdd", "AddFullyConnected"]


@pytest.mark.parametrize("processor", ["cortex-m0plus", "cortex-m33"])
def test_a_linker_for_microcontrollers_puts_all_of_it_into_flash(models, tmp_path, processor):
    file = tried(models(quantization="int8").path)
    write_source(file, tmp_path)
    options = (f"-mcpu={processor}", "-mthumb", "-std=c99", *STRICT, "-Os", "-c", "bard.c")
    result = run_compiler("arm-none-eabi-gcc", *options, folder=tmp_path, package="gcc-arm-none-eabi libnewlib-arm-none-eabi")
    assert (result.returncode, result.stderr) == (0, "")
    sizes = run_compiler("arm-none-eabi-size", "-A", "bard.o", folder=tmp_path, package="binutils-arm-none-eabi").stdout
    sections = {name: int(size) for name, size in re.findall(r"^\.(\w+)\s+(\d+)", sizes, re.MULTILINE)}
    assert sections["data"] == sections["bss"] == sections["text"] == 0
    assert 0 <= sections["rodata"] - flash_bytes(file) < 16


def test_a_header_does_not_compile_with_the_source_of_another_model(models, tmp_path):
    write_source(tried(models(quantization="int8").path), tmp_path)
    header = (tmp_path / "bard.h").read_text()
    write_source(tried(models(quantization="float16").path), tmp_path)
    (tmp_path / "bard.h").write_text(header)
    result = run_compiler("gcc", "-c", "bard.c", folder=tmp_path)
    assert result.returncode != 0
    assert "bard.h and bard.c are of different models" in result.stderr


def test_everything_in_the_files_begins_with_the_name_of_the_header(models, tmp_path):
    file = tried(models(quantization="int8").path)
    for name in ("poe", "Bard2"):
        write_source(file, tmp_path, name)
    (tmp_path / "main.c").write_text(
        '#include "poe.h"\n#include "Bard2.h"\nint main(void) { return poe_model[0] - Bard2_model[0]; }'
    )
    result = run_compiler("gcc", *STRICT, "main.c", "poe.c", "Bard2.c", "-o", "main", folder=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert subprocess.run([tmp_path / "main"], check=False).returncode == 0


@needs_micro
def test_the_result_is_what_the_command_prints_and_the_same_run_gives_the_same_bytes(exported, tmp_path):
    result = export_c_array(exported.run, tmp_path / "bard.h")
    for name in ("bard.h", "bard.c"):
        assert (tmp_path / name).read_bytes() == (exported.folder / name).read_bytes()
    assert (result.header, result.source) == (str(tmp_path / "bard.h"), str(tmp_path / "bard.c"))
    found = json.loads(json.dumps(asdict(result)))
    for figures in (found, exported.printed):
        for measured in figures["verified"]:
            del measured["microseconds_per_character"]
    assert list(exported.printed) == [
        *("header", "source", "quantization", "flash_bytes", "arena_bytes", "verified", "logit_temperature")
    ]
    for key in ("quantization", "flash_bytes", "arena_bytes", "verified"):
        assert found[key] == exported.printed[key]
    assert "tflite-micro" in [measured["interpreter"] for measured in found["verified"]]


@needs_micro
def test_the_command_shows_both_files_what_they_take_and_the_comparison_with_keras(exported, command_line, tmp_path):
    result = command_line("convert", exported.run, "--format", "c-array", "--output", tmp_path / "bard.h")
    flash, arena = exported.printed["flash_bytes"], exported.printed["arena_bytes"]
    assert f"bard.h, bard.c: int8-static, {flash:,} bytes of flash, {arena:,} of arena" in result.stdout
    assert re.search(r"^Keras +\d\.\d{4}$", result.stdout, re.MULTILINE)
    assert re.search(r"^  tflite-micro .* [+-]0\.\d{4} ", result.stdout, re.MULTILINE)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bard.tflite", "end it with .h"),
        ("bard", "end it with .h"),
        ("bard.H", "end it with .h"),
        ("my-bard.h", "starting with a letter"),
        ("2bard.h", "starting with a letter"),
        ("_bard.h", "starting with a letter"),
        ("bärd.h", "starting with a letter"),
        ("bard.min.h", "starting with a letter"),
        ("int.h", "int is a keyword"),
        ("namespace.h", "namespace is a keyword"),
        ("xor_eq.h", "xor_eq is a keyword"),
    ],
)
def test_a_name_that_c_cannot_use_is_refused_before_anything_is_read(command_line, tmp_path, name, reason):
    result = command_line("convert", tmp_path / "no-run", "--format", "c-array", "--output", tmp_path / "new" / name)
    assert (result.status, result.stdout) == (2, "")
    assert "--output" in result.stderr
    assert reason in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_another_quantization_is_refused(command_line, tmp_path):
    for quantization in ("int8", "float32"):
        options = ("--format", "c-array", "--quantization", quantization)
        result = command_line("convert", tmp_path / "no-run", *options, "--output", tmp_path / "bard.h")
        assert result.status == 2
        assert f"--quantization {quantization} cannot be chosen: --format c-array always writes int8-static" in result.stderr


def test_all_files_at_once_are_not_c_arrays(command_line, tmp_path):
    result = command_line("convert", tmp_path / "no-run", "--format", "c-array", "--all", tmp_path / "new")
    assert (result.status, "--all has no effect with --format c-array" in result.stderr) == (2, True)


def test_a_model_too_large_for_flash_is_refused_with_its_megabytes_before_it_is_built(train, command_line, tmp_path):
    run = shutil.copytree(train().path, tmp_path / "run")
    (run / "model.keras").unlink()
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "units": 2048, "layers": 2}))
    result = command_line("convert", run, "--format", "c-array", "--output", tmp_path / "new" / "bard.h")
    assert result.status == 1
    assert re.search(
        r"takes 3\d\.\d MB of flash, and microcontrollers map at most 16 MB", result.stderr
    )  # 3 x 3 x 2048^2 and a little
    assert not (tmp_path / "new").exists()


def test_without_tflite_micro_an_error_says_what_to_install(train, command_line, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tflite_micro", None)
    result = command_line("convert", train().path, "--format", "c-array", "--output", tmp_path / "bard.h")
    assert (result.status, result.stdout) == (1, "")
    assert "pip install 'charedge[micro]'" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_source_that_charedge_did_not_write_is_not_replaced(train, command_line, tmp_path):
    (tmp_path / "main.c").write_text("int main(void) { return 0; }\n")
    result = command_line("convert", train().path, "--format", "c-array", "--output", tmp_path / "main.h")
    assert (result.status, f"{tmp_path / 'main.c'} would be replaced" in result.stderr) == (1, True)
    assert [path.name for path in tmp_path.iterdir()] == ["main.c"]
    assert (tmp_path / "main.c").read_text() == "int main(void) { return 0; }\n"


def test_a_place_where_the_source_cannot_be_is_refused(train, command_line, tmp_path):
    (tmp_path / "bard.c").mkdir()
    result = command_line("convert", train().path, "--format", "c-array", "--output", tmp_path / "bard.h")
    assert (result.status, f"{tmp_path / 'bard.c'} is a folder" in result.stderr) == (1, True)
    assert command_line("convert", train().path, "--format", "c-array", "--output", train().path / "bard.h").status == 2


@needs_micro
@pytest.mark.parametrize("before", [True, False], ids=["over older files", "in an empty folder"])
@pytest.mark.parametrize("failing", ["bard.h", "bard.c"])
def test_if_either_file_cannot_be_put_in_place_both_stay_as_they_were(exported, tmp_path, monkeypatch, failing, before):
    contents = {"bard.h": BEFORE, "bard.c": BEFORE} if before else {}
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    rename = Path.replace

    def fail_once(path, target):
        if Path(target) == tmp_path / failing and path.name == failing:
            raise OSError(30, "Read-only file system", str(path), None, str(target))
        return rename(path, target)

    monkeypatch.setattr(Path, "replace", fail_once)
    with pytest.raises(charedge.CharedgeError, match=f"{failing} cannot be written \\(Read-only file system\\)"):
        export_c_array(exported.run, tmp_path / "bard.h")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == contents


@pytest.mark.parametrize(
    ("field", "value"), [("output", 5), ("tolerance", -1), ("fit_temperature", 1), ("license", "two\nlines"), ("progress", None)]
)
def test_an_impossible_value_names_its_argument(field, value, tmp_path):
    with pytest.raises(charedge.InvalidOption, match=f"^`{field}` "):
        export_c_array(**{"run": tmp_path / "run", "output": tmp_path / "bard.h", field: value})
