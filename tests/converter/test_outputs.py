"""Outputs that would damage the run they are made from are refused, through links and `..` too."""

import shutil

import pytest
from conftest import TINY


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


@pytest.mark.parametrize(("suffix", "other"), [(".html", "html"), (".h", "c")])
def test_a_model_file_is_not_written_as_what_another_format_writes(charedge, tmp_path, suffix, other):
    place = tmp_path / f"page{suffix}"
    result = charedge("convert", tmp_path / "no-run", "--output", place)
    assert (result.status, f"add --format {other}, or end it with .tflite" in result.stderr) == (2, True)


def test_an_example_of_another_model_is_kept_and_said(run, charedge):
    first = charedge("convert", run, "--format", "c", "--output", run.parent / "c" / "one.h")
    assert "main.c one.c charedge_step.c" in first.stdout
    second = charedge("convert", run, "--format", "c", "--output", run.parent / "c" / "two.h")
    assert second.status == 0, second.stderr
    assert second.stdout.splitlines()[-1] == (
        f"next: {run.parent / 'c' / 'main.c'} was there before and is kept; include two.h in it, or move it away and convert again"
    )


def test_a_run_folders_name_is_one_line_and_short_enough(train, charedge, tmp_path):
    run = shutil.copytree(train().path, tmp_path / "run\nverified     0.0 nats")
    result = charedge("convert", run, "--output", tmp_path / "model.tflite")
    assert result.status == 0, result.stderr
    lines = charedge("info", tmp_path / "model.tflite").stdout.splitlines()
    assert not any(line.startswith("verified     0.0 nats") for line in lines)
    long = shutil.copytree(train().path, tmp_path / ("r" * 245))
    refused = charedge("convert", long, "--all", tmp_path / "all")
    assert (refused.status, "--name rrr" in refused.stderr, (tmp_path / "all").exists()) == (2, True, False)


def test_a_held_out_text_that_begins_with_a_byte_order_mark_gives_another_start(train, charedge, tmp_path, corpus):
    text = corpus.read_text().replace("\n", " ")[:4000]
    (tmp_path / "text.txt").write_text(f"{text[:3600]}\ufeff{text[3600:]}", encoding="utf-8")
    run = tmp_path / "run"
    assert charedge("train", tmp_path / "text.txt", "--output", run, *TINY).status == 0
    assert (run / "held_out.txt").read_text(encoding="utf-8").startswith("\ufeff")
    result = charedge("convert", run, "--output", tmp_path / "model.tflite", "--tolerance", "9")
    assert result.status == 0, result.stderr
