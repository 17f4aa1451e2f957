"""Outputs that would damage the run they are made from are refused, through links and `..` too."""

import shutil

import pytest


@pytest.fixture
def run(train, tmp_path):
    shutil.copytree(train().path, tmp_path / "runs" / "run")
    return tmp_path / "runs" / "run"


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def places(run):
    """Ways to name a place in a run, or one of its files."""
    outside = run.parent / "outside"
    outside.mkdir()
    (outside / "folder").symlink_to(run)
    (outside / "inner").symlink_to(run / "checkpoints")
    (outside / "file.tflite").symlink_to(run / "model.keras")
    (outside / "hard.tflite").hardlink_to(run / "config.json")
    (outside / "kept.keras").write_bytes((run / "model.keras").read_bytes())
    (run / "model.keras").unlink()
    (run / "model.keras").symlink_to(outside / "kept.keras")
    return [
        *(path for path in run.rglob("*") if path.is_file()),
        *(run, run / "new.tflite", run / "checkpoints" / "new.tflite", run / "missing" / "new.tflite"),
        *(outside / ".." / "run" / "model.keras", run / "checkpoints" / ".." / "config.json", run / ".." / "run" / "new"),
        *(outside / "folder" / "model.keras", outside / "folder" / "new.tflite", outside / "inner" / "new", outside / "folder"),
        *(outside / "file.tflite", outside / "hard.tflite", outside / "kept.keras"),
    ]


@pytest.mark.parametrize(
    "options",
    [("--output",), *(("--format", format, "--output") for format in ("saved-model", "html")), ("--all",)],
    ids=lambda options: options[-2:],
)
def test_no_output_goes_into_the_run_that_is_read(run, charedge, monkeypatch, options):
    refused = places(run)
    before = contents(run.parent)
    for place in refused:
        result = charedge("convert", run, *options, place)
        assert (result.status, result.stdout) == (2, ""), place
        assert f"{options[-1]} {place} is in the run {run}" in result.stderr
    monkeypatch.chdir(run)
    assert charedge("convert", ".", *options, "model.keras").status == 2
    assert contents(run.parent) == before


def test_a_saved_model_does_not_replace_a_folder_with_the_run_in_it(run, charedge):
    (run.parent / "saved_model.pb").touch()
    result = charedge("convert", run, "--format", "saved-model", "--output", run.parent)
    assert (result.status, f"contains the run {run}" in result.stderr) == (2, True)


def test_a_place_beside_the_run_is_fine(run, charedge):
    assert charedge("convert", run, "--output", run.parent / "run.tflite").status == 0
