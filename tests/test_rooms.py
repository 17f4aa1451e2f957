"""The rules between the rooms: which rooms a room may import, and which files may know the command line."""

import ast
import re
import sys

import pytest
from conftest import REPOSITORY

ROOMS = ("runtime", "trainer", "converter", "deployer")


def room_of(file):
    return file.relative_to(REPOSITORY).parts[0]


FILES = [file for folder in (*ROOMS, "charedge") for file in sorted((REPOSITORY / folder).rglob("*.py"))]
LIBRARY = [file for file in FILES if room_of(file) != "charedge" and file.name != "cli.py"]
MAY_IMPORT = {"runtime": set(), "trainer": {"runtime"}, "converter": {"runtime", "trainer"}, "deployer": {"runtime"}}
STARTS_PROGRAMS = {"deployer/fetch.py", "deployer/report.py", "deployer/service.py", "deployer/ssh.py"}
"""Files that spell options because they write the command line of another process: pip's, setpriv's, or charedge's."""
DOOR = {"console", "display", "streams", "__main__"}


def imported(file):
    """The modules that a file imports, relative ones with their dots."""
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." * node.level + (node.module or "")


def names(files):
    return [file.relative_to(REPOSITORY).as_posix() for file in files]


@pytest.mark.parametrize("file", LIBRARY, ids=names(LIBRARY))
def test_a_library_file_spells_no_option_and_does_not_print(file):
    text = file.read_text(encoding="utf-8")
    if file.relative_to(REPOSITORY).as_posix() not in STARTS_PROGRAMS:
        assert not re.findall(r'["( ]--[a-z].*', text)
    assert not re.findall(r"\bprint\(.*", text)
    assert "typer" not in set(imported(file))


ROOM_FILES = [file for file in FILES if room_of(file) in ROOMS]


@pytest.mark.parametrize("file", ROOM_FILES, ids=names(ROOM_FILES))
def test_a_room_imports_only_the_rooms_that_it_may(file):
    room, *inner, _ = file.relative_to(REPOSITORY).parts
    up = r"\." * (2 + len(inner))
    for module in imported(file):
        outside = re.fullmatch(up + r"(\w+)(\.\w+)?", module)
        if outside and outside[1] not in MAY_IMPORT[room]:
            assert file.name in ("cli.py", "__main__.py"), (file, module)
            assert outside[1] in DOOR, (file, module)
        if outside and outside[1] in ROOMS:
            assert outside[2] != ".cli", (file, module)
        if room == "deployer":
            assert module.startswith(".") or module.split(".")[0] in (*sys.stdlib_module_names, "typer"), (file, module)
        if room == "runtime":
            assert module.split(".")[0] not in ("tensorflow", "keras", "flatbuffers", "matplotlib"), (file, module)
            assert inner or module.split(".")[0] not in ("starlette", "uvicorn", "h11"), (file, module)
