"""`charedge convert --format html`: what is written, and what is refused. tests/browser looks at the page itself."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
from charedge.converter.html import build_page
from charedge.runtime.bundled import FOLDER, NAMES
from charedge.runtime.errors import CharedgeError
from charedge.runtime.model_file import read_model_file

import charedge as package


def model_in(page):
    """The bytes of the model that a page carries."""
    (length, data), *others = re.findall(rb'<script[^>]* id="model" data-bytes="(\d+)">([^<]*)</script>', page)
    assert others == []
    model = base64.b64decode(data, validate=True)
    assert len(model) == int(length)
    return model


class Links(HTMLParser):
    """Everything that a page would fetch."""

    def __init__(self, page):
        super().__init__()
        self.found = []
        self.feed(page.decode())

    def handle_starttag(self, tag, attrs):
        self.found += [
            value for name, value in attrs if name in ("src", "srcset", "data", "action") or (tag, name) == ("link", "href")
        ]


@pytest.mark.parametrize("quantization", ["float32", "float16", "int8", "int8-static"])
def test_a_run_becomes_one_page_with_the_file_that_convert_writes(converted, charedge, tmp_path, quantization):
    model = converted(quantization)
    output = tmp_path / "new" / "bard.html"
    options = ("--format", "html", "--output", output, "--quantization", quantization)
    result = charedge("convert", model.run, *options)
    assert result.status == 0, result.stderr
    assert f"next: open {output} in a browser" in result.stdout
    page = output.read_bytes()
    assert model_in(page) == model.path.read_bytes()
    assert all(link.startswith("data:") for link in Links(page).found)
    assert list(output.parent.iterdir()) == [output]
    values = json.loads(charedge("convert", model.run, *options, "--json").stdout)
    assert output.read_bytes() == page
    assert (values["file"], values["bytes"], values["model_bytes"]) == (str(output), len(page), model.path.stat().st_size)
    assert (values["quantization"], values["verified"][0]["interpreter"]) == (quantization, "ai-edge-litert")


def test_the_texts_of_the_card_are_those_given(converted, tmp_path):
    texts: dict[str, Any] = {"name": "<b>Bard & co</b>", "author": "A", "license": "CC0-1.0", "notes": "Plays."}
    output = tmp_path / "bard.html"
    result = package.export_html(converted("int8").run, output, fit_temperature=True, **texts)
    assert isinstance(result, package.Page)
    page = output.read_bytes()
    assert b"<title>&lt;b&gt;Bard &amp; co&lt;/b&gt;: " in page
    assert b"<b>Bard" not in page
    (tmp_path / "bard.tflite").write_bytes(model_in(page))
    manifest = read_model_file(tmp_path / "bard.tflite").manifest
    assert (manifest.name, manifest.license, manifest.training["notes"]) == ("<b>Bard & co</b>", "CC0-1.0", "Plays.")
    assert manifest.logit_temperature == result.logit_temperature
    assert manifest.logit_temperature.fit is not None


@pytest.mark.parametrize("name", NAMES)
def test_a_page_is_at_most_100_kb_larger_than_its_model(name, tmp_path):
    path = FOLDER / f"{name}.tflite"
    page = build_page(read_model_file(path), tmp_path / "page.html")
    data = model_in(page)
    assert hashlib.sha256(data).digest() == hashlib.sha256(path.read_bytes()).digest()
    assert len(page) - len(base64.b64encode(data)) <= 100_000


def test_a_page_above_32_mb_is_refused(model, tmp_path):
    file = read_model_file(model.path)
    fitting = replace(file, flatbuffer=bytes(23_800_000))
    assert len(build_page(fitting, tmp_path / "page.html")) <= 32_000_000
    with pytest.raises(
        CharedgeError, match=r"page\.html was not written: the page would have 3[23]\.\d MB, and 32 MB are allowed; "
    ):
        build_page(replace(file, flatbuffer=bytes(24_200_000)), tmp_path / "page.html")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            ("--output", "bard.html", "--quantization", "int4"),
            "--quantization int4 is not for pages: choose float32, float16, int8",
        ),
        (("--output", "bard.html", "--quantization", "int2"), "--quantization int2 is unknown: choose float32"),
        (("--output", "bard.htm"), "--output bard.htm must end in .html."),
        (("--output", "bard"), "--output bard must end in .html."),
        (("--all", "bard.html"), "--all has no effect with --format html"),
        ((), "--output is missing"),
    ],
)
def test_what_cannot_be_is_refused_before_the_work(train, charedge, tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    result = charedge("convert", train().path, "--format", "html", *options)
    assert (result.status, result.stdout) == (2, "")
    assert message in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_is_not_replaced_by_a_page(train, charedge, tmp_path):
    (tmp_path / "bard.html").mkdir()
    result = charedge("convert", train().path, "--format", "html", "--output", tmp_path / "bard.html")
    assert (result.status, "is a folder: give the name of a .html file" in result.stderr) == (1, True)


def test_a_page_that_would_lose_too_much_is_not_written(train, charedge, tmp_path):
    output = tmp_path / "bard.html"
    output.write_text("before")
    result = charedge("convert", train().path, "--format", "html", "--output", output, "--tolerance", 0)
    assert (result.status, "was not written: it would lose" in result.stderr) == (1, True)
    assert output.read_text() == "before"
