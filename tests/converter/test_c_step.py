"""The C step: on this machine against numpy, and on emulated microcontrollers against this machine, to the last bit."""

import re
import subprocess
import sys
from types import SimpleNamespace

import c_programs
import numpy as np
import pytest
import reference
from c_programs import BOARDS, C99, CPP17, STEP, WARNINGS, Error, Library, run
from charedge.converter.activation_scales import activation_scales
from charedge.converter.profiles import PROFILES
from charedge.converter.quantization import Statistics, quantize
from charedge.converter.step import Weights, build_step
from charedge.runtime.bundled import NAMES, find_model
from charedge.runtime.model_file import read_model_file
from conftest import REPOSITORY

from charedge import export_c_array


def needs(*programs):
    reason = c_programs.missing(*programs)
    return pytest.mark.skipif(bool(reason), reason=reason)


here, both = needs("gcc"), needs("gcc", "g++")
arm, emulated = needs("arm-none-eabi-gcc"), needs("gcc", "arm-none-eabi-gcc", "qemu-system-arm")

SHAPES = {
    "gru": {"cell": "gru", "layers": 2},
    "gru-table": {"cell": "gru", "layers": 1, "embedding_dim": 64},
    "lstm": {"cell": "lstm", "layers": 2, "units": 23},
    "lstm-table": {"cell": "lstm", "layers": 2, "embedding_dim": 96},
}
"""With and without an input table; 23 is no multiple of what a processor reads at once."""


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    return Library(tmp_path_factory.mktemp("library"))


def file_of(models, shape, quantization="int8"):
    return read_model_file(models(quantization=quantization, **SHAPES[shape]).path)


def flatbuffer(weights, quantization="int8", fold=None):
    graph = build_step(weights, fold)
    ids = np.random.default_rng(3).integers(0, weights.vocabulary_size, 400).astype(np.int32)
    statistics = Statistics(scales=activation_scales(graph, ids)) if quantization == "int8-static" else None
    return quantize(graph, PROFILES[quantization], statistics).to_flatbuffer("step", "", {})


@both
@pytest.mark.parametrize(("compiler", "language"), [("gcc", C99), ("g++", CPP17)])
def test_the_source_compiles_without_warnings(tmp_path, compiler, language):
    run(compiler, *language, *WARNINGS, "-O3", "-c", STEP, "-o", tmp_path / "step.o")


@arm
@pytest.mark.parametrize("processor", BOARDS)
@pytest.mark.parametrize("language", [C99, CPP17], ids=["C99", "C++17"])
def test_on_microcontrollers_it_takes_no_ram_no_allocation_and_no_double(tmp_path, processor, language):
    _, memory, wanted = c_programs.sizes(tmp_path, processor, *language, "-Os")
    assert memory == 0
    allowed = {"memcpy", "memcmp", "memset", "strlen", "strcpy", "strcat"}
    assert {name for name in wanted if not name.startswith("__aeabi_")} <= allowed
    assert not [name for name in wanted if re.fullmatch(r"__aeabi_(c?d(add|r?sub|mul|div|cmp|2).*|.*2d)", name)]


def test_header_and_source_stay_small():
    assert sum(len(path.read_text().splitlines()) for path in (STEP, STEP.with_suffix(".h"))) <= 500


@here
@pytest.mark.parametrize("quantization", ["int8", "int8-static"])
@pytest.mark.parametrize("fold", [True, False])
@pytest.mark.parametrize(("cell", "layers"), [("gru", 1), ("gru", 3), ("lstm", 1), ("lstm", 2)])
def test_the_step_is_numpys_cell_arithmetic(library, cell, layers, fold, quantization):
    weights = Weights.random(cell, layers, units=64)
    ids = np.random.default_rng(2).integers(0, weights.vocabulary_size, 200)
    expected, _ = reference.run_model(weights, ids)
    model = library.open(flatbuffer(weights, quantization, fold))
    found = np.array([model.step(token) for token in ids])
    assert np.abs(found - expected).mean() < 0.02 * expected.std()
    assert (model.layers, model.units, model.state_size) == (layers, 64, weights.state_size)


@here
def test_a_first_step_is_exact(library):
    # From a state of zeros and with a table nothing is rounded but weights, so dequantised weights give the gates as they are.
    weights = Weights.random("gru", 1, units=32, embedding_dim=64)
    table = weights.embedding @ weights.layers[0].kernel + weights.layers[0].input_bias
    scale = np.abs(table).max(axis=0) / 127
    x, u = np.rint(table / scale) * scale, weights.layers[0].recurrent_bias
    assert u is not None
    z, r = (reference.sigmoid(x[:, i * 32 : i * 32 + 32] + u[i * 32 : i * 32 + 32]) for i in range(2))
    expected = (1 - z) * np.tanh(x[:, 64:] + r * u[64:])
    bytes_ = flatbuffer(weights, fold=True)
    for token in range(weights.vocabulary_size):
        model = library.open(bytes_)
        model.step(token)
        np.testing.assert_allclose(model.state, expected[token], atol=1e-6)


@here
@pytest.mark.parametrize("quantization", ["int8", "int8-static"])
@pytest.mark.parametrize("shape", SHAPES)
def test_the_probe_comes_out_as_recorded(library, models, shape, quantization):
    file = file_of(models, shape, quantization)
    probe = file.manifest.probe
    assert abs(library.open(file.flatbuffer).score(probe.token_ids) - probe.nats_per_character) < probe.tolerance


@here
@pytest.mark.parametrize("name", NAMES)
def test_the_bundled_models_give_their_probes(library, name):
    file = read_model_file(find_model(name))
    probe = file.manifest.probe
    assert abs(library.open(file.flatbuffer).score(probe.token_ids) - probe.nats_per_character) < 0.005


@here
def test_a_score_is_the_mean_of_the_logits_cost(library, models):
    file = file_of(models, "gru")
    ids, model = file.manifest.probe.token_ids, library.open(file.flatbuffer)
    logits = np.array([model.step(token) for token in ids[:-1]])
    expected = -reference.log_softmax(logits)[np.arange(len(ids) - 1), ids[1:]].mean()
    assert model.score(ids) == pytest.approx(expected, abs=1e-5)


@here
def test_a_model_is_read_from_any_address_and_with_what_follows_its_flatbuffer(library, models):
    file, path = file_of(models, "lstm"), models(quantization="int8", **SHAPES["lstm"]).path
    expected = library.open(file.flatbuffer).step(7)
    whole = np.frombuffer(b"\0" + path.read_bytes(), np.uint8)[1:]
    np.testing.assert_array_equal(library.open(whole).step(7), expected)


@here
def test_without_logits_the_state_is_the_same(library, models):
    bytes_ = file_of(models, "lstm").flatbuffer
    one, other = library.open(bytes_), library.open(bytes_)
    for token in (3, 1, 4):
        one.step(token)
        other.step(token, logits=False)
    np.testing.assert_array_equal(one.state, other.state)
    assert not other.logits.any()


@here
def test_a_token_outside_the_vocabulary_is_the_unknown_one(library, models):
    bytes_ = file_of(models, "gru-table").flatbuffer
    np.testing.assert_array_equal(library.open(bytes_).step(4_000_000_000), library.open(bytes_).step(0))


@here
@pytest.mark.parametrize("quantization", ["float32", "float16", "int4"])
def test_a_file_of_another_profile_is_refused(library, quantization):
    weights = Weights.random()
    with pytest.raises(Error) as caught:
        library.open(flatbuffer(weights, quantization))
    assert caught.value.args == (c_programs.UNSUPPORTED,)


@here
def test_more_layers_than_were_compiled_in_are_refused(library, tmp_path):
    bytes_ = flatbuffer(Weights.random(layers=17, units=4))
    with pytest.raises(Error) as caught:
        library.open(bytes_)
    assert caught.value.args == (c_programs.TOO_DEEP,)
    assert Library(tmp_path, "-DCHAREDGE_MAX_LAYERS=17").open(bytes_).layers == 17


@here
@pytest.mark.parametrize("bytes_", [b"", b"TFL3", b"\0" * 100, b"\x10\0\0\0TFL3" + b"\xff" * 100], ids=range(4))
def test_what_is_no_model_is_refused(library, bytes_):
    with pytest.raises(Error):
        library.open(bytes_)


@here
@pytest.mark.parametrize("shape", ["gru-table", "lstm"])
def test_damaged_models_never_make_it_leave_its_memory(tmp_path, shape):
    weights = Weights.random(vocabulary_size=7, **{**SHAPES[shape], "units": 3})  # few weights: most bytes are structure
    (tmp_path / "model").write_bytes(flatbuffer(weights))
    sanitizers = ["-fsanitize=address,undefined,float-cast-overflow", "-fno-sanitize-recover=all", "-g", "-O1"]
    program = c_programs.HARNESS / "damage.c"
    run("gcc", *C99, *WARNINGS, *sanitizers, "-I", STEP.parent, program, STEP, "-o", tmp_path / "damage")
    opened, refused = map(int, run(tmp_path / "damage", tmp_path / "model").split())
    assert opened > 500
    assert refused > 500


@here
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.8), (0.7, 0.4), (2.0, 0.99)])
def test_a_draw_has_the_distribution_that_generate_documents(library, temperature, top_p):
    logits = np.random.default_rng(5).normal(0, 2, 12)
    logits[0] = 9  # [UNK]
    expected = reference.distribution(logits, temperature=temperature, top_p=top_p)
    random, draws = np.array([1], np.uint32), 40_000
    found = np.bincount([library.sample(logits, temperature, top_p, random) for _ in range(draws)], minlength=12) / draws
    assert found[expected == 0].sum() == 0
    assert np.abs(found - expected).max() < 4 * 0.5 / draws**0.5


@here
def test_temperature_0_takes_the_first_of_the_most_likely(library):
    assert library.sample([9, 1, 5, 5, 2], 0.0, 1.0, np.zeros(1, np.uint32)) == 2


@here
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_logits_that_are_not_finite_give_no_token(library, value):
    assert library.sample([1, 2, value, 3], 0.8, 1.0, np.zeros(1, np.uint32)) == 0


@here
def test_neighbouring_seeds_draw_different_texts(library):
    logits = np.zeros(65)
    texts = {
        tuple(library.sample(logits, 1.0, 1.0, random) for _ in range(8))
        for seed in range(100)
        for random in [np.array([seed], np.uint32)]
    }
    assert len(texts) == 100
    assert len({text[0] for text in texts}) > 40


@emulated
@pytest.mark.parametrize("processor", BOARDS)
@pytest.mark.parametrize("shape", [*SHAPES, "bundled"])
def test_a_microcontroller_writes_what_this_machine_writes_to_the_last_bit(tmp_path, models, shape, processor):
    path = find_model("shakespeare-tiny") if shape == "bundled" else models(quantization="int8-static", **SHAPES[shape]).path
    file = read_model_file(path)
    sources = [*c_programs.definitions(tmp_path, file), c_programs.HARNESS / "generate.c", STEP]
    expected = c_programs.parse(run(c_programs.build_for_host(tmp_path / "host", *sources)))
    board = c_programs.build_for_board(tmp_path / "board", processor, *sources)
    found = c_programs.parse(c_programs.emulate(board, processor))
    probe = file.manifest.probe
    assert abs(found.score - probe.nats_per_character) < probe.tolerance
    assert (found.score, found.logits, found.text) == (expected.score, expected.logits, expected.text)
    assert len(set(found.text)) > 10
    assert min(found.text) > 0


LOOP = """
#include "bard.h"
#include "charedge_step.h"
#include <stdio.h>
#include <string.h>
static charedge_model model;
static float state[BARD_STATE_SIZE], logits[BARD_VOCABULARY_SIZE], nats;
static int8_t scratch[BARD_SCRATCH_BYTES];
int main(void)
{
    int i;
    uint32_t token = 1, random = 1;
    charedge_error error;
    %s
    return error != CHAREDGE_OK || nats > 9.0f;
}
"""


@pytest.fixture(scope="module")
def exported(train, process, tmp_path_factory):
    """What `charedge convert --format c` writes of a run, and what it prints."""
    folder = tmp_path_factory.mktemp("exported") / "a new folder"
    result = process("convert", train().path, "--format", "c", "--output", folder / "bard.h")
    assert result.returncode == 0, result.stderr
    return SimpleNamespace(folder=folder, run=train().path, printed=result.stdout)


def test_the_command_writes_the_model_the_step_and_an_example(exported):
    names = {"bard.c", "bard.h", "charedge_step.c", "charedge_step.h", "main.c"}
    assert {path.name for path in exported.folder.iterdir()} == names
    assert (exported.folder / STEP.name).read_bytes() == STEP.read_bytes()
    assert "int8-static" in exported.printed


@both
@pytest.mark.parametrize(("compiler", "language"), [("gcc", C99), ("g++", CPP17)])
def test_what_the_command_writes_compiles_without_warnings_and_writes_text(exported, tmp_path, compiler, language):
    sources = [exported.folder / name for name in ("main.c", "bard.c", "charedge_step.c")]
    run(compiler, *language, *WARNINGS, "-O2", *sources, "-o", tmp_path / "bard")
    text = run(tmp_path / "bard")
    assert len(text) == 200 + 1
    assert "[UNK]" not in text


@here
def test_the_loop_on_the_page_writes_text(exported, tmp_path):
    (loop,) = re.findall(r"```c\n(.*?)```", (REPOSITORY / "docs" / "microcontrollers.md").read_text(encoding="utf-8"), re.DOTALL)
    (tmp_path / "main.c").write_text(LOOP % loop)
    sources = [tmp_path / "main.c", *(exported.folder / name for name in ("bard.c", "charedge_step.c"))]
    run("gcc", *C99, *WARNINGS, "-I", exported.folder, *sources, "-o", tmp_path / "bard")
    assert len(run(tmp_path / "bard")) == 200


@here
def test_the_command_says_how_to_compile_the_example(exported):
    line = next(line for line in exported.printed.splitlines() if line.startswith("next: "))
    assert len(run("sh", "-c", line.removeprefix("next: "))) == 200 + 1


@emulated
@pytest.mark.parametrize("processor", BOARDS)
def test_what_the_command_writes_runs_on_a_microcontroller_and_writes_the_same_text(exported, tmp_path, processor):
    sources = [exported.folder / name for name in ("main.c", "bard.c", "charedge_step.c")]
    board = c_programs.build_for_board(tmp_path / "board", processor, *sources)
    assert c_programs.emulate(board, processor) == run(c_programs.build_for_host(tmp_path / "host", *sources))


@here
def test_an_example_whose_model_is_not_the_probes_stops(exported, tmp_path):
    text = (exported.folder / "bard.h").read_text()
    changed = re.sub(r"(BARD_PROBE_NATS) .*", r"\1 0.5", text)
    (tmp_path / "bard.h").write_text(changed)
    sources = [exported.folder / name for name in ("bard.c", "charedge_step.c")]
    (tmp_path / "main.c").write_bytes((exported.folder / "main.c").read_bytes())
    run("gcc", "-O2", "-I", tmp_path, "-I", exported.folder, tmp_path / "main.c", *sources, "-o", tmp_path / "bard")
    done = subprocess.run([tmp_path / "bard"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout == "the probe failed: this machine does not compute what was verified\n"


def test_an_example_that_is_there_stays(exported, tmp_path):
    (tmp_path / "main.c").write_text("int main(void) { return 0; }\n")
    export_c_array(exported.run, tmp_path / "bard.h", step=True)
    assert (tmp_path / "main.c").read_text() == "int main(void) { return 0; }\n"
    assert (tmp_path / "charedge_step.c").exists()


def test_the_step_needs_no_tflite_micro(exported, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tflite_micro", None)
    result = export_c_array(exported.run, tmp_path / "bard.h", step=True)
    assert result.arena_bytes is None
    header = (tmp_path / "bard.h").read_text()
    assert "BARD_SCRATCH_BYTES 96\n" in header  # 2 x 48 units, the table folded
    assert "ARENA" not in header


@pytest.mark.parametrize("name", ["main.h", "charedge_step.h", "charedge.h"])
def test_a_header_with_the_name_of_the_step_or_the_example_is_refused(request, tmp_path, name):
    command_line = request.getfixturevalue("charedge")
    result = command_line("convert", tmp_path / "no-run", "--format", "c", "--output", tmp_path / name)
    assert result.status == 2
    assert "choose another name" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_another_quantization_is_refused(request, tmp_path):
    options = ("--format", "c", "--quantization", "int4", "--output", tmp_path / "bard.h")
    result = request.getfixturevalue("charedge")("convert", tmp_path / "no-run", *options)
    assert result.status == 2
    assert "--quantization int4 cannot be chosen: --format c always writes int8-static" in result.stderr
