import tracemalloc

import numpy as np
import pytest
import reference
from charedge.runtime.sampling import NOISE_BYTES, Sampler, random_rows
from charedge.runtime.vocabulary import Vocabulary

from charedge import CharedgeError, InvalidOption, Sampling

VOCABULARY = Vocabulary.of("abcdefghijk")
LOGITS = np.array([[9.0, 1.0, 0.5, -1.0, 2.0, 0.1, -0.3, 1.5, -2.0, 0.7, 1.9, -0.5]], np.float32)  # [UNK] would be the likeliest
DRAWS = 100_000
UNK_MINUS_UNK = "ignore:invalid value encountered in subtract"  # minus infinity from minus infinity


def sampler(seed=3, rows=1, recent=(), vocabulary=VOCABULARY, **controls):
    sampling = Sampling(**controls)
    return Sampler(sampling, sampling.bias(vocabulary), random_rows(seed, rows), [np.array(recent, np.int32)] * rows)


def draw(count, logits=LOGITS, **options):
    one = sampler(**options)
    return np.array([one(logits)[0] for _ in range(count)])


def chi_square(counts, expected):
    """The statistic over the possible tokens, and its degrees of freedom."""
    possible = expected > 0
    assert counts[~possible].sum() == 0
    expected = expected[possible] * counts.sum()
    return ((counts[possible] - expected) ** 2 / expected).sum(), possible.sum() - 1


CONTROLS = [
    {"temperature": 1.0},
    {"temperature": 0.5},
    {"temperature": 2.0},
    {"temperature": 0.8, "top_k": 4},
    {"temperature": 0.8, "top_p": 0.7},
    {"temperature": 1.3, "min_p": 0.2},
    {"temperature": 1.3, "top_k": 8, "top_p": 0.9, "min_p": 0.1},
]


@pytest.mark.parametrize("controls", CONTROLS, ids=str)
def test_draws_follow_the_distribution(controls):
    """Each statistic's 99.99 % quantile is below degrees + 4 sqrt(2 degrees) + 12 for these few degrees of freedom."""
    counts = np.bincount(draw(DRAWS, **controls), minlength=len(VOCABULARY))
    statistic, degrees = chi_square(counts, reference.distribution(LOGITS[0], **controls))
    assert statistic < degrees + 4 * (2 * degrees) ** 0.5 + 12


@pytest.mark.parametrize("seed", range(30))
def test_filters_keep_what_numpy_keeps_on_random_logits(seed):
    random = np.random.default_rng(seed)
    logits = random.normal(0, 3, (4, 40)).astype(np.float32)
    controls = {
        "temperature": float(random.uniform(0.3, 2)),
        "top_k": int(random.integers(0, 45)),
        "top_p": float(random.uniform(0.1, 1)),
        "min_p": float(random.uniform(0, 0.3)),
    }
    vocabulary = Vocabulary.of(map(chr, range(100, 139)))
    rows = sampler(rows=4, vocabulary=vocabulary, **controls)
    scores = rows.scores(logits)
    for row in range(4):
        expected = reference.distribution(logits[row], **controls)
        np.testing.assert_array_equal(np.isfinite(scores[row]), expected > 0)


@pytest.mark.filterwarnings(UNK_MINUS_UNK)
def test_repetition_penalty_counts_the_window():
    recent, controls = [1, 1, 4, 7], {"temperature": 1.0, "repetition_penalty": 2.0, "repetition_window": 3}
    one = sampler(recent=recent, **controls)
    first = one.scores(LOGITS) - sampler(temperature=1.0).scores(LOGITS)
    assert np.flatnonzero(np.abs(first[0]) > 1e-5).tolist() == [1, 4, 7]  # within the last three
    one.accept(np.array([10]))
    again = one.scores(LOGITS)[0]
    plain = sampler(temperature=1.0)
    plain.scores(LOGITS)
    changed = np.abs(again - plain.scores(LOGITS)[0]) > 1e-5
    assert np.flatnonzero(changed).tolist() == [4, 7, 10]  # 1 has left the window


@pytest.mark.filterwarnings(UNK_MINUS_UNK)
def test_repetition_penalty_divides_the_positive_and_multiplies_the_negative():
    penalised = sampler(recent=[3, 4], temperature=1.0, repetition_penalty=2.0).scores(LOGITS)[0]
    plain = sampler(temperature=1.0).scores(LOGITS)[0]
    np.testing.assert_allclose((penalised - plain)[1:], [0, 0, -1.0, -1.0, 0, 0, 0, 0, 0, 0, 0], atol=1e-6)


def test_banned_and_biased_characters():
    counts = np.bincount(draw(DRAWS, temperature=1.0, banned="dg", logit_bias={"a": 1.5, "b": -0.5}), minlength=12)
    expected = reference.distribution(LOGITS[0], bias={1: 1.5, 2: -0.5}, banned={4, 7})
    statistic, degrees = chi_square(counts, expected)
    assert statistic < degrees + 4 * (2 * degrees) ** 0.5 + 12


def test_a_bias_for_an_unknown_character_does_nothing():
    assert (draw(300, logit_bias={"é": 50.0}, banned="ü") == draw(300)).all()


@pytest.mark.parametrize("controls", [{}, {"top_k": 3}, {"top_p": 0.5}, {"min_p": 0.5}, {"repetition_penalty": 1.0}], ids=str)
def test_temperature_zero_takes_the_likeliest_character(controls):
    assert set(draw(100, temperature=0, **controls)) == {4}


@pytest.mark.parametrize("controls", [{}, {"top_k": 8}, {"top_p": 0.99}], ids=str)
def test_extreme_temperatures_are_greedy_or_uniform(controls):
    assert set(draw(200, temperature=1e-6, **controls)) == {4}
    assert set(draw(200, temperature=1e-300, **controls)) == {4}
    counts = np.bincount(draw(4000, temperature=1e6, **controls), minlength=12)
    assert counts[counts > 0].min() > 250
    assert counts[0] == 0


def test_the_seed_decides_the_draws():
    assert (draw(300) == draw(300)).all()
    assert (draw(300) != draw(300, seed=4)).any()


@pytest.mark.parametrize("controls", [{}, {"top_p": 0.9}, {"repetition_penalty": 1.5}], ids=str)
def test_a_row_draws_the_same_whatever_stands_beside_it(controls):
    rows = sampler(rows=4, **controls)
    together = np.array([rows(np.repeat(LOGITS, 4, axis=0)) for _ in range(150)])
    assert (together[:, 0] == draw(150, **controls)).all()
    assert (together[:, 0] != together[:, 1]).any()


def test_rows_that_leave_do_not_change_the_others():
    rows, all_rows = sampler(rows=3), sampler(rows=3)
    expected = np.array([all_rows(np.repeat(LOGITS, 3, axis=0)) for _ in range(150)])
    first = [rows(np.repeat(LOGITS, 3, axis=0)) for _ in range(30)]
    rows.keep([0, 2])
    rest = [rows(np.repeat(LOGITS, 2, axis=0)) for _ in range(120)]
    np.testing.assert_array_equal(first, expected[:30])
    np.testing.assert_array_equal(rest, expected[30:][:, [0, 2]])


@pytest.mark.parametrize("steps", [0, 1, 63, 64, 65, 200])
def test_a_sampler_resumed_at_a_position_draws_the_same(steps):
    one = sampler()
    for _ in range(steps):
        one(LOGITS)
    other = sampler(seed=99)
    other.seek(one.position())
    assert [int(one(LOGITS)[0]) for _ in range(100)] == [int(other(LOGITS)[0]) for _ in range(100)]


@pytest.mark.parametrize(
    "wrong",
    [
        *({"temperature": x} for x in (-1, float("nan"), float("inf"))),
        {"top_k": -1},
        *({"top_p": x} for x in (0, 2, -0.5, float("nan"))),
        *({"min_p": x} for x in (-0.1, 1.1, float("nan"))),
        *({"repetition_penalty": x} for x in (0, -1, float("nan"), float("inf"))),
        {"repetition_window": 0},
        {"repetition_window": 1025},
        {"logit_bias": {"a": float("nan")}},
    ],
    ids=str,
)
def test_invalid_controls_are_refused(wrong):
    with pytest.raises(InvalidOption, match=f"`{next(iter(wrong))}`"):
        Sampling(**wrong)


def test_banning_every_character_is_refused():
    with pytest.raises(InvalidOption, match="`banned`"):
        Sampling(banned="abcdefghijk").bias(VOCABULARY)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("controls", [{"temperature": 0}, {"temperature": 1}, {"top_k": 3}, {"repetition_penalty": 2}], ids=str)
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_nan_logits_are_an_error(bad, controls):
    logits = LOGITS.copy()
    logits[0, 2] = bad
    with pytest.raises(CharedgeError, match="NaN or infinite logits"):
        sampler(**controls)(logits)


def tokens_after_seek(monkeypatch, block_bytes, length):
    """Draws of three rows, of which one leaves, and of a sampler that continues the first, with some size of the noise's block."""
    monkeypatch.setattr("charedge.runtime.sampling.NOISE_BYTES", block_bytes)
    sampling = Sampling(temperature=1.0)
    rows = Sampler(sampling, sampling.bias(VOCABULARY), random_rows(5, 3), [np.empty(0, np.int32)] * 3, length)
    first = [rows(np.repeat(LOGITS, 3, axis=0)).tolist() for _ in range(40)]
    rows.keep([0, 2])
    second = [rows(np.repeat(LOGITS, 2, axis=0)).tolist() for _ in range(61)]
    resumed = sampler(seed=99, temperature=1.0)
    resumed.seek(rows.position())
    return first, second, [resumed(LOGITS).tolist() for _ in range(70)]


@pytest.mark.parametrize("length", [None, 1, 50, 101])
@pytest.mark.parametrize("block_bytes", [0, 500, 3 * 4 * 12 * 7, 10_000])
def test_the_size_of_the_block_of_noise_does_not_change_the_draws(monkeypatch, block_bytes, length):
    expected = tokens_after_seek(monkeypatch, 1 << 30, None)
    assert tokens_after_seek(monkeypatch, block_bytes, length) == expected


def test_a_session_written_with_another_block_size_continues(monkeypatch):
    """A position names the start of its block: one of 64 steps is found with a block of one step, and the other way round."""
    one = sampler(temperature=1.0)
    for _ in range(50):
        one(LOGITS)
    position = one.position()
    assert position["step"] == 50
    monkeypatch.setattr("charedge.runtime.sampling.NOISE_BYTES", 0)
    other = sampler(seed=99, temperature=1.0)
    other.seek(position)
    assert [other(LOGITS).tolist() for _ in range(20)] == [one(LOGITS).tolist() for _ in range(20)]


@pytest.mark.parametrize("length", [2, 10_000])
def test_noise_takes_little_memory_with_many_rows_and_a_large_vocabulary(length):
    rows, vocabulary = 50, Vocabulary.of(map(chr, range(0x4E00, 0x4E00 + 20_000)))
    sampling = Sampling()
    many = Sampler(sampling, sampling.bias(vocabulary), random_rows(1, rows), [np.empty(0, np.int32)] * rows, length)
    logits = np.zeros((rows, len(vocabulary)), np.float32)
    tracemalloc.start()
    many(logits)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * NOISE_BYTES  # 64 steps would be 256 MB


def test_a_short_text_draws_the_noise_of_its_length():
    sampling, vocabulary = Sampling(), Vocabulary.of(map(chr, range(0x4E00, 0x4E00 + 20_000)))
    one = Sampler(sampling, sampling.bias(vocabulary), random_rows(1, 1), [np.empty(0, np.int32)], 2)
    tracemalloc.start()
    one(np.zeros((1, len(vocabulary)), np.float32))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000  # 64 steps would be 5 MB, and as much again while they are drawn
