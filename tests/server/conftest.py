"""A server in a thread of the test's process, with the model that most tests use."""

import json

import pytest
from http_server import serving

pytest.importorskip("starlette", reason="needs the extra `serve`")


@pytest.fixture(scope="module")
def client(model, tmp_path_factory):
    """A client of a server with one model, and sessions."""
    with serving(model.path, sessions=tmp_path_factory.mktemp("sessions")) as client:
        yield client


@pytest.fixture(scope="module")
def loaded(model):
    """The same model, in the Python API."""
    from charedge import load

    return load(model.path)


@pytest.fixture
def generate(charedge, model):
    """What `charedge generate` writes for some options, without the prompt: `generate("--seed", 1)`."""

    def call(*options):
        result = charedge("generate", model.path, "--json", *options)
        assert result.status == 0, result.stderr
        return json.loads(result.stdout)["texts"]

    return call
