"""Texts in options are read like prompts: in the model's Unicode form, with its line ends."""

import re
import unicodedata
from random import Random

import pytest

from charedge import InvalidOption, load

LETTERS = "йёéи\u0430\u0435e가b.\n"
FORMS = ["NFC", "NFD", "NFKC", "NFKD"]


@pytest.fixture(scope="module")
def of_form(models):
    """A function: the generator of a model in some form, with all that the letters become in it."""
    made = {}

    def call(form):
        if form not in made:
            characters = LETTERS if form == "none" else unicodedata.normalize(form, LETTERS)
            made[form] = load(models(characters=characters, normalization=form).path)
        return made[form]

    return call


def outcome(generator, **options):
    try:
        return generator.generate("b", 60, seed=5, temperature=2.0, **options)
    except InvalidOption as error:
        return re.sub(r"'.*'", "", str(error))


def test_a_decomposed_letter_is_banned_as_the_model_writes_it(of_form):
    text = of_form("NFC").generate("b", 400, seed=5, temperature=3.0, banned="и\u0306")
    assert "й" not in text
    assert "и" in text


@pytest.mark.parametrize("stop", ["и\u0306", "й"])
@pytest.mark.parametrize("form", FORMS)
def test_a_stop_string_is_found_in_either_spelling(of_form, form, stop):
    generator, stop = of_form(form), [stop]
    written = unicodedata.normalize(form, "й")
    bias = {written: 4.0} if len(written) == 1 else {written[0]: 3.0, written[1]: 3.0}
    whole = generator.generate("b", 400, seed=5, temperature=2.0, logit_bias=bias)
    assert written in whole
    stopped = generator.generate("b", 400, seed=5, temperature=2.0, logit_bias=bias, stop=stop)
    assert stopped == whole[: whole.index(written)]


@pytest.mark.parametrize("stop", ["\r\n", "\r", "\n"])
@pytest.mark.parametrize("form", ["NFC", "none"])
def test_every_line_end_is_the_models(of_form, form, stop):
    whole = of_form(form).generate("b", 400, seed=5)
    assert of_form(form).generate("b", 400, seed=5, stop=[stop]) == whole[: whole.index("\n")]
    assert "\n" not in of_form(form).generate("b", 400, seed=5, banned=stop)
    assert of_form(form).generate("b", 40, seed=5, logit_bias={stop: 1e9}) == "\n" * 40
    assert of_form(form).generate("b", 40, seed=5, pattern=f"[^{stop}]{{5}}{stop}b")[5:] == "\nb"


def test_escaped_line_ends_of_a_pattern_are_the_models(of_form):
    assert of_form("NFC").generate("b", 40, seed=5, pattern=r"[^\r\n]{5}\r\nb")[5:] == "\nb"


@pytest.mark.parametrize("form", FORMS)
def test_spellings_of_one_text_are_one_option(of_form, form):
    """Options that Unicode calls equivalent give the same text, or the same error."""
    random, generator = Random(2), of_form(form)
    for _ in range(60):
        text = "".join(random.choices(LETTERS.replace(".", ""), k=random.randint(1, 3)))
        one, other = unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)
        assert outcome(generator, stop=[one]) == outcome(generator, stop=[other])
        assert outcome(generator, banned=one) == outcome(generator, banned=other)
        assert outcome(generator, logit_bias={one: 2.0}) == outcome(generator, logit_bias={other: 2.0})
        assert outcome(generator, pattern=f"({one}){{2}}b") == outcome(generator, pattern=f"({other}){{2}}b")


def test_biases_of_one_character_add_up(of_form, charedge, models):
    generator = of_form("NFC")
    assert outcome(generator, logit_bias={"й": 1.0, "и\u0306": 0.5}) == outcome(generator, logit_bias={"й": 1.5})
    path = models(characters=LETTERS, normalization="NFC").path
    arguments = ("generate", path, "`seed`", "1", "`length`", "60")
    twice = charedge(*arguments, "`logit_bias`", "e=1", "`logit_bias`", "e=0.5")
    assert twice.stdout == charedge(*arguments, "`logit_bias`", "e=1.5").stdout


@pytest.mark.parametrize(
    ("form", "options", "named"),
    [
        ("NFC", {"logit_bias": {"ab": 1.0}}, "`logit_bias` 'ab'"),
        ("NFC", {"logit_bias": {"": 1.0}}, "`logit_bias` ''"),
        ("NFC", {"logit_bias": {"q\u0301": 1.0}}, "`logit_bias` 'q\u0301'"),
        ("NFD", {"logit_bias": {"й": 1.0}}, "`logit_bias` 'й'"),
        ("NFD", {"banned": "eй"}, "`banned` 'й'"),
        ("NFD", {"banned": "가"}, "`banned` '가'"),
        ("NFKC", {"banned": "bﬁ"}, "`banned` 'ﬁ'"),
    ],
)
def test_what_is_several_characters_to_the_model_is_named(of_form, form, options, named):
    with pytest.raises(InvalidOption, match=f"^{named}"):
        of_form(form).stream("b", **options)


def test_a_model_without_a_form_takes_texts_as_they_are(of_form):
    generator = of_form("none")
    assert outcome(generator, banned="и\u0306") == outcome(generator, banned="и")
    assert "\u0306" not in generator.vocabulary.tokens


def test_marks_alone_can_be_banned(of_form):
    text = of_form("NFD").generate("b", 400, seed=5, temperature=3.0, banned="\u0306\u0301\u0435")
    assert not set("\u0306\u0301\u0435") & set(text)
    assert {"и", "e"} <= set(text)


def test_a_byte_order_mark_can_be_banned(models):
    generator = load(models(characters="\ufeffa\n").path)
    assert "\ufeff" in generator.generate("a", 50, seed=1)
    assert "\ufeff" not in generator.generate("a", 50, seed=1, banned="\ufeff")


@pytest.mark.parametrize(
    ("form", "pattern", "written"),
    [
        ("NFC", "(?:и\u0306)?e\u0301+b", "й?é+b"),
        ("NFC", "b[и\u0306]", "bй"),
        ("NFC", r"b\.и\u0306".replace(r"\u0306", "\u0306"), r"b\.й"),
        ("NFD", "й{3}e", "(и\u0306){3}e"),
        ("NFD", "(?:й)?é+b", "(и\u0306)?(e\u0301)+b"),
        ("NFD", "[]b]й", "[]b]и\u0306"),
        ("NFD", r"[\]b]й", r"[]b]и" + "\u0306"),
        ("NFD", "^й{2}e", "(и\u0306){2}e"),
        ("NFD", "[^^]й{2}e", "[^^](и\u0306){2}e"),
        ("NFD", "[йb]e", "[и\u0306b]e"),
        ("NFD", "[]й]e", "[]и\u0306]e"),
        ("NFD", "[^]й]e", "[^]и\u0306]e"),
        ("NFKC", "ﬁ{2}", "(fi){2}"),
        ("NFKC", "…b", r"\.\.\.b"),
        ("NFKC", "\uff08b", r"\(b"),
        ("NFC", r"\w" + "\u0301b", "\\w\u0301b"),
        ("none", "и\u0306?b", "и\u0306?b"),
    ],
)
def test_a_pattern_is_read_as_the_model_writes(models, form, pattern, written):
    characters = LETTERS + "fi…](?:)\u0306\u0301"
    characters = characters if form == "none" else unicodedata.normalize(form, characters)
    generator = load(models(characters=characters, normalization=form).path)
    for seed in range(8):
        assert re.fullmatch(written, generator.generate("b", 30, seed=seed, temperature=2.0, pattern=pattern))
