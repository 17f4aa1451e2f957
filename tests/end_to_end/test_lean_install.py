"""The install that a device gets: from the repository, without extras, in an environment of its own."""

import re
import shutil
import subprocess
import sys

import pytest
from conftest import REPOSITORY
from targets import BASE, LITERT, NUMPY

LEFT_OUT = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__", "runs", "tests")


@pytest.fixture(scope="module")
def lean(tmp_path_factory):
    folder = tmp_path_factory.mktemp("lean")
    shutil.copytree(REPOSITORY, folder / "source", ignore=LEFT_OUT)
    subprocess.run([sys.executable, "-m", "venv", folder / "venv"], check=True)
    subprocess.run([folder / "venv/bin/pip", "install", "--quiet", folder / "source"], check=True)
    return folder / "venv/bin"


def test_the_base_install_generates(lean, model, tmp_path):
    arguments = [lean / "charedge", "generate", model.path, "--prompt", "Hello", "--length", "20", "--seed", "1"]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith("Hello")
    assert len(result.stdout) == 25


def test_the_base_install_generates_at_once(lean, tmp_path):
    """A model of Shakespeare comes with it."""
    arguments = [lean / "charedge", "generate", "--length", "200", "--seed", "1"]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (result.returncode, result.stderr, len(result.stdout)) == (0, "", 200)


def test_the_base_install_has_no_tensorflow(lean):
    listed = subprocess.run([lean / "pip", "list", "--format=freeze"], capture_output=True, text=True, check=True).stdout
    names = {re.sub("[._]", "-", line.split("==")[0]).lower() for line in listed.splitlines()}
    assert {"numpy", "typer", "ai-edge-litert"} <= names
    assert names - {"pip", "setuptools"} <= BASE | NUMPY | LITERT
    assert not names & {"tensorflow", "keras", "matplotlib", "h5py"}


def test_the_base_install_is_small(lean):
    (site,) = lean.parent.glob("lib/python*/site-packages")
    files = [path for path in site.rglob("*") if path.is_file() and path.relative_to(site).parts[0] not in ("pip", "setuptools")]
    assert sum(path.stat().st_size for path in files) <= 190_000_000


def test_the_base_install_says_what_training_needs(lean, tmp_path):
    arguments = [lean / "charedge", "train", "python-docs", "--output", tmp_path / "run"]
    result = subprocess.run(arguments, capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "pip install 'charedge[train]'" in result.stderr


def test_the_base_install_says_what_serving_needs(lean):
    result = subprocess.run([lean / "charedge", "serve"], capture_output=True, text=True, check=False)
    assert result.returncode == 1
    assert "pip install 'charedge[serve]'" in result.stderr
