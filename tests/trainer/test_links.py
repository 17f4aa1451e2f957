"""A run folder with symbolic links in it: whatever they point to outside of it, a training leaves it as it is."""

import shutil

import pytest
from charedge.trainer.lock import locked

from charedge import CharedgeError


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def linked(train, tmp_path):
    """A run whose files are all links to files in another folder, and names that partial files might have beside them."""
    run, outside = tmp_path / "run", tmp_path / "outside"
    shutil.copytree(train().path, outside)
    shutil.copytree(train().path, run)
    for path in [path for path in run.rglob("*") if path.is_file()]:
        path.unlink()
        path.symlink_to(outside / path.relative_to(run))
    for name in (".partial.model.keras", ".model.keras.partial", ".config.json.1"):
        (outside / name).write_text("years of work")
        (run / name).symlink_to(outside / name)
    return run, outside, contents(outside)


@pytest.mark.parametrize("options", [("--resume", "--epochs", "3"), ("--overwrite", "--units", "8", "--epochs", "1")])
def test_training_replaces_links_and_keeps_what_they_point_to(linked, corpus, process, options):
    run, outside, before = linked
    result = process("train", corpus, "--output", run, *options)
    assert result.returncode == 0, result.stderr
    assert contents(outside) == before
    written = {path.name for path in run.rglob("*") if not path.is_symlink()}
    assert {"model.keras", "config.json", "history.csv", "curves.png"} <= written
    assert not [name for name in written if name.startswith(".")]


def test_checkpoints_are_not_written_or_deleted_through_a_link(tmp_path):
    run, outside = tmp_path / "run", tmp_path / "outside"
    run.mkdir()
    (run / "checkpoints").symlink_to(outside)
    for _ in range(2):
        with pytest.raises(CharedgeError, match="checkpoints is a symbolic link"), locked(run):
            pass
        outside.mkdir(exist_ok=True)
    assert (list(outside.iterdir()), [path.name for path in run.iterdir()]) == ([], ["checkpoints"])


@pytest.mark.parametrize("content", ["years of work", ""])
def test_a_lock_is_not_taken_through_a_link(tmp_path, content):
    run, thesis = tmp_path / "run", tmp_path / "thesis.txt"
    run.mkdir()
    thesis.write_text(content)
    (run / ".lock").symlink_to("../thesis.txt")
    with pytest.raises(CharedgeError, match="cannot be written"), locked(run):
        pass
    assert (thesis.read_text(), (run / ".lock").is_symlink()) == (content, True)
