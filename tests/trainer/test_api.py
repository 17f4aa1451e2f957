"""`charedge.train`, `finetune` and `evaluate` in a Python program, and how the command line agrees with them."""

import inspect
import json
import math
import re
import typing
from types import SimpleNamespace

import pytest
from charedge.runtime.progress import Report
from charedge.trainer import api, cli, installation
from charedge.trainer.config import DEFAULTS, OPTIONS, Choice
from conftest import config_of

import charedge as library
from charedge import CharedgeError, InvalidOption, Run

OWN = {"corpus", "output", "vocabulary", "allow_unknown", "init_from", "teachers", "checkpoint_minutes", "worker_timeout"} | {
    *("resume", "overwrite", "progress"),
}
OTHER = {
    **{"preset": "small", "cell": "lstm", "units": 7, "layers": 3, "embedding_dim": 5, "dropout": 0.25, "output_dropout": 0.0},
    **{"embedding_dropout": 0.125, "weight_drop": 0.5, "weight_decay": 0.01, "epochs": 3, "batch_size": 6, "sequence_length": 9},
    **{"batching": "shuffled", "learning_rate": 0.5, "learning_rate_decay": "none", "warmup": 0, "clip_norm": 0.0, "average": 0.75},
    **{"patience": 2, "keep": "last", "validation_split": 0.375, "normalization": "NFKD", "min_count": 2, "teacher_weight": 1.0},
    **{"precision": "mixed_float16", "cpu_devices": 2, "seed": 0},
}
"""A value of each option that is not its default."""
TINY = {"layers": 1, "units": 16, "embedding_dim": 8, "batch_size": 16, "sequence_length": 50, "precision": "float32"}


@pytest.fixture
def planned(monkeypatch):
    """The trainings that would start: each is planned, and then not carried out."""
    plans = []

    def carry_out(plan, *arguments):
        plans.append(plan)
        return plan.run

    monkeypatch.setattr(api, "carry_out", carry_out)
    monkeypatch.setattr(cli, "_say_result", lambda run, quiet: None)
    return plans


def options_of(function):
    return inspect.signature(function).parameters.keys() - OWN


def test_a_program_can_give_every_option_of_the_table():
    assert options_of(library.train) == OPTIONS.keys()


def test_the_names_that_an_option_may_be_are_in_its_type():
    hints = typing.get_type_hints(library.train)
    for name, option in OPTIONS.items():
        given = {value for part in typing.get_args(hints[name]) for value in typing.get_args(part) or [part]} - {type(None)}
        names = set(option.values.names) if isinstance(option.values, Choice) else None
        assert given in (names, {option.values.kind}), name


def test_every_option_reaches_the_configuration(planned, charedge, corpus, tmp_path):
    assert OTHER.keys() == OPTIONS.keys()
    assert not [name for name, value in OTHER.items() if value == DEFAULTS[name]]
    teacher, output = tmp_path / "teacher", tmp_path / "run"
    library.train(corpus, output, teachers=teacher, **OTHER)
    flags = [part for name, value in OTHER.items() for part in (f"--{name.replace('_', '-')}", value)]
    result = charedge("train", corpus, "--output", output, "--teacher", teacher, *flags)
    assert result.status == 0, result.stderr
    by_program, by_command = (plan.config for plan in planned)
    assert by_program == by_command
    assert {name: getattr(by_program, name) for name in OPTIONS} == OTHER


@pytest.mark.parametrize("name", OPTIONS)
def test_one_option_changes_nothing_else(planned, corpus, tmp_path, name):
    needed: dict[str, typing.Any] = {"preset": "base"} | ({"teachers": [tmp_path / "teacher"]} if name == "teacher_weight" else {})
    library.train(corpus, tmp_path / "run", **needed)
    library.train(corpus, tmp_path / "run", **{**needed, name: OTHER[name]})
    before, after = ({option: getattr(plan.config, option) for option in OPTIONS} for plan in planned)
    changed = {option for option in OPTIONS if before[option] != after[option]}
    of_preset = {"units", "embedding_dim", "dropout", "weight_drop", "weight_decay"} if name == "preset" else set()
    assert changed == {name} | of_preset


def test_the_help_shows_each_options_default(charedge):
    words = " ".join(charedge("train", "--help").stdout.split())
    for name, default in DEFAULTS.items():
        flag, start = f"--{name.replace('_', '-')} ", words.index("Options:")
        described = re.split(" --[a-z-]+ ", words[words.index(flag, start) + len(flag) :])[0]
        shown = {"output_dropout": "that of", "cpu_devices": "the fastest number"}.get(name, f"{default}]")
        assert f"[default: {shown}" in described, described


WRONG = {
    int: ("many", 1.0, True, -1, 2**80, float("nan"), [3]),
    float: ("much", True, -0.5, 1e999, float("nan"), 10**400, [0.5]),
    str: ("nonsense", "", 3, True, ["gru"]),
}


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("resume", [False, True])
def test_a_wrong_value_is_refused_by_its_name_before_a_file_is_touched(tmp_path, name, resume):
    for value in WRONG[OPTIONS[name].values.kind]:
        with pytest.raises(InvalidOption) as refusal:
            library.train(tmp_path / "missing.txt", tmp_path / "run", **{name: value}, resume=resume)
        assert refusal.value.field == name
        assert str(refusal.value).startswith(f"`{name}` {value} must be "), value
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("name", "taken", "refused"),
    [
        ("units", (1, 65_536), (0, 65_537)),
        ("layers", (1, 64), (0, 65)),
        ("cpu_devices", (1, 64), (0, 65)),
        ("seed", (0, 2**32 - 1), (-1, 2**32)),
        ("warmup", (0,), (-1,)),
        ("dropout", (0, 0.999), (-1e-9, 1, 1.0)),
        ("average", (0.0, 0.9999), (1.0,)),
        ("validation_split", (0.001, 0.999), (0, 0.0, 1)),
        ("learning_rate", (1e-300, 1e300, 3), (0, 0.0)),
        ("clip_norm", (0, 1e300), (-1e-300,)),
    ],
)
def test_the_bounds_of_an_option_are_taken_and_what_is_beyond_refused(planned, corpus, tmp_path, name, taken, refused):
    for value in taken:
        library.train(corpus, tmp_path / "run", preset="base", **{name: value})
        assert getattr(planned[-1].config, name) == value
    for value in refused:
        with pytest.raises(InvalidOption, match=f"`{name}` "):
            library.train(corpus, tmp_path / "run", **{name: value})


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("corpus", {"corpus": 3}),
        ("corpus", {"corpus": [b"book.txt"]}),
        ("corpus", {"corpus": ()}),
        ("output", {"output": 3}),
        ("output", {"output": ""}),
        ("output", {"output": None}),
        ("output", {"output": "a\0b"}),
        ("vocabulary", {"vocabulary": ["a", "b"]}),
        ("init_from", {"init_from": 3}),
        ("teachers", {"teachers": 3}),
        ("teachers", {"teachers": [None]}),
        ("teacher_weight", {"teacher_weight": 0.5}),
        ("checkpoint_minutes", {"checkpoint_minutes": 0}),
        ("checkpoint_minutes", {"checkpoint_minutes": "ten"}),
        ("worker_timeout", {"worker_timeout": float("nan")}),
        ("resume", {"resume": True, "overwrite": True}),
        ("batch_size", {"batch_size": 7, "cpu_devices": 2}),
        ("min_count", {"min_count": 2, "vocabulary": "vocabulary.txt"}),
    ],
    ids=str,
)
def test_invalid_arguments_are_refused_by_name(tmp_path, corpus, field, arguments):
    with pytest.raises(InvalidOption) as refusal:
        library.train(**{"corpus": corpus, "output": tmp_path / "run", **arguments})
    assert refusal.value.field == field
    assert str(refusal.value).startswith(f"`{field}` ")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("field", "arguments"),
    [
        ("run", {"run": 3}),
        ("output", {"output": ""}),
        ("corpus", {"corpus": 3}),
        ("quantization_aware", {"quantization_aware": "int8"}),
        ("epochs", {"epochs": 0}),
        ("epochs", {"epochs": None}),
        ("learning_rate", {"learning_rate": "small"}),
        ("worker_timeout", {"worker_timeout": -1}),
    ],
    ids=str,
)
def test_finetune_refuses_an_argument_by_its_name(tmp_path, field, arguments):
    with pytest.raises(InvalidOption) as refusal:
        library.finetune(**{"run": tmp_path / "missing", "output": tmp_path / "run", **arguments})
    assert refusal.value.field == field
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("field", "arguments", "reason"),
    [
        ("run", {"run": None}, "must be a path"),
        ("file", {"file": 3}, "must be a path"),
        ("protocol", {"protocol": "sideways"}, "must be one of carried, windows, last-character"),
        ("window", {"protocol": "windows", "window": 0}, "must be a whole number"),
        ("window", {"protocol": "windows", "window": 2.5}, "must be a whole number"),
        ("window", {"window": 10}, "10 needs the protocol windows or last-character"),
        ("stride", {"stride": 2}, "2 needs the protocol last-character"),
        ("stride", {"protocol": "last-character", "stride": True}, "must be a whole number"),
    ],
    ids=str,
)
def test_evaluate_refuses_an_argument_by_its_name(tmp_path, field, arguments, reason):
    with pytest.raises(InvalidOption, match=reason) as refusal:
        library.evaluate(**{"run": tmp_path / "missing", **arguments})
    assert refusal.value.field == field


@pytest.mark.parametrize("function", ["train", "finetune", "evaluate"])
def test_a_misspelt_argument_is_pythons_own_error(function, tmp_path):
    with pytest.raises(TypeError, match="lerning_rate"):
        getattr(library, function)("missing", tmp_path / "run", lerning_rate=0.01)
    assert not list(tmp_path.iterdir())


def test_without_tensorflow_a_sentence_says_how_to_install_it(monkeypatch, corpus, tmp_path):
    monkeypatch.setattr(installation, "find_spec", lambda name: None)
    with pytest.raises(CharedgeError, match=r"needs TensorFlow.*`pip install 'charedge\[train\]'`"):
        library.train(corpus, tmp_path / "run")
    with pytest.raises(CharedgeError, match=r"needs TensorFlow.*`pip install 'charedge\[train\]'`"):
        library.evaluate(tmp_path / "run")
    assert not list(tmp_path.iterdir())


def test_one_text_or_several_may_be_paths_or_names(planned, corpus, tmp_path):
    for given in (corpus, str(corpus), [corpus], (str(corpus),)):
        library.train(given, tmp_path / "run")
    assert all(plan.config == planned[0].config for plan in planned)
    library.train([corpus, "python-docs"], tmp_path / "run")
    assert planned[-1].config.corpus["sources"] == [str(corpus), "python-docs"]


@pytest.fixture(scope="module")
def trained(corpus, tmp_path_factory):
    """A run that a Python program trained, in two calls."""
    pytest.importorskip("tensorflow")
    folder, reports = tmp_path_factory.mktemp("runs") / "run", []
    library.train(corpus, folder, **TINY, epochs=1, learning_rate=0.01, progress=reports.append)
    run = library.train(output=folder, epochs=2, resume=True, progress=reports.append)
    return SimpleNamespace(run=run, reports=reports)


def test_training_returns_the_run_in_its_folder(trained, corpus):
    run = trained.run
    assert isinstance(run, Run)
    assert config_of(run.path)["units"] == 16
    assert (run.config().epochs, [epoch.epoch for epoch in run.history()]) == (2, [1, 2])
    assert run.config().corpus["sources"] == [str(corpus)]


def test_a_resume_takes_equal_numbers_of_another_type(trained, planned):
    run = trained.run
    library.train(output=run, resume=True, embedding_dropout=0, epochs=2)
    assert planned[0].config == run.config()
    with pytest.raises(CharedgeError, match=r"`embedding_dropout` 0\.5 \(was 0\.0\)"):
        library.train(output=run, resume=True, embedding_dropout=0.5)


def test_training_prints_nothing(corpus, tmp_path, capfd):
    pytest.importorskip("tensorflow")
    library.train(corpus, tmp_path / "run", **TINY, epochs=1)
    assert capfd.readouterr() == ("", "")


def test_training_reports_its_batches_and_epochs(trained):
    batches = [report for report in trained.reports if report.figures.get("event") == "batch"]
    epochs = [report for report in trained.reports if report.figures.get("event") == "epoch"]
    assert all(isinstance(report, Report) for report in trained.reports)
    assert [report.stage for report in epochs] == ["epoch 1/1", "epoch 2/2"]
    steps = batches[0].total
    assert [(report.stage, report.done) for report in batches] == [
        (stage, step) for stage in ("epoch 1/1", "epoch 2/2") for step in range(1, steps + 1)
    ]
    assert all(json.dumps(report.figures) for report in trained.reports)
    assert [report.figures["validation_nats_per_character"] for report in epochs] == [
        epoch.validation_nats_per_character for epoch in trained.run.history()
    ]


def test_evaluation_is_the_held_out_loss(trained, charedge):
    reports = []
    found = library.evaluate(trained.run, progress=reports.append)
    best = min(epoch.validation_nats_per_character for epoch in trained.run.history())
    assert found.nats_per_character == pytest.approx(best, abs=0.05)
    assert (found.predictions, found.characters, found.skipped_characters, found.protocol) == (3999, 4000, 0, "carried")
    assert (reports[-1].stage, reports[-1].done, reports[-1].total, reports[-1].unit) == ("evaluating", 3999, 3999, "characters")
    printed = json.loads(charedge("evaluate", trained.run.path, "--json").stdout)
    assert printed["nats_per_character"] == found.nats_per_character
    assert printed["bits_per_character"] == pytest.approx(found.nats_per_character / math.log(2))


def test_characters_that_are_left_out_are_a_warning(trained, tmp_path):
    (tmp_path / "text.txt").write_text("a \u6f22 class " * 20, encoding="utf-8")
    with pytest.warns(UserWarning, match="20 characters are not in the vocabulary; they are left out"):
        found = library.evaluate(trained.run, tmp_path / "text.txt")
    assert (found.characters, found.skipped_characters) == (180, 20)


def test_finetuning_starts_from_the_run(trained, tmp_path):
    tuned = library.finetune(trained.run, tmp_path / "tuned", learning_rate=0.0001)
    assert tuned.config().initialized_from == str(trained.run.path)
    assert tuned.history()[0].validation_nats_per_character < trained.run.history()[0].validation_nats_per_character


def test_from_a_text_to_a_generated_one_in_python(tmp_path):
    pytest.importorskip("tensorflow")
    run = library.train("python-docs", tmp_path / "run", **TINY, epochs=1, learning_rate=0.01)
    library.convert(run, tmp_path / "docs.tflite")
    model = library.load(tmp_path / "docs.tflite")
    text = model.generate("The ", length=40, seed=1)
    assert len(text) == 40
    assert set(text) <= set(run.vocabulary().tokens[1:])
