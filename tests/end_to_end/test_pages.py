"""The pages say what the program does: their help texts are its own, and their Python runs."""

import importlib.util
import re

from conftest import REPOSITORY
from model_files import build_model_file

DOCS = REPOSITORY / "docs"


def test_the_command_line_page_has_the_programs_help_texts():
    spec = importlib.util.spec_from_file_location("update_help", DOCS / "update_help.py")
    update_help = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(update_help)
    page = update_help.PAGE.read_text(encoding="utf-8")
    assert page.count("```text") == 10
    assert update_help.updated(page) == page, "run `make docs`"


def test_the_python_of_the_api_page_runs(tmp_path, monkeypatch):
    build_model_file(tmp_path / "bard.tflite", "int8")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python-api.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 8
    names = {}
    for block in blocks:
        exec(block, names)
    assert re.fullmatch("[A-Z][a-z]{2,9} [A-Z][a-z]{2,9}", names["name"])
    assert len(names["romeo"]) == len(names["juliet"]) == 200


def test_the_links_of_the_pages_lead_somewhere():
    for page in [REPOSITORY / "README.md", *DOCS.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text(encoding="utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
