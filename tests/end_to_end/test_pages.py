"""The pages say what the program does: their help texts are the program's, and their Python runs."""

import re
import runpy
import shlex

from charedge.runtime.bundled import FOLDER, NAMES
from conftest import REPOSITORY
from model_files import build_model_file

DOCS = REPOSITORY / "docs"


def test_the_command_line_page_has_the_programs_help_texts():
    update_help = runpy.run_path(str(DOCS / "update_help.py"))
    page = update_help["PAGE"].read_text(encoding="utf-8")
    assert page.count("```text") == 12
    assert update_help["updated"](page) == page, "run `make docs`"


def test_the_servers_page_has_the_fields_that_it_checks():
    update_help = runpy.run_path(str(DOCS / "update_help.py"))
    page = update_help["SERVER_PAGE"].read_text(encoding="utf-8")
    assert page.count("| `logprobs` |") == 1
    assert update_help["with_fields"](page) == page, "run `make docs`"


def test_the_python_of_the_api_page_runs(tmp_path, monkeypatch):
    build_model_file(tmp_path / "bard.tflite", "int8")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "python-api.md").read_text(encoding="utf-8"), re.DOTALL)
    assert len(blocks) == 10
    names = {}
    for block in blocks:
        exec(block, names)
    assert re.fullmatch("[A-Z][a-z]{2,9} [A-Z][a-z]{2,9}", names["name"])
    assert len(names["romeo"]) == len(names["juliet"]) == 200


def test_the_session_in_the_readme_runs(charedge):
    """Its text depends on the machine in the last digits of a logit, so only its beginning is compared."""
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    line, shown = re.findall(r"```console\n\$ charedge (.*?)\n(.*?)```", readme, re.DOTALL)[0]
    result = charedge(*shlex.split(line))
    assert (result.status, result.stderr) == (0, "")
    assert len(result.stdout) == len("ROMEO:") + 206
    assert result.stdout[:15] == shown[:15]


def test_the_python_of_the_command_line_page_runs(train, process, fork_server, tmp_path, monkeypatch):
    """It loads the SavedModel that the text before it makes; the prompts' characters are in the tests' text, too."""
    assert process("convert", train().path, "--format", "saved-model", "--output", tmp_path / "bard").returncode == 0
    (block,) = re.findall(r"```python\n(.*?)```", (DOCS / "command-line.md").read_text(encoding="utf-8"), re.DOTALL)
    monkeypatch.chdir(tmp_path)
    result = fork_server.run(["-c", block])
    assert result.returncode == 0, result.stderr
    assert re.match(r"""\[b['"]ROMEO:.* b['"]JULIET:""", result.stdout.replace("\n", " "))


def test_the_python_in_the_readme_runs(tmp_path, monkeypatch, capsys):
    build_model_file(tmp_path / "bard.tflite", "int8")
    monkeypatch.chdir(tmp_path)
    (block,) = re.findall(r"```python\n(.*?)```", (REPOSITORY / "README.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(block, {})
    assert len(capsys.readouterr().out) > 500


def test_the_readmes_sizes_are_those_of_the_models_that_come_with_the_package():
    readme = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for name in NAMES:
        row = next(line for line in readme.splitlines() if line.startswith(f"| `{name}`"))
        assert f"{(FOLDER / f'{name}.tflite').stat().st_size:,}" in row


def test_the_page_for_contributors_names_every_target_of_the_makefile():
    targets = re.findall(r"^([a-z-]+):(?!=)", (REPOSITORY / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    page = (REPOSITORY / "CONTRIBUTING.md").read_text(encoding="utf-8")
    named = {word for words in re.findall(r"\bmake ((?:[a-z-]+ ?)+)", page) for word in words.split()}
    assert "bench-server" in targets
    assert set(targets) - named == set()


def test_the_links_of_the_pages_lead_somewhere():
    for page in [*REPOSITORY.glob("*.md"), *DOCS.glob("*.md")]:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#:]+)\)|(?:src|srcset)=\"([^\"]+)\"", text):
            assert (page.parent / "".join(target)).exists(), f"{page.name}: {target}"
