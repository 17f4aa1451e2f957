"""What docs/serve.md shows works: its curl commands and its Python are run against a server."""

import json
import re
import shlex
import shutil
import subprocess

import pytest
from charedge.runtime.bundled import FOLDER
from conftest import REPOSITORY
from http_server import serving

PAGE = (REPOSITORY / "docs" / "serve.md").read_text(encoding="utf-8")
ADDRESS = "http://127.0.0.1:8080"


@pytest.fixture(scope="module")
def bundled(tmp_path_factory):
    """A client of a server with the model of the package, and the page with its address."""
    with serving(FOLDER / "shakespeare.tflite", sessions=tmp_path_factory.mktemp("sessions")) as client:
        client.page = PAGE.replace(ADDRESS, f"http://127.0.0.1:{client.port}")
        yield client


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_the_curl_commands_of_the_page_get_answers(bundled):
    commands = re.findall(r"^curl .*$", bundled.page, re.MULTILINE)
    assert len(commands) == 3
    whole, stream, score = (
        subprocess.run([*shlex.split(command), "--silent"], capture_output=True, check=True).stdout.decode() for command in commands
    )
    assert len(json.loads(whole)["choices"][0]["text"]) == 80
    assert stream.endswith("data: [DONE]\n\n")
    assert 0 < json.loads(score)["nats_per_character"] < 3


def test_the_python_of_the_page_runs(bundled, capsys):
    pytest.importorskip("openai", reason="needs the openai package")
    (block,) = re.findall(r"```python\n(.*?)```", bundled.page, re.DOTALL)
    exec(block, {})
    assert len(capsys.readouterr().out) == 80 + 1 + 80


def test_the_table_of_sessions_has_paths_that_work(bundled):
    bundled.texts(prompt="ROMEO:", session="NAME", max_tokens=10)
    rows = re.findall(r"^\| `(GET|PUT|POST|DELETE) (/v1/sessions\S*)`(?: with `(.*)`)? \|", PAGE, re.MULTILINE)
    assert len(rows) == 6
    copy = bundled.get("/v1/sessions/NAME/file").body
    for method, path, body in rows:
        content = copy if method == "PUT" else json.loads(body) if body else None
        assert bundled.ask(method, path, content).status in (200, 201, 204), (method, path)


def test_the_page_names_every_status_and_figure(bundled):
    paths = bundled.get("/openapi.json").json["paths"].values()
    statuses = {status for path in paths for part in path.values() if "responses" in part for status in part["responses"]}
    named = re.findall(r"\d{3}", " ".join(re.findall(r"^\| ([\d, ]+) \|", PAGE, re.MULTILINE)))
    assert {status for status in statuses if status > "300"} <= set(named)
    figures = re.findall(r"^# TYPE (\w+)", bundled.get("/metrics").body.decode(), re.MULTILINE)
    assert all(f"`{figure}`" in PAGE for figure in figures)
