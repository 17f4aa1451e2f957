import numpy as np
import pytest
import reference

from charedge import CharedgeError, InvalidOption, UnknownCharacters, load


@pytest.fixture(scope="module")
def generator(model):
    return load(model.path)


def test_greedy_text_is_what_numpy_finds(models):
    made = models(quantization="float32")
    ids = list(made.vocabulary.encode("Hello"))
    for _ in range(40):
        logits, _ = reference.run_model(made.weights, ids)
        ids.append(1 + int(logits[-1, 1:].argmax()))  # never [UNK]
    text = load(made.path).generate("Hello", length=40, temperature=0)
    assert text == made.vocabulary.decode(ids[5:])


def test_the_same_seed_gives_the_same_text(generator):
    assert generator.generate("A", 80, seed=5) == generator.generate("A", 80, seed=5)
    assert generator.generate("A", 80, seed=5) != generator.generate("A", 80, seed=6)


def test_the_stream_is_the_text_piece_by_piece(generator):
    assert "".join(generator.stream("A", 80, seed=5)) == generator.generate("A", 80, seed=5)


def test_length_counts_the_new_characters(generator):
    assert len(generator.generate("A prompt", 123, seed=1)) == 123


def test_one_row_of_a_batch_is_the_single_text(generator):
    assert generator.generate_batch(["Ab"], 60, seed=2) == [generator.generate("Ab", 60, seed=2)]


def test_a_row_of_a_batch_does_not_depend_on_the_others(generator):
    three = generator.generate_batch(["Ab", "Something longer", "Ab"], 60, seed=2)
    assert three[:2] == generator.generate_batch(["Ab", "Something longer"], 60, seed=2)
    assert three[0] != three[2]


def test_a_batch_leaves_single_generation_as_it_was(generator):
    before = generator.generate("Ab", 30, seed=2)
    generator.generate_batch(["x"] * 5, 10, seed=1)
    assert generator.generate("Ab", 30, seed=2) == before


def test_an_empty_batch_gives_no_texts(generator):
    assert generator.generate_batch([], 10) == []


def test_an_empty_prompt_is_the_start_text(generator):
    assert generator.generate("", 50, seed=9) == generator.generate("\n", 50, seed=9)


def test_a_prompt_of_unknown_characters_alone_is_the_start_text(generator):
    with pytest.warns(UnknownCharacters):
        assert generator.generate("éü", 50, seed=9) == generator.generate("\n", 50, seed=9)


def test_unknown_characters_are_named_and_left_out(generator):
    with pytest.warns(UnknownCharacters, match=r"'é' U\+00E9 \(2 times\), U\+0007 \(1 time\)"):
        assert generator.generate("é\aAé", 50, seed=9) == generator.generate("A", 50, seed=9)


def test_strict_refuses_unknown_characters(generator):
    with pytest.raises(CharedgeError, match=r"U\+00E9"):
        generator.generate("é", 5, strict=True)


def test_a_prompt_is_normalised_first(models):
    generator = load(models(characters="aé\n").path)
    assert generator.generate("e\u0301a", 30, seed=1, strict=True) == generator.generate("éa", 30, seed=1)


def test_a_model_trained_with_unk_is_given_id_zero(models):
    made = models(characters="ab\n", unknown="unk")
    assert load(made.path).score("axb").nats_per_character == pytest.approx(
        reference.nats_per_character(made.weights, np.array([2, 0, 3])), abs=1e-5
    )


@pytest.mark.parametrize("value", [5, b"book", "", "a\0b"])
def test_what_is_not_a_path_names_its_argument(generator, value):
    with pytest.raises(InvalidOption, match=r"^`path` "):
        load(value)
    for write in (generator.generate, generator.stream):
        with pytest.raises(InvalidOption, match=r"^`session` "):
            write("a", 5, session=value)


@pytest.mark.parametrize(
    "bad", [{"length": 1.5}, {"length": -1}, {"temperature": -0.1}, {"temperature": float("nan")}, {"seed": -1}]
)
def test_invalid_arguments_are_refused_before_any_text(generator, bad):
    with pytest.raises(InvalidOption, match=f"`{next(iter(bad))}`"):
        generator.stream("A", **bad)


def test_score_is_the_cross_entropy_that_numpy_finds(models):
    made = models(quantization="float32")
    text = made.vocabulary.decode(made.held_out)
    score = load(made.path).score(text)
    assert score.nats_per_character == pytest.approx(reference.nats_per_character(made.weights, made.held_out), abs=1e-5)
    assert score.bits_per_character == pytest.approx(score.nats_per_character / np.log(2))
    assert (score.characters, score.skipped_characters) == (300, 0)


def test_score_counts_skipped_characters(generator):
    with pytest.warns(UnknownCharacters):
        score = generator.score("abécd")
    assert (score.characters, score.skipped_characters) == (4, 1)
    assert score.nats_per_character == generator.score("abcd").nats_per_character


@pytest.mark.parametrize("text", ["", "a"])
def test_a_text_without_a_prediction_cannot_be_scored(generator, text):
    with pytest.raises(CharedgeError, match="two characters"):
        generator.score(text)


def test_threads_do_not_change_the_text(model, generator):
    assert load(model.path, threads=2).generate("A", 80, seed=5) == generator.generate("A", 80, seed=5)


def test_texts_of_one_generator_may_be_written_by_turns(generator):
    alone = [generator.generate("A", 60, seed=1), generator.generate("B", 60, seed=2, top_p=0.9)]
    streams = [generator.stream("A", 60, seed=1), generator.stream("B", 60, seed=2, top_p=0.9)]
    texts = ["", ""]
    for pieces in zip(*streams, strict=True):
        texts = [text + piece for text, piece in zip(texts, pieces, strict=True)]
        generator.generate_batch(["C"] * 3, 2, seed=3)
    assert texts == alone
