import numpy as np
import pytest
from charedge.runtime import CharedgeError, InvalidOption
from charedge.runtime.sampling import Sampler, random_rows

LOGITS = np.array([[9.0, 1.0, 0.5, -1.0, 2.0]], np.float32)  # [UNK] would be the likeliest


def draw(temperature, count, seed=3):
    sampler = Sampler(5, temperature, random_rows(seed, 1))
    return np.array([sampler(LOGITS)[0] for _ in range(count)])


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_draws_follow_the_softmax_without_unk(temperature):
    expected = np.exp(LOGITS[0, 1:] / temperature)
    expected /= expected.sum()
    counts = np.bincount(draw(temperature, 20_000), minlength=5)
    chi_square = ((counts[1:] - 20_000 * expected) ** 2 / (20_000 * expected)).sum()
    assert counts[0] == 0
    assert chi_square < 16.27  # 3 degrees of freedom, p = 0.001


def test_temperature_zero_takes_the_likeliest_character():
    assert set(draw(0, 200)) == {4}


def test_extreme_temperatures_are_greedy_or_uniform():
    assert set(draw(1e-6, 200)) == {4}
    assert np.bincount(draw(1e6, 4000), minlength=5)[1:].min() > 800


def test_the_seed_decides_the_draws():
    assert (draw(1, 300) == draw(1, 300)).all()
    assert (draw(1, 300) != draw(1, 300, seed=4)).any()


def test_a_row_draws_the_same_whatever_stands_beside_it():
    rows = Sampler(5, 1.0, random_rows(3, 4))
    together = np.array([rows(np.repeat(LOGITS, 4, axis=0)) for _ in range(150)])
    assert (together[:, 0] == draw(1, 150)).all()
    assert (together[:, 0] != together[:, 1]).any()


@pytest.mark.parametrize("temperature", [-1, float("nan"), float("inf")])
def test_a_temperature_that_cannot_be_is_refused(temperature):
    with pytest.raises(InvalidOption, match="--temperature"):
        Sampler(5, temperature, random_rows(1, 1))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("temperature", [0, 1])
def test_logits_that_are_no_numbers_are_an_error(bad, temperature):
    sampler = Sampler(5, temperature, random_rows(1, 1))
    with pytest.raises(CharedgeError, match="no numbers"):
        sampler(np.array([[0, 1, bad, 0, 0]], np.float32))
