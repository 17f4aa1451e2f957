"""Run folders that were edited, lost a file, or are used twice: no weights are lost, and every refusal names a way out."""

import json
import os
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from charedge.trainer.config import OPTIONS, RECORDS, REQUIRED, Config
from charedge.trainer.run import Run
from configs import make_config
from conftest import TINY, checkpoint, config_of, kept_weights

from charedge import CharedgeError


@pytest.fixture
def copy(train, tmp_path):
    """A finished run that a test may damage."""
    return shutil.copytree(train().path, tmp_path / "run")


def edit(run, **fields):
    config = {**config_of(run), **fields}
    (run / "config.json").write_text(json.dumps({name: value for name, value in config.items() if value is not REMOVED}))


REMOVED = object()
WRONG = (REMOVED, None, True, -1, 0, 3, 10**400, 1e999, float("nan"), 0.5, "", "text", "\0", [], [3], ["\0"], {}, {"files": 3})


def test_an_edited_configuration_is_one_sentence_that_names_the_file(copy):
    """Whatever a field is set to: a value that passes is one that the field may have."""
    text = (copy / "config.json").read_text()
    accepted = {}
    for name in json.loads(text):
        for value in WRONG:
            edit(copy, **{name: value})
            try:
                Run(copy).config()
                accepted.setdefault(name, []).append(value)
            except CharedgeError as error:
                assert f"{copy}/config.json" in str(error), (name, value)  # noqa: PT017
            (copy / "config.json").write_text(text)
    for name in ("sequence_length", "batch_size", "layers"):
        assert accepted[name] == [3], name
    for name in ("seed", "warmup", "patience"):
        assert accepted[name] == ([] if name == "seed" else [REMOVED]) + [0, 3], name
    assert accepted["validation_split"] == [0.5]
    assert accepted["learning_rate"] == [3, 0.5]
    assert "corpus" not in accepted


def test_an_option_that_a_configuration_leaves_out_is_off(copy):
    """Only what contract 1 names is there: the rest is what a training without these options does."""
    values = json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps({name: values[name] for name in REQUIRED}))
    config = Run(copy).config()
    off = (config.batching, config.learning_rate_decay, config.warmup, config.clip_norm, config.weight_drop, config.average)
    assert off == ("shuffled", "none", 0, 0, 0, 0)
    assert (config.cpu_devices, config.teachers, config.initialized_from) == (1, (), None)


def test_every_field_of_the_configuration_is_checked():
    assert [*OPTIONS, *RECORDS] == [*Config.__dataclass_fields__]


@pytest.mark.parametrize("content", [b"", b"[]", b"3", b"null", b"\xff\xfe", b"[" * 100_000, b'{"cell": "\\udcff"}'])
def test_a_configuration_that_is_not_an_object_is_refused(copy, charedge, content):
    (copy / "config.json").write_bytes(content)
    result = charedge("train", "--resume", "--output", copy)
    assert (result.status, "config.json is damaged" in result.stderr) == (1, True), result.stderr


@pytest.mark.parametrize(
    ("fields", "match"),
    [
        ({"units": 40}, "does not match config.json"),
        ({"average": 0.9}, "does not match config.json"),
        ({"precision": "mixed_float16"}, "does not match config.json"),
        ({"validation_split": 1e-9}, "leaves nothing to validate on"),
        ({"corpus": {"files": [], "characters": 3, "sha256": ""}}, "give CORPUS"),
        ({"sequence_length": 7, "batching": "shuffled", "versions": {}, "another": 3}, None),
    ],
    ids=str,
)
def test_a_configuration_that_disagrees_with_the_run_is_refused(copy, charedge, fields, match):
    edit(copy, **fields)
    result = charedge("train", "--resume", "--output", copy)
    assert "Traceback" not in result.stderr
    assert (result.status, (match or "") in result.stderr) == (1 if match else 0, True), result.stderr


def test_a_state_of_another_batch_is_refused(train, copy, charedge):
    """Mid-epoch checkpoints of carried batches hold the state."""
    path = sorted((copy / "checkpoints").iterdir())[-1]
    arrays = checkpoint(copy)
    position = {**json.loads(str(arrays["position"])), "epoch": 1, "step": 2, "loss_sum": 5.0, "seconds": 1.0}
    path.unlink()
    np.savez(
        path.with_name("epoch-00001-step-0000002.npz"),
        **{**arrays, "position": np.array(json.dumps(position)), "state": np.ones((8, 48), "f4")},
    )
    result = charedge("train", "--resume", "--output", copy)
    assert (result.status, "disagrees with itself" in result.stderr) == (1, True), result.stderr


@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_resume_without_the_losses_is_refused(copy, charedge, damage):
    path = copy / "history.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.unlink()
    if damage != "missing":
        path.write_text("".join(lines[:-1]))
    result = charedge("train", "--resume", "--output", copy)
    assert (result.status, "history.csv" in result.stderr, "Traceback" in result.stderr) == (1, True, False), result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize(
    "damage", [lambda path: path.unlink(), lambda path: path.write_bytes(bytes(3000))], ids=["missing", "zeros"]
)
def test_a_resume_writes_the_best_weights_again(copy, charedge, damage):
    before = kept_weights(copy)
    damage(copy / "model.keras")
    result = charedge("train", "--resume", "--output", copy)
    assert (result.status, "written again" in result.stderr) == (0, True), result.stderr
    for expected, found in zip(before, kept_weights(copy), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_averaged_best_weights_are_written_again(train, tmp_path, charedge):
    run = shutil.copytree(train("--average", "0.9").path, tmp_path / "run")
    before = kept_weights(run)
    (run / "model.keras").unlink()
    assert charedge("train", "--resume", "--output", run).status == 0
    for expected, found in zip(before, kept_weights(run), strict=True):
        np.testing.assert_array_equal(found, expected)


def test_best_weights_that_no_checkpoint_holds_are_not_replaced_by_others(copy, charedge):
    (copy / "model.keras").unlink()
    history = (copy / "history.csv").read_text().splitlines()
    row = history[1].split(",")
    row[2] = "0.5"  # epoch 1 was the best, whose checkpoint is gone
    (copy / "history.csv").write_text("\n".join([history[0], ",".join(row), *history[2:]]) + "\n")
    (copy / "checkpoints" / "epoch-00001-step-0000000.npz").unlink()
    result = charedge("train", "--resume", "--output", copy)
    assert (result.status, "those of epoch 1" in result.stderr, "--overwrite" in result.stderr) == (1, True, True), result.stderr
    assert not (copy / "model.keras").exists()


def test_a_conversion_without_weights_names_the_resume_that_writes_them(copy, charedge, tmp_path):
    (copy / "model.keras").unlink()
    result = charedge("convert", copy, "--output", tmp_path / "m.tflite")
    assert (result.status, "resume the training, which writes it" in result.stderr) == (1, True), result.stderr


def test_the_best_weights_are_on_the_disk_before_they_are_in_their_place(tmp_path, monkeypatch):
    """Every file that is renamed to model.keras was synced, as whole as it is then."""
    from charedge.trainer.model import build_model, save_model

    synced, sync, replace = {}, os.fsync, os.replace
    config = make_config(layers=1, units=4, embedding_dim=2)
    renamed = []

    def fsync(descriptor):
        synced[os.fstat(descriptor).st_ino] = os.fstat(descriptor).st_size
        sync(descriptor)

    def rename(source, target):
        renamed.append((Path(target).name, synced.get(Path(source).stat().st_ino) == Path(source).stat().st_size))
        return replace(source, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", rename)
    save_model(build_model(5, config).get_weights(), 5, config, tmp_path / "model.keras")
    assert renamed == [("model.keras", True)]
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def run_while_waiting(charedge, corpus, tmp_path, train, *options):
    """Train from a FIFO into a folder in which another run was finished before its text came."""
    run, pipe = tmp_path / "waited", tmp_path / "corpus.fifo"
    os.mkfifo(pipe)

    def finish_the_other():
        with pipe.open("wb") as file:  # opens when the training reads
            if run.exists():
                shutil.rmtree(run)
            shutil.copytree(train("--seed", "5").path, run)
            file.write(corpus.read_bytes())

    other = threading.Thread(target=finish_the_other)
    other.start()
    result = charedge("train", pipe, "--output", run, *options)
    other.join()
    return run, result


def test_a_run_that_was_finished_while_the_corpus_was_read_is_kept(charedge, corpus, tmp_path, train):
    run, result = run_while_waiting(charedge, corpus, tmp_path, train, *TINY)
    assert (result.status, "already holds a run" in result.stderr) == (1, True), result.stderr
    assert (run / "model.keras").read_bytes() == (train("--seed", "5").path / "model.keras").read_bytes()


def test_a_run_that_was_replaced_while_the_corpus_was_read_is_not_resumed(charedge, corpus, tmp_path, train):
    shutil.copytree(train().path, tmp_path / "waited")
    run, result = run_while_waiting(charedge, corpus, tmp_path, train, "--resume", "--epochs", "3")
    assert (result.status, "by another training in the meantime" in result.stderr) == (1, True), result.stderr
    assert config_of(run) == config_of(train("--seed", "5").path)


def test_a_start_that_was_killed_is_replaced_with_overwrite(charedge, corpus, tmp_path, train):
    run = tmp_path / "run"
    shutil.copytree(train().path, run)
    for path in run.iterdir():
        if path.name != "config.json":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    for options in ((), ("--resume",)):
        result = charedge("train", corpus, "--output", run, *TINY, *options)
        assert (result.status, "--overwrite" in result.stderr) == (1, True), result.stderr
    assert charedge("train", corpus, "--output", run, *TINY, "--overwrite", "--epochs", "1").status == 0


LIMITED = """
import resource, sys
from charedge.program import run
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(run(sys.argv[2:]))
"""


def test_a_full_disk_in_the_first_epoch_names_a_remedy_that_works(corpus, process, fork_server, tmp_path):
    run = tmp_path / "run"
    result = fork_server.run(["-c", LIMITED, 20_000, "train", corpus, "--output", run, *TINY, "--epochs", 1])
    assert (result.returncode, "Traceback" in result.stderr) == (1, False), result.stderr
    assert "make room, then train again with --overwrite" in result.stderr
    assert "--resume" not in result.stderr
    again = process("train", corpus, "--output", run, *TINY, "--epochs", "1", "--overwrite")
    assert again.returncode == 0, again.stderr


@pytest.mark.parametrize("loss", ["moved", "deleted"])
def test_a_run_that_is_moved_while_it_trains_says_so(charedge, corpus, tmp_path, monkeypatch, loss):
    from charedge.trainer.loop import Training

    run, measured = tmp_path / "run", Training._measured_epoch

    def measured_and_moved(training):
        run.rename(tmp_path / "moved") if loss == "moved" else shutil.rmtree(run)
        return measured(training)

    monkeypatch.setattr(Training, "_measured_epoch", measured_and_moved)
    result = charedge("train", corpus, "--output", run, *TINY)
    assert (result.status, "was moved or deleted" in result.stderr, "make room" in result.stderr) == (1, True, False), result.stderr
    assert not run.exists()


@pytest.mark.parametrize(("limit", "way"), [(0, "train again with `overwrite`"), (1, "continue with `resume`")])
def test_the_remedy_for_a_full_disk_depends_on_the_checkpoints(tmp_path, limit, way):
    import errno

    from charedge.trainer.checkpoints import unwritable

    (tmp_path / "checkpoints").mkdir()
    for i in range(limit):
        (tmp_path / "checkpoints" / f"epoch-{i:05d}-step-0000000.npz").write_bytes(b"")
    full = str(unwritable(tmp_path, tmp_path / "model.keras", OSError(errno.ENOSPC, "No space left on device")))
    assert full.endswith(f"(No space left on device): make room, then {way}.")
    read_only = str(unwritable(tmp_path, tmp_path / "model.keras", OSError(errno.EROFS, "Read-only file system")))
    assert read_only.endswith(f"(Read-only file system): {way}.")


@pytest.mark.parametrize("backend", ["jax"])
def test_training_computes_with_tensorflow_whatever_keras_is_set_to(process, train, backend):
    result = process("evaluate", train().path, env={**os.environ, "KERAS_BACKEND": backend})
    assert result.returncode == 0, result.stderr


def test_a_keras_that_runs_on_another_backend_already_is_refused(train, tmp_path):
    program = (
        "import sys, types; keras = types.ModuleType('keras'); keras.config = types.SimpleNamespace(backend=lambda: 'jax');"
        "sys.modules['keras'] = keras;"
        "from charedge.program import run; sys.exit(run(['evaluate', sys.argv[1]]))"
    )
    result = subprocess.run([sys.executable, "-c", program, train().path], capture_output=True, text=True, check=False)
    assert (result.returncode, "runs it on jax" in result.stderr, "Traceback" in result.stderr) == (1, True, False), result.stderr


LATIN = os.fsdecode(b"caf\xe9")


@pytest.mark.parametrize("option", ["CORPUS", "--output", "--init-from", "--teacher"])
def test_a_path_that_is_not_utf8_is_refused_before_anything_is_made(process, corpus, tmp_path, option):
    shutil.copy(corpus, tmp_path / LATIN)
    arguments = [corpus, "--output", tmp_path / "run", option, tmp_path / LATIN]
    if option == "CORPUS":
        arguments = [tmp_path / LATIN, "--output", tmp_path / "run"]
    before = sorted(tmp_path.iterdir())
    result = process("train", *map(os.fspath, arguments), *TINY)
    assert (result.returncode, option in result.stderr, "not valid UTF-8" in result.stderr) == (1, True, True), result.stderr
    assert sorted(tmp_path.iterdir()) == before


def test_texts_logs_and_vocabularies_may_have_any_name(train, process, corpus, tmp_path):
    (tmp_path / "texts").mkdir()
    shutil.copy(corpus, tmp_path / "texts" / f"{LATIN}.txt")
    vocabulary = shutil.copy(train().path / "vocabulary.txt", tmp_path / f"{LATIN}.vocabulary")
    options = (*TINY, "--epochs", "1", "--json-log", tmp_path / f"{LATIN}.log", "--vocabulary", vocabulary)
    run = tmp_path / "run"
    result = process("train", tmp_path / "texts", "--output", run, *options)
    assert result.returncode == 0, result.stderr
    assert config_of(run)["corpus"]["files"] == [str(tmp_path / "texts" / "caf\ufffd.txt")]
    assert (tmp_path / f"{LATIN}.log").exists()
    resumed = process("train", "--output", run, "--resume", "--vocabulary", vocabulary, "--json-log", tmp_path / f"{LATIN}.log")
    assert resumed.returncode == 0, resumed.stderr
