"""The shell commands of the pages: `charedge` commands run, on small texts; the others name files and targets that exist."""

import re
import shlex
import subprocess
from importlib.metadata import metadata
from importlib.util import find_spec

import pytest
from conftest import REPOSITORY
from model_files import build_model_file

PAGES = [
    page.relative_to(REPOSITORY).as_posix()
    for page in (*sorted(REPOSITORY.glob("*.md")), *sorted((REPOSITORY / "docs").glob("*.md")))
]
SHORT = ("--epochs", "1", "--batch-size", "4")
SMALL = {"train": ("--units", "8", "--embedding-dim", "4", *SHORT), "generate": ("--length", "50")}
"""Options that make a command of a page take seconds; of an option given twice the last one counts."""
ELSEWHERE = ("deploy", "serve")
"""Here only their options are looked up: they run in tests/deployer/test_deploy_pages.py and tests/server/test_serve_page.py."""


def commands_of(page, language="sh"):
    """Every command of a page's blocks as its words, in order."""
    text = (REPOSITORY / page).read_text(encoding="utf-8")
    for block in re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ ") if language == "console" else line, comments=True)
            while words:
                end = words.index("&&") if "&&" in words else len(words)
                yield words[words[0] == "sudo" : end]
                words = words[end + 1 :]


@pytest.fixture
def workplace(tmp_path, monkeypatch, corpus):
    """A folder with what the pages take for granted: texts, a model file, and the repository's examples."""
    monkeypatch.chdir(tmp_path)
    text = corpus.read_text(encoding="utf-8")[:5000]
    for name in ("shakespeare", "quijote.txt", "book.txt"):  # a file goes before the corpus of that name
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "examples").symlink_to(REPOSITORY / "examples")
    build_model_file(tmp_path / "bard.tflite", "int8")
    return tmp_path


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.usefixtures("workplace")
def test_the_charedge_commands_on_a_page_run(page, process):
    if page == "docs/microcontrollers.md" and find_spec("tflite_micro") is None:
        pytest.skip("needs tflite-micro: pip install 'charedge[micro]'")
    for number, words in enumerate(commands_of(page)):
        if words[0] == "charedge" and words[1] in ELSEWHERE:
            shown = process(words[1], "--help").stdout
            assert all(re.search(rf"{word}\b", shown) for word in words if word.startswith("--"))
        elif words[0] == "charedge":
            command, *arguments = [word.replace("/shared/", f"shared{number}/") for word in words[1:]]
            fast = ("--characters-per-second", "1000000") if "--characters-per-second" in arguments else ()
            short = SHORT if "--init-from" in words else SMALL.get(command, ())
            result = process(command, *arguments, *short, *fast)
            assert (result.returncode, result.stdout != "") == (0, True), f"{shlex.join(words)}: {result.stderr}"


def make(words):
    assert subprocess.run(["make", "-n", *words[1:]], cwd=REPOSITORY, capture_output=True, check=False).returncode == 0


def pip(words):
    """Only our own extras can be wrong here; what the wheels need is tested with the wheels."""
    asked = [name for word in words for names in re.findall(r"(?:charedge|\.)\[(.*)\]", word) for name in names.split(",")]
    assert set(asked) <= set(metadata("charedge").get_all("Provides-Extra", []))
    assert words[1] in ("install", "download")


def copy(words):
    *sources, _ = words[1:]
    assert all((REPOSITORY / source).exists() for source in sources if "/" in source)


def enable(words):
    assert (REPOSITORY / "examples" / "systemd" / f"{words[-1]}.service").exists()


def run_python(words):
    assert words[1:3] == ["-m", "venv"] or (REPOSITORY / words[1]).exists()


def nothing(words):
    """A command of the system that names nothing of ours."""


CHECKS = {
    "make": make,
    "pip": pip,
    "/opt/charedge/bin/pip": pip,
    "cp": copy,
    "scp": copy,
    "curl": nothing,  # run in tests/server/test_serve_page.py
    "ssh-keygen": nothing,  # run in tests/deployer/test_deploy_pages.py
    "systemctl": enable,
    "python": run_python,
    "python3": run_python,
    "charedge": nothing,  # run above
    **dict.fromkeys(
        (".", "apt", "mkdir", "chmod", "echo", "openssl", "arm-none-eabi-gcc", "arm-none-eabi-size", "export", "journalctl"),
        nothing,
    ),
    **dict.fromkeys(("cd", "gcc", "./bard"), nothing),  # run in test_c_step.py, as the command line prints them
}


@pytest.mark.parametrize("page", PAGES)
def test_the_other_commands_on_a_page_name_existing_targets_files_and_extras(page):
    for words in commands_of(page):
        assert words[0] in CHECKS, shlex.join(words)
        CHECKS[words[0]](words)


def test_every_block_of_the_pages_is_of_a_kind_that_is_tested():
    """sh here; console, python and text in test_pages.py, the format's reader in test_file_format_page.py, c js in
    tests/browser, c in test_c_step.py, cpp in test_microcontroller_page.py."""
    for page in PAGES:
        kinds = re.findall(r"^ *```(\w*)\n(?:.*\n)*? *```$", (REPOSITORY / page).read_text(encoding="utf-8"), re.MULTILINE)
        assert set(kinds) <= {"sh", "console", "python", "text", "c", "cpp", "js"}, page
