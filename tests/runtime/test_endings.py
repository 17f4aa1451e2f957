"""Where a text ends before its length: stop strings and patterns."""

import re

import pytest
from charedge.runtime.stopping import StopStrings

from charedge import CharedgeError, InvalidOption, load


@pytest.fixture(scope="module")
def generator(model):
    return load(model.path)


@pytest.mark.parametrize(
    ("stops", "text", "expected"),
    [
        (["END"], "abcENDdef", "abc"),
        (["END"], "abcEN", "abcEN"),
        (["END"], "abcENEND", "abcEN"),
        (["aab"], "aaab", "a"),
        (["x", "yz"], "aayzx", "aa"),
        (["bc", "abcd"], "abcd", "a"),
        ([], "abc", "abc"),
    ],
)
def test_a_stop_string_is_found_across_pieces_and_not_passed_on(stops, text, expected):
    finder, passed = StopStrings(stops), ""
    for character in text:
        passed += finder.feed(character)
        assert expected.startswith(passed)
        if finder.found:
            break
    assert passed + finder.rest() == expected


def test_only_the_beginning_of_a_stop_string_is_held_back():
    finder = StopStrings(["END"])
    assert [finder.feed(c) for c in "aEbENx"] == ["a", "", "Eb", "", "", "ENx"]


def test_generation_ends_before_the_stop_string(generator):
    whole = generator.generate("A", 300, seed=4)
    stop = whole[100:103]
    assert generator.generate("A", 300, seed=4, stop=[stop]) == whole[: whole.index(stop)]
    assert generator.generate("A", 300, seed=4, stop="never\x00") == whole


def test_rows_of_a_batch_end_each_where_it_ends_alone(generator):
    prompts = ["A", "Bb", "C"]
    whole = generator.generate_batch(prompts, 200, seed=4)
    stop = whole[1][20:22]
    stopped = generator.generate_batch(prompts, 200, seed=4, stop=[stop])
    assert stopped == [text.split(stop)[0] for text in whole]


def test_an_empty_stop_string_is_refused(generator):
    with pytest.raises(InvalidOption, match="`stop`"):
        generator.stream("A", stop=[""])


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("pattern", [r"[A-Z][a-z]{3,9} [A-Z]\.", r"(yes|no|perhaps)", r"[a-z]+(, [a-z]+){2}", r"\w+@\w+\.com|x"])
def test_the_text_always_matches_the_pattern(models, pattern, seed):
    generator = load(models(characters="@., ABCXYZabcdefghijklmnopqrstuvwxyz\n").path)
    text = generator.generate("A", 500, seed=seed, pattern=pattern)
    assert re.fullmatch(pattern, text)
    assert generator.generate("A", 500, seed=seed, pattern=pattern) == text


def test_a_pattern_leaves_the_models_choice_where_there_is_one(generator):
    texts = {generator.generate("A", 10, seed=seed, pattern="[a-z]{4}") for seed in range(20)}
    assert len(texts) > 10


def test_rows_of_a_batch_match_each_for_itself(generator):
    texts = generator.generate_batch(["A", "B", "C"], 100, seed=1, pattern="[a-z]+[A-Z]")
    assert all(re.fullmatch("[a-z]+[A-Z]", text) for text in texts)
    assert texts[0] == generator.generate("A", 100, seed=1, pattern="[a-z]+[A-Z]")


@pytest.mark.parametrize("length", [1, 50])
@pytest.mark.parametrize(("pattern", "text"), [("A[0-9]", "A"), ("(?:A|B)[CD]?[a-z]?[0-9]", "[AB]"), ("A(?=9)", "A")])
def test_a_pattern_that_cannot_be_completed_is_an_error_at_any_length(generator, pattern, text, length):
    with pytest.raises(CharedgeError, match=rf"`pattern`.*cannot be completed after '{text}.*: change it"):
        generator.generate("A", length, pattern=pattern)


@pytest.mark.parametrize("pattern", ["[a-z]{9}", "[a-z]{5,}:", "[a-z]{4}([a-z]{100}|[0-9])"])
def test_a_pattern_that_needs_more_than_the_length_is_an_error(generator, pattern):
    with pytest.raises(CharedgeError, match=r"`pattern`.*not complete after `length` 5 characters.*: increase `length`\.$"):
        generator.generate("A", 5, pattern=pattern)


def test_a_pattern_that_may_never_be_complete_is_reported(generator):
    """Nobody can look at all texts of letters; none of them ends with a digit that the model lacks."""
    with pytest.raises(CharedgeError, match=r"increase `length`, or change the pattern if it needs characters that the model"):
        generator.generate("A", 5, pattern="[a-z]*[0-9]")


@pytest.mark.parametrize("batch", [False, True])
def test_a_stop_string_that_ends_a_pattern_early_is_named(generator, batch):
    options = {"seed": 1, "pattern": "[a-z]{3}:[a-z]+!", "stop": [":"]}
    with pytest.raises(CharedgeError, match=r"`stop` ended the text at '[a-z]{3}', which does not match `pattern`"):
        generator.generate_batch(["A", "B"], 500, **options) if batch else generator.generate("A", 500, **options)


def test_the_text_before_a_stop_string_must_match_itself(generator):
    with pytest.raises(CharedgeError, match=r"`stop` ended the text at '[a-z]{3}', which does not match `pattern`"):
        generator.generate("A", 500, seed=1, pattern="[a-z]{3}!", stop=["!"])
    assert re.fullmatch("[a-z]{3}", generator.generate("A", 500, seed=1, pattern="[a-z]{3}(!|:[a-z]+)?", stop=["!", ":"]))


def test_an_invalid_pattern_is_refused(generator):
    with pytest.raises(InvalidOption, match="`pattern`"):
        generator.stream("A", pattern="(")


def test_the_pattern_is_greedy_at_temperature_zero(generator):
    text = generator.generate("A", 3, temperature=0, pattern="[a-z]{3}")
    assert text == generator.generate("A", 3, temperature=0, banned="\n !',.:ABCDEFGHIJKLMNOPQRSTUVWXYZ")


def test_a_pattern_without_its_package_names_the_install_line(generator, monkeypatch):
    monkeypatch.setattr("charedge.runtime.pattern.find_spec", lambda name: None)
    with pytest.raises(CharedgeError, match=r"pip install 'charedge\[pattern\]'"):
        generator.stream("A", pattern="a")
