"""The displays of examples/displays, without their hardware."""

import runpy
import subprocess
import sys
import textwrap

import pytest
from conftest import REPOSITORY

from charedge import load

FOLDER = REPOSITORY / "examples" / "displays"
WORDS = "The course of true love never did run smooth; but either it was different in blood, or else misgraffed in years. " * 5


@pytest.fixture(scope="module")
def screens():
    return runpy.run_path(str(FOLDER / "screens.py"))


def run(script, model, *options):
    arguments = [sys.executable, FOLDER / script, model.path, *options]
    result = subprocess.run([*map(str, arguments)], capture_output=True, text=True, check=False)
    assert (result.returncode, result.stderr) == (0, "")
    return result.stdout


def test_text_is_wrapped_between_words(screens):
    lcd = screens["CharacterLCD"]()
    assert screens["wrap"](WORDS, lcd) == textwrap.wrap(WORDS, 20)
    assert screens["wrap"]("a\n\nb", lcd) == ["a", "", "b"]
    assert screens["wrap"]("x" * 45, lcd) == ["x" * 20, "x" * 20, "x" * 5]


def test_typed_text_moves_the_word_that_gets_too_long(screens):
    lcd, lines = screens["CharacterLCD"](), [""]
    for character in WORDS.strip():
        lines = screens["typed"](character, lines, lcd)
        assert all(len(line.rstrip()) <= 20 for line in lines)
    assert [line.rstrip() for line in lines] == textwrap.wrap(WORDS, 20)
    for character in "\n" + "x" * 45:
        lines = screens["typed"](character, lines, lcd)
    assert lines[-3:] == ["x" * 20, "x" * 20, "x" * 5]


def test_an_lcd_gets_only_characters_that_it_has(screens):
    in_rom = screens["in_rom"]
    assert in_rom("¿Añádelo “así”… schloß — 漢 ~ \\ |") == '?Anadelo "asi"... schloss - ? ? ? |'
    assert in_rom("e\u0301") == "e"


def test_an_lcd_shows_the_end_of_the_text_as_it_is_typed(model):
    printed = run("lcd.py", model, "--length", 120, "--seed", 1, "--characters-per-second", 1_000_000).splitlines()
    text = load(model.path).generate(length=120, seed=1)
    assert len(printed) == 6 * 120
    for end, box in ((50, printed[6 * 49 : 6 * 50]), (120, printed[-6:])):
        assert [box[0], box[5]] == ["+--------------------+"] * 2
        assert all(line[0] == line[-1] == "|" and len(line) == 22 for line in box[1:5])
        assert "".join(text[:end].split()).endswith("".join("".join(line[1:-1] for line in box[1:5]).split()))


def test_an_eink_screen_gets_pages_of_one_bit_and_resumes(model, tmp_path):
    image = pytest.importorskip("PIL.Image")
    common = ("--seconds", 0, "--seed", 1)
    run("eink.py", model, "--session", tmp_path / "whole", "--picture", tmp_path / "whole.png", "--pages", 1, *common)
    first = image.open(tmp_path / "whole.png")
    assert (first.size, first.mode, first.format) == ((250, 122), "1", "PNG")
    left, top, right, bottom = first.convert("L").point(lambda grey: 255 - grey).getbbox()  # of what is black
    assert 2 <= left < 10
    assert 2 <= top < 16
    assert right <= 248
    assert bottom <= 120
    run("eink.py", model, "--session", tmp_path / "whole", "--picture", tmp_path / "second.png", "--pages", 1, *common)
    assert image.open(tmp_path / "second.png").tobytes() != first.tobytes()


@pytest.mark.parametrize(
    ("script", "options", "status", "sentence"),
    [
        ("lcd.py", ("--session", "no/session"), 1, "cannot be written"),
        ("eink.py", ("--session", "no/session"), 1, "cannot be written"),
        ("eink.py", ("--font", __file__), 2, "is not a readable font"),
        ("eink.py", ("--pages", "-1"), 2, "--pages must be at least 0"),
        ("eink.py", ("--picture", "no/page.png", "--pages", "1"), 1, "No such file or directory: 'no/page.png'"),
    ],
)
def test_a_wrong_option_is_a_sentence(model, tmp_path, script, options, status, sentence):
    if script == "eink.py":
        pytest.importorskip("PIL")
    arguments = [sys.executable, FOLDER / script, model.path, "--session", tmp_path / "session", *options]
    result = subprocess.run([*map(str, arguments)], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (result.returncode, "Traceback" in result.stderr, sentence in result.stderr) == (status, False, True)
