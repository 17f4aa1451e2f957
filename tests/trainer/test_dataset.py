import itertools

import numpy as np
import pytest
from charedge.trainer.dataset import Streams, Windows

from charedge import CharedgeError


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


def test_an_epoch_can_resume_from_any_step():
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


def test_a_window_of_a_stream_begins_where_the_last_one_ended():
    streams = Streams(np.arange(1000), sequence_length=10, batch_size=4, seed=1)
    batches = list(streams.epoch(0))
    assert len(batches) == streams.steps == 24
    for before, after in itertools.pairwise(batches):
        np.testing.assert_array_equal(before[:, -1], after[:, 0])
    assert all((np.diff(batch) == 1).all() for batch in batches)
    inputs = [int(i) for batch in batches for row in batch for i in row[:-1]]
    assert len(set(inputs)) == len(inputs) == 960


def test_streams_begin_at_another_offset_each_epoch():
    streams = Streams(np.arange(1000), 10, 4, seed=1)
    firsts = {int(next(streams.epoch(epoch))[0, 0]) for epoch in range(50)}
    assert len(firsts) > 10
    assert int(next(streams.epoch(3))[0, 0]) == int(next(Streams(np.arange(1000), 10, 4, seed=1).epoch(3))[0, 0])


def test_streams_can_resume_from_any_step():
    streams = Streams(np.arange(1000), 10, 4, seed=2)
    np.testing.assert_array_equal(list(streams.epoch(1, first_step=7)), list(streams.epoch(1))[7:])


@pytest.mark.parametrize("length", [11, 12, 25, 79])
def test_streams_of_a_short_text_stay_within_it(length):
    streams = Streams(np.arange(length), 10, 64, seed=1)
    for epoch in range(30):
        for batch in streams.epoch(epoch):
            assert batch.shape == (streams.batch_size, 11)
            assert batch.max() < length
