"""Texts that end at a sentence, a line or a paragraph."""
# ruff: noqa: RUF001

import re
import unicodedata

import pytest
from charedge.runtime.boundaries import SENTENCE_TERMINALS, BoundaryFinder

from charedge import InvalidOption, load

MOST_MORE = 2000


def ended(text, boundary, length=1):
    """The part of a text up to the boundary; None if no character comes after a boundary."""
    finder = BoundaryFinder(boundary, length)
    return next((text[:i] for i, character in enumerate(text) if finder.ends_before(character)), None)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("He went. She", "He went."),
        ("Really?! Yes", "Really?!"),
        ("Well... no", "Well..."),
        ("“Go!” he", "“Go!”"),
        ('"Go." He', '"Go."'),
        ("'Go.' He", "'Go.'"),
        ("(It rained.) He", "(It rained.)"),
        ("He (“no!”) left. Then", "He (“no!”)"),
        ("Stop.\nGo", "Stop."),
        ("It is 3.14 or so. Then", "It is 3.14 or so."),
        ("See example.com now! Then", "See example.com now!"),
        ("¿Quién es? ¡Yo", "¿Quién es?"),
        ("¡Hola! ¿Qué", "¡Hola!"),
        ("„Halt!“ Er", "„Halt!“"),
        ("»Stop!« Han", "»Stop!«"),
        ("« Allez! » Il", "« Allez!"),
        ("他说。“你好", "他说。"),
        ("他说：“你好。”我", "他说：“你好。”"),
        ("「行く。」と", "「行く。」"),
        ("「本当？！」と", "「本当？！」"),
        ("वह गया। फिर", "वह गया।"),
        ("राम॥ फिर", "राम॥"),
        ("من أنت؟ أنا", "من أنت؟"),
        ("وہ گیا۔ پھر", "وہ گیا۔"),
        ("Ո՞վ է։ Նա", "Ո՞վ է։"),
        ("ሄደ። እሷ", "ሄደ።"),
        ("Really⁉\ufe0f Yes", "Really⁉\ufe0f"),  # the mark that makes an emoji of it
        ("Go!\u0301 He", "Go!\u0301"),
        ("من أنت؟\u200f أنا", "من أنت؟\u200f"),
    ],
)
def test_a_sentence_ends_after_its_terminals_and_what_they_close(text, sentence):
    assert ended(text, "sentence") == sentence


@pytest.mark.parametrize("text", ["He went", "¿", "one, two; three: four", "no… no", "Ça va; non"])
def test_other_characters_end_no_sentence(text):
    assert ended(text + " ", "sentence") is None


@pytest.mark.parametrize(
    ("boundary", "text", "length", "expected"),
    [
        ("line", "ab\ncd\nef", 1, "ab\n"),
        ("line", "ab\ncd\nef", 3, "ab\n"),
        ("line", "ab\ncd\nef", 4, "ab\ncd\n"),
        ("line", "\n\nab", 1, "\n"),
        ("paragraph", "ab\ncd\n\nef", 1, "ab\ncd\n\n"),
        ("paragraph", "ab\n\ncd\n\n\nef", 4, "ab\n\n"),
        ("paragraph", "ab\n\ncd\n\n\nef", 5, "ab\n\ncd\n\n"),
        ("paragraph", "ab\ncd\nef", 1, None),
        ("sentence", "A. B. C. D", 3, "A. B."),
        ("sentence", '"A." B. C', 2, '"A."'),
        ("sentence", "他。“你好。”我", 3, "他。“你好。”"),
    ],
)
def test_the_boundary_is_the_first_at_the_length_or_later(boundary, text, length, expected):
    assert ended(text, boundary, length) == expected


def test_the_sentence_terminals_are_unicodes():
    """Those that this Python knows; the regex package may be of a later version of Unicode."""
    regex = pytest.importorskip("regex")
    characters = "".join(c for c in map(chr, range(0x110000)) if unicodedata.category(c) != "Cn")
    known = set(regex.findall(r"\p{Sentence_Terminal}", characters))
    assert known == {c for c in SENTENCE_TERMINALS if unicodedata.category(c) != "Cn"}


@pytest.fixture(scope="module")
def generator(model):
    return load(model.path)


@pytest.mark.parametrize("controls", [{}, {"repetition_penalty": 1.2}], ids=str)
@pytest.mark.parametrize("length", [1, 100])
@pytest.mark.parametrize(("boundary", "end"), [("line", "\n"), ("paragraph", "\n\n")])
def test_a_text_goes_on_up_to_a_boundary_and_is_otherwise_the_same(generator, boundary, end, length, controls):
    whole = generator.generate("A", length + MOST_MORE, seed=3, **controls)
    expected = next((whole[:i] for i in range(length, len(whole)) if whole[:i].endswith(end)), whole)
    assert generator.generate("A", length, seed=3, end_at=boundary, **controls) == expected
    assert "".join(generator.stream("A", length, seed=3, end_at=boundary, **controls)) == expected


@pytest.mark.parametrize(
    ("characters", "terminals"),
    [("abc é.\n", "."), ("ñú ¡¿!?\n", "!?"), ("他说你好，。\n", "。"), ("रामगय ।॥\n", "।॥"), ("ابتث ،؟۔\n", "؟۔")],
)
def test_a_sentence_ends_in_the_models_own_script(models, characters, terminals):
    generator = load(models(characters=characters).path)
    for seed in range(4):
        text, whole = (generator.generate("", 30, seed=seed, end_at=end) for end in ("sentence", None))
        longer = generator.generate("", 400, seed=seed)
        assert longer.startswith(text)
        assert text.startswith(whole)
        vowel_sign = "\u093e"  # of what comes before it
        assert text.rstrip(vowel_sign)[-1] in terminals
        inside = [i for i in range(30, len(text)) if longer[i - 1] in terminals]  # none of them ended it, because
        assert all(longer[i] in (*terminals, vowel_sign) or (longer[i - 1] == "." and longer[i].isalpha()) for i in inside)


def test_a_text_without_a_boundary_has_a_bound(generator):
    whole = generator.generate("A", 10 + MOST_MORE, seed=3, logit_bias={"\n": -50})
    assert "\n" not in whole
    assert generator.generate("A", 10, seed=3, logit_bias={"\n": -50}, end_at="line") == whole


def test_each_row_of_a_batch_ends_as_it_does_alone(generator):
    whole = generator.generate_batch(["A", "Bb", "C"], 1500, seed=4)
    texts = generator.generate_batch(["A", "Bb", "C"], 30, seed=4, end_at="line")
    assert texts == [text[: text.index("\n", 29) + 1] for text in whole]
    assert len({len(text) for text in texts}) > 1
    assert texts[0] == generator.generate("A", 30, seed=4, end_at="line")


@pytest.mark.parametrize("boundary", ["sentence", "line"])
def test_a_session_stands_after_the_boundary(generator, tmp_path, boundary):
    """The character that showed that a sentence had ended is drawn again."""
    parts, session = [], tmp_path / "session"
    for _ in range(5):
        parts.append(generator.generate("Hello" if not parts else "", 40, seed=7, end_at=boundary, session=session))
    parts.append("".join(generator.stream("", 20, session=session, end_at=boundary, stop="qqq")))
    text = "".join(parts)
    assert text == generator.generate("Hello", len(text), seed=7)
    assert all(re.search(r"[.!]'*$" if boundary == "sentence" else r"\n$", part) for part in parts)


def test_a_stop_string_ends_a_text_before_the_boundary(generator):
    whole = generator.generate("A", 300, seed=4, end_at="line")
    stop = whole[-8:-5]
    assert generator.generate("A", 300, seed=4, end_at="line", stop=stop) == whole[: whole.index(stop)]
    assert generator.generate("A", 300, seed=4, end_at="line", stop=whole[-2:] + "?") == whole


@pytest.mark.parametrize(
    "bad",
    [
        {"end_at": "page"},
        {"end_at": "line", "banned": "\n"},
        {"end_at": "sentence", "banned": ".!"},
        {"end_at": "line", "pattern": "a+"},
        {"length": 0, "end_at": "line"},
    ],
    ids=str,
)
def test_an_end_that_cannot_be_is_refused_before_any_text(generator, bad):
    with pytest.raises(InvalidOption, match=f"^`{next(iter(bad))}`"):
        generator.stream("A", **bad)


def test_the_command_line_ends_there_too(generator, model, charedge):
    result = charedge("generate", model.path, "--length", 30, "--seed", 4, "--end-at", "line", "--samples", 2)
    assert result.stdout == "\n----\n".join(generator.generate_batch(["", ""], 30, seed=4, end_at="line"))
    wrong = charedge("generate", model.path, "--end-at", "page")
    assert (wrong.status, wrong.stdout) == (2, "")
    assert wrong.stderr == "charedge: --end-at 'page' is unknown: choose sentence, line or paragraph.\n"
