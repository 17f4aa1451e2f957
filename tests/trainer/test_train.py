"""`charedge train` and `charedge evaluate` through the command line."""

import csv
import hashlib
import json
import math
import os
import re
import signal

import numpy as np
import pytest
from charedge.trainer.lock import locked
from configs import make_config
from conftest import TINY, checkpoint, config_of

CONFIG_KEYS = {
    *("cell", "layers", "units", "embedding_dim", "dropout", "sequence_length", "batch_size", "epochs", "learning_rate"),
    *("validation_split", "normalization", "unknown", "seed", "precision", "corpus", "versions"),
}
HISTORY = "epoch,train_nats_per_character,validation_nats_per_character,characters_per_second,learning_rate,seconds"


def losses(run):
    """Training and validation of every epoch."""
    return [[float(loss) for loss in line.split(",")[1:3]] for line in (run / "history.csv").read_text().splitlines()[1:]]


def test_the_run_folder_is_as_the_contract_says(train, corpus):
    run = train().path
    config = json.loads((run / "config.json").read_text())
    text = corpus.read_text()
    assert set(config) >= CONFIG_KEYS
    assert config["corpus"]["characters"] == len(text)
    assert config["corpus"]["sha256"] == hashlib.sha256(text.encode()).hexdigest()
    assert set(config["versions"]) >= {"charedge", "tensorflow", "keras", "python"}
    assert config["precision"] == "float32"
    assert (run / "vocabulary.txt").read_bytes().count(b"\n") == len(set(text)) + 1
    assert (run / "history.csv").read_text().splitlines()[0] == HISTORY
    assert (run / "curves.png").read_bytes()[:4] == b"\x89PNG"
    assert list(run.glob("events.out.tfevents.*"))
    assert not [path.name for path in run.iterdir() if path.name.startswith(".")]


def test_training_learns(train):
    with (train().path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["epoch"]) for row in rows] == [1, 2]
    validation = [float(row["validation_nats_per_character"]) for row in rows]
    assert validation[1] < validation[0] < 3.5


def test_the_loss_of_an_untrained_model_is_that_of_chance(train):
    found = re.search(r"untrained loss ([\d.]+) nats per character over the first batch, ln\((\d+)\) = ([\d.]+)", train().stderr)
    assert found
    assert float(found[3]) == pytest.approx(math.log(int(found[2])), abs=1e-3)
    assert float(found[1]) == pytest.approx(math.log(int(found[2])), rel=0.05)
    assert "warning" not in train().stderr


def test_a_person_sees_losses_speed_and_a_sample(train):
    stderr = train().stderr
    figures = r"training \d\.\d+  validation \d\.\d+ nats per character \(\d\.\d+ bits\)  [\d.]+ k chars/s"
    assert re.search(rf"^charedge: epoch 2/2  {figures}", stderr, re.MULTILINE)
    assert stderr.count("\ncharedge: sample:\n  ") == 2
    assert "oneDNN" not in stderr
    assert "charedge convert" in train().stdout


def test_each_loss_of_a_training_says_what_it_is_over(train):
    rows = [line.split(",") for line in (train().path / "history.csv").read_text().splitlines()[1:]]
    training, validation = map(float, min(rows, key=lambda row: float(row[2]))[1:3])
    best, *losses = train().stdout.splitlines()[:3]
    assert best == f"{train().path}: GRU 1 x 48, weights of epoch 2 of 2, the best one"
    shown = [f"{nats:.4f} nats per character ({nats / math.log(2):.4f} bits per character)" for nats in (training, validation)]
    assert losses == [
        f"training loss: {shown[0]} over the first 36,000 characters, mean of the batches of epoch 2",
        f"validation loss: {shown[1]} over the 4,000 held-out characters, 8 streams with the state carried",
    ]


@pytest.mark.parametrize(
    ("options", "over"),
    [
        ((), "4,000 held-out characters of {run}, one stream with the state carried"),
        (("--protocol", "windows"), "4,000 held-out characters of {run}, 3,840 predictions in windows of 256 from zero states"),
        (
            ("{text}", "--protocol", "last-character", "--window", "50", "--stride", "7"),
            "180 characters of {text} (20 skipped), 19 predictions, each after a window of 50 from a zero state, stride 7",
        ),
    ],
)
def test_the_loss_of_an_evaluation_says_what_it_is_over(train, charedge, tmp_path, options, over):
    (tmp_path / "text.txt").write_text("a \u6f22 class " * 20, encoding="utf-8")
    names = {"run": train().path, "text": tmp_path / "text.txt"}
    (line,) = charedge("evaluate", train().path, *(option.format(**names) for option in options)).stdout.splitlines()
    found = re.fullmatch(r"\d\.\d{4} nats per character \(\d\.\d{4} bits per character\) over (.*)", line)
    assert found
    assert found[1] == over.format(**names)


def test_the_model_loads_in_plain_keras(train, fork_server):
    program = (
        "import sys, keras, numpy as np; m = keras.saving.load_model(sys.argv[1]);"
        "out = m({'tokens': np.ones((2, 7), 'int32'), 'state': np.zeros((2, 48), 'float32')});"
        "print(*out['logits'].shape, *out['state'].shape)"
    )
    result = fork_server.run(["-c", program, train().path / "model.keras"])
    assert result.returncode == 0, result.stderr
    assert result.stdout.split()[:2] == ["2", "7"]
    assert result.stdout.split()[3:] == ["2", "48"]


def test_the_same_seed_trains_the_same_weights(train, tmp_path, corpus, process):
    assert process("train", corpus, "--output", tmp_path / "again", *TINY, env=os.environ).returncode == 0
    expected, found = checkpoint(train().path), checkpoint(tmp_path / "again")
    assert expected.keys() == found.keys()
    assert all((expected[key] == found[key]).all() for key in expected)


@pytest.mark.parametrize("devices", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_ctrl_c_saves_and_resume_ends_with_the_same_weights(train, tmp_path, corpus, process, start, devices):
    run = tmp_path / "run"
    options = ("--dropout", "0.2", "--cpu-devices", devices)
    training = start("train", corpus, "--output", run, *TINY, *options)
    assert any("untrained" in line for line in training.stderr)
    training.send_signal(signal.SIGINT)
    assert "--resume" in training.stderr.read()
    assert training.wait() == 130
    assert len(list((run / "checkpoints").iterdir())) == 1

    resumed = process("train", "--output", run, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    assert config_of(run)["cpu_devices"] == int(devices)
    whole = train(*options)
    assert config_of(run)["hardware"] == config_of(whole.path)["hardware"]
    expected, found = checkpoint(whole.path), checkpoint(run)
    assert all((expected[key] == found[key]).all() for key in expected)
    assert [line.split(",")[2] for line in (run / "history.csv").read_text().splitlines()] == [
        line.split(",")[2] for line in (whole.path / "history.csv").read_text().splitlines()
    ]


def test_a_finished_run_resumes_with_more_epochs(tmp_path, corpus, process):
    run = tmp_path / "run"
    options = [*TINY]
    options[options.index("--epochs") + 1] = "1"
    assert process("train", corpus, "--output", run, *options).returncode == 0
    result = process("train", corpus, "--output", run, "--resume", "--epochs", "2", "--units", "48")
    assert result.returncode == 0, result.stderr
    assert len((run / "history.csv").read_text().splitlines()) == 3
    assert json.loads((run / "config.json").read_text())["epochs"] == 2


def test_mixed_precision_is_recorded(tmp_path, corpus, process):
    options = [*TINY]
    options[options.index("--precision") + 1] = "mixed_bfloat16"
    options[options.index("--epochs") + 1] = "1"
    assert process("train", corpus, "--output", tmp_path / "run", *options).returncode == 0
    assert json.loads((tmp_path / "run" / "config.json").read_text())["precision"] == "mixed_bfloat16"


@pytest.mark.parametrize("taught", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["alone", "taught"])
def test_two_devices_train_what_one_does(tmp_path, corpus, train, process, taught):
    """The same global batch with the same places dropped: the same weights up to rounding."""
    options = ("--cpu-devices", "1", "--dropout", "0.2", "--embedding-dropout", "0.1", "--weight-drop", "0.1", "--clip-norm", "0.5")
    options += ("--seed", "5", "--teacher", train().path) if taught else ()
    run = tmp_path / "run"
    result = process("train", corpus, "--output", run, *TINY, *options, "--cpu-devices", "2")
    assert result.returncode == 0, result.stderr
    assert "on the CPU (2 devices of " in result.stderr
    assert (run / "model.keras").exists()
    assert config_of(run)["cpu_devices"] == 2
    one, two = checkpoint(train(*options).path), checkpoint(run)
    for key in one:
        if key.isdecimal():
            np.testing.assert_allclose(two[key], one[key], atol=1e-4, rtol=1e-3)
    np.testing.assert_allclose(losses(run), losses(train(*options).path), atol=1e-4)


@pytest.mark.parametrize(
    ("expected", "threads", "options"),
    [
        (2, 2, {}),
        (4, 8, {}),
        (1, 1, {}),
        (1, 8, {"units": 64}),  # too small to share
        (1, 2, {"units": 1024, "layers": 1}),  # matrices that each device would have to read for itself
        (2, 8, {"batch_size": 32}),
        (1, 8, {"batch_size": 16}),
        (3, 4, {"batch_size": 63}),  # what divides the batch
        (2, 8, {"windows": 40}),  # a text that is shorter than a batch
    ],
)
def test_a_cpu_is_divided_where_that_is_faster(monkeypatch, expected, threads, options):
    from charedge.trainer import distribution

    monkeypatch.setattr(distribution, "cpu_threads", lambda: threads)
    options = {"windows": 1000, **options}
    windows = options.pop("windows")
    assert distribution.faster_cpu_devices(make_config(**options), windows) == expected


def test_a_number_of_devices_that_does_not_share_the_batch_is_refused(process, corpus, tmp_path):
    result = process("train", corpus, "--output", tmp_path / "run", *TINY, "--cpu-devices", "3")
    assert (result.returncode, result.stdout) == (2, "")
    assert "--batch-size 16 cannot be shared by 3 devices" in result.stderr
    assert not (tmp_path / "run").exists()


def test_evaluate_measures_the_held_out_text(train, process):
    result = process("evaluate", train().path, "--json")
    fields = json.loads(result.stdout)
    best = min(float(line.split(",")[2]) for line in (train().path / "history.csv").read_text().splitlines()[1:])
    assert set(fields) >= {"nats_per_character", "bits_per_character", "characters", "skipped_characters", "characters_per_second"}
    assert fields["characters"] == 4000
    assert result.stderr.splitlines() == [f"charedge: reading {train().path}", "charedge: evaluating over 3,999 characters"]
    assert fields["nats_per_character"] == pytest.approx(best, abs=0.05)
    assert fields["bits_per_character"] == pytest.approx(fields["nats_per_character"] / math.log(2))


BAD = [
    (["--units", "0"], 2, "--units"),
    (["--epochs", "-1"], 2, "--epochs"),
    (["--learning-rate", "nan"], 2, "--learning-rate"),
    (["--dropout", "1"], 2, "--dropout"),
    (["--cell", "rnn"], 2, "--cell"),
    (["--normalization", "NFX"], 2, "--normalization"),
    (["--precision", "int8"], 2, "--precision"),
    (["--validation-split", "0"], 2, "--validation-split"),
    (["--resume", "--overwrite"], 2, "--resume"),
    (["--sequence-length", "50000"], 1, "one window needs 50001"),
    (["--resume"], 1, "not a run folder"),
    (["--units", "many"], 2, "--units"),
]


@pytest.mark.parametrize(("options", "status", "match"), BAD)
def test_bad_options_are_one_sentence_and_leave_nothing(charedge, corpus, tmp_path, options, status, match):
    result = charedge("train", corpus, "--output", tmp_path / "run", *options)
    assert result.status == status
    assert match in result.stderr
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "run").exists()


def test_a_missing_corpus_argument_asks_for_a_text(charedge, tmp_path):
    result = charedge("train", "--output", tmp_path / "run")
    assert (result.status, "CORPUS" in result.stderr) == (2, True)


def test_a_missing_corpus_leaves_nothing(charedge, tmp_path):
    result = charedge("train", tmp_path / "missing.txt", "--output", tmp_path / "run")
    assert (result.status, "missing.txt" in result.stderr) == (1, True)
    assert not (tmp_path / "run").exists()


def test_an_output_that_is_taken_is_refused(charedge, corpus, tmp_path, train):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "mine").write_text("mine")
    before = (train().path / "config.json").read_bytes()
    for output, match in ((tmp_path / "file", "is a file"), (tmp_path / "folder", "other files"), (train().path, "--resume")):
        result = charedge("train", corpus, "--output", output)
        assert (result.status, match in result.stderr) == (1, True), result.stderr
    assert (train().path / "config.json").read_bytes() == before


def test_an_output_that_cannot_be_written_is_refused(charedge, corpus, tmp_path):
    (tmp_path / "file").write_text("mine")
    result = charedge("train", corpus, "--output", tmp_path / "file" / "run", *TINY)
    assert (result.status, "cannot be written" in result.stderr) == (1, True), result.stderr


def test_a_resume_with_other_options_shows_the_difference(charedge, corpus, train):
    result = charedge("train", corpus, "--output", train().path, "--resume", "--units", "64", "--seed", "9")
    assert result.status == 1
    assert "--units 64 (was 48)" in result.stderr
    assert "--seed 9 (was 1)" in result.stderr


def test_a_resume_on_another_text_is_refused(charedge, tmp_path, train):
    (tmp_path / "other.txt").write_text("something else " * 100)
    result = charedge("train", tmp_path / "other.txt", "--output", train().path, "--resume")
    assert (result.status, "not the one" in result.stderr) == (1, True)


def test_evaluate_refuses_a_path_that_is_not_a_run(charedge, tmp_path):
    for path in (tmp_path, tmp_path / "missing"):
        result = charedge("evaluate", path)
        assert (result.status, "run folder" in result.stderr) == (1, True)


KILLED = """
import os, signal, sys
from charedge.trainer import checkpoints

save, left = checkpoints.save_checkpoint, int(sys.argv[1])

def killed(*arguments):
    global left
    path = save(*arguments)
    left -= 1
    if left < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return path

checkpoints.save_checkpoint = killed
from charedge.program import run
sys.exit(run(sys.argv[2:]))
"""


@pytest.mark.slow
def test_kill_9_loses_nothing_but_what_no_checkpoint_holds(train, corpus, process, fork_server, tmp_path):
    run, options = tmp_path / "run", (*TINY, "--dropout", "0.2", "--checkpoint-minutes", "0.0001")
    command = ["-c", KILLED, 3, "train"]
    first = fork_server.run([*command, corpus, "--output", run, *options])
    assert first.returncode == -signal.SIGKILL
    assert "-step-0000000" not in sorted((run / "checkpoints").iterdir())[-1].name  # it was in the middle of an epoch
    (run / "checkpoints" / f".charedge-{'0' * 16}.partial").write_bytes(b"half")
    again = ["--output", run, "--resume", "--checkpoint-minutes", "0.0001"]
    second = fork_server.run([*command, *again])
    assert second.returncode == -signal.SIGKILL
    assert process("train", "--output", run, "--resume").returncode == 0
    assert {path.suffix for path in (run / "checkpoints").iterdir()} == {".npz"}
    expected, found = checkpoint(train("--dropout", "0.2").path), checkpoint(run)
    assert all((expected[key] == found[key]).all() for key in expected if key != "position")


def test_a_damaged_checkpoint_is_skipped(train, corpus, process, tmp_path):
    run = tmp_path / "run"
    assert process("train", corpus, "--output", run, *TINY, "--epochs", "1").returncode == 0
    newest = run / "checkpoints" / "epoch-00001-step-0000007.npz"
    newest.write_bytes(sorted((run / "checkpoints").iterdir())[-1].read_bytes()[:5000])
    result = process("train", "--output", run, "--resume", "--epochs", "2", "--quiet")
    assert result.returncode == 0
    assert result.stderr.count("warning") == 1
    assert "is damaged" in result.stderr


def test_a_nan_loss_stops_and_keeps_the_best_weights(corpus, process, tmp_path):
    run = tmp_path / "run"
    options = ("--learning-rate", "1e38", "--clip-norm", "0", "--warmup", "0")
    result = process("train", corpus, "--output", run, *TINY, *options)
    assert (result.returncode, "Traceback" in result.stderr) == (1, False)
    assert "--learning-rate" in result.stderr
    assert not (run / "model.keras").exists()


FULL = """
import resource, sys
from charedge.program import run
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
sys.exit(run(sys.argv[2:]))
"""


def test_a_full_disk_is_an_error_that_keeps_the_run(corpus, process, fork_server, tmp_path):
    run = tmp_path / "run"
    assert process("train", corpus, "--output", run, *TINY, "--epochs", "1").returncode == 0
    before = {path.name: path.read_bytes() for path in run.iterdir() if path.is_file() and "events" not in path.name}
    result = fork_server.run(["-c", FULL, 20_000, "train", "--output", run, "--resume", "--epochs", 3])
    assert (result.returncode, "Traceback" in result.stderr) == (1, False), result.stderr
    assert "make room" in result.stderr
    assert (run / "model.keras").read_bytes() == before["model.keras"]
    assert process("train", "--output", run, "--resume").returncode == 0
    assert process("evaluate", run).returncode == 0


def test_two_trainings_into_one_folder_are_refused(corpus, start, charedge, tmp_path):
    run = tmp_path / "run"
    with start("train", corpus, "--output", run, *TINY, "--epochs", "500") as training:
        assert any("epoch 1/" in line for line in training.stderr)
        result = charedge("train", "--output", run, "--resume")
        assert (result.status, f"process {training.pid}" in result.stderr) == (1, True), result.stderr
        training.kill()
    with locked(run):  # a lock of a dead process is none
        pass


def test_quiet_prints_the_result_alone(train):
    result = train("--quiet")
    assert result.stderr == ""
    assert [line.partition(": ")[0] for line in result.stdout.splitlines()][1:] == ["training loss", "validation loss", "next"]


def test_a_log_has_a_line_an_epoch(train, tmp_path):
    result = train("--json-log", str(tmp_path / "log.jsonl"))
    epochs = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    epochs = [line for line in epochs if line["event"] == "epoch"]
    assert [line["epoch"] for line in epochs] == [1, 2]
    with (result.path / "history.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [line["validation_nats_per_character"] for line in epochs] == [
        float(row["validation_nats_per_character"]) for row in rows
    ]


def test_a_corpus_of_one_character_is_refused(charedge, tmp_path):
    (tmp_path / "a.txt").write_text("a" * 1000)
    result = charedge("train", tmp_path / "a.txt", "--output", tmp_path / "run")
    assert (result.status, "one distinct character" in result.stderr) == (1, True)
    assert not (tmp_path / "run").exists()


def test_a_network_that_memory_cannot_hold_is_refused_before_it_is_made(charedge, corpus, tmp_path):
    result = charedge("train", corpus, "--output", tmp_path / "run", "--units", "65536")
    assert (result.status, "--units 65536" in result.stderr, "GB" in result.stderr) == (1, True, True)
    assert not (tmp_path / "run").exists()
