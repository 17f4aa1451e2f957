import numpy as np
import pytest
from charedge.runtime import CharedgeError
from charedge.trainer.dataset import Windows


def test_an_epoch_deals_every_window_once():
    windows = Windows(np.arange(101), sequence_length=10, batch_size=5, seed=1)
    batches = list(windows.epoch(0))
    assert [batch.shape for batch in batches] == [(5, 11), (5, 11)]
    assert sorted(int(row[0]) for batch in batches for row in batch) == list(range(0, 100, 10))
    assert all((np.diff(row) == 1).all() for batch in batches for row in batch)


def test_every_epoch_has_an_order_of_its_own_that_the_seed_decides():
    def order(seed, epoch):
        return [int(row[0]) for batch in Windows(np.arange(1001), 10, 10, seed).epoch(epoch) for row in batch]

    assert order(1, 0) == order(1, 0)
    assert order(1, 0) != order(1, 1)
    assert order(1, 0) != order(2, 0)


def test_an_epoch_can_go_on_from_any_step():
    windows = Windows(np.arange(1001), 10, 10, seed=1)
    rest = list(windows.epoch(3, first_step=4))
    np.testing.assert_array_equal(rest, list(windows.epoch(3))[4:])


def test_the_remainder_is_dropped():
    windows = Windows(np.arange(10 * 23 + 1), 10, 5, seed=1)
    assert windows.steps == len(list(windows.epoch(0))) == 4


def test_a_short_text_makes_a_small_batch():
    windows = Windows(np.arange(31), 10, 64, seed=1)
    assert (windows.batch_size, windows.steps) == (3, 1)


def test_a_text_shorter_than_a_window_is_refused():
    with pytest.raises(CharedgeError, match=r"100 characters.*needs 101"):
        Windows(np.arange(100), 100, 64, seed=1)
