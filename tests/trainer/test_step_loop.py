"""The order in which a training dispatches its steps and reads their results."""

import json
import math

import numpy as np
import pytest
import tensorflow as tf
from charedge.trainer import learner, loop
from charedge.trainer.dataset import prefetched
from configs import make_config
from conftest import TINY

BATCHES = 45  # of the corpus, with TINY's options


class Loss:
    """The loss of a step, which notes when it is read."""

    def __init__(self, events, number, value):
        self.events, self.number, self.value = events, number, value

    def __float__(self):
        self.events.append(("read", self.number))
        return float(self.value)


@pytest.fixture
def events(monkeypatch):
    """What the step loop does, in order; `events.losses` may put other losses in the place of some."""

    class Events(list):
        def __init__(self):
            super().__init__()
            self.losses = {}

    events, compile_train_step = Events(), learner.compile_train_step

    def compile_noting(*arguments):
        train_step = compile_train_step(*arguments)

        def step(windows, state, asked):
            number = sum(event == "dispatched" for event, _ in events) + 1
            events.append(("dispatched", number))
            loss, state, asked = train_step(windows, state, asked)
            return Loss(events, number, events.losses.get(number, loss)), state, asked

        return step

    monkeypatch.setattr(learner, "compile_train_step", compile_noting)
    return events


def test_a_loss_is_read_when_the_next_step_has_been_dispatched(charedge, corpus, tmp_path, events):
    result = charedge("train", corpus, "--output", tmp_path / "run", *TINY, "--epochs", "1")
    assert result.status == 0, result.stderr
    count = len(events) // 2
    assert count >= BATCHES - 1
    expected = [("dispatched", 1)]
    for number in range(2, count + 1):
        expected += [("dispatched", number), ("read", number - 1)]
    assert events == [*expected, ("read", count)]


def test_a_loss_that_is_nan_names_its_batch_and_keeps_nothing(charedge, corpus, tmp_path, events):
    events.losses[7] = math.nan
    result = charedge("train", corpus, "--output", tmp_path / "run", *TINY)
    assert result.status == 1
    assert "the loss became nan in batch 7 of epoch 1 (seen while the next one ran)" in result.stderr
    assert "--learning-rate" in result.stderr
    assert events[-2:] == [("dispatched", 8), ("read", 7)]
    assert not list((tmp_path / "run" / "checkpoints").iterdir())


def test_a_checkpoint_within_an_epoch_counts_every_step_that_changed_its_weights(charedge, corpus, tmp_path, events, monkeypatch):
    saved = []
    save = loop.save_checkpoint

    def note(folder, variables, position, state=None):
        dispatched = sum(event == "dispatched" for event, _ in events)
        read = sum(event == "read" for event, _ in events)
        path = save(folder, variables, position, state)
        saved.append((position.epoch, position.step, dispatched, read, json.loads(str(np.load(path)["position"]))))
        return path

    monkeypatch.setattr(loop, "save_checkpoint", note)
    options = ("--epochs", "1", "--checkpoint-minutes", "1e-9")
    result = charedge("train", corpus, "--output", tmp_path / "run", *TINY, *options)
    assert result.status == 0, result.stderr
    within = [entry for entry in saved if entry[0] == 0]
    assert len(within) > 5
    for _, step, dispatched, read, position in within:
        assert step == dispatched == read == position["step"]


def test_a_program_that_has_trained_may_draw_without_a_seed(charedge, corpus, tmp_path):
    result = charedge("train", corpus, "--output", tmp_path / "run", *TINY, "--epochs", "1")
    assert result.status == 0, result.stderr
    assert 0 <= float(tf.function(lambda: tf.raw_ops.RandomUniform(shape=[1], dtype=tf.float32))()[0]) < 1


def test_windows_are_read_ahead_by_one_and_all_of_them():
    read = []

    def batches():
        for number in range(5):
            read.append(number)
            yield np.array([number])

    ahead = prefetched(batches())
    assert int(next(ahead)[0]) == 0
    assert [int(batch[0]) for batch in ahead] == [1, 2, 3, 4]
    assert read == [0, 1, 2, 3, 4]


def test_windows_that_cannot_be_read_end_the_training():
    def batches():
        yield np.zeros(1)
        raise OSError("gone")

    ahead = prefetched(batches())
    next(ahead)
    with pytest.raises(OSError, match="gone"):
        next(ahead)


def test_a_gradient_that_is_wrong_stops_the_training_before_its_first_step(charedge, corpus, tmp_path, events, monkeypatch):
    """A derivative whose reset gate is forgotten: the loss would still fall."""
    from charedge.trainer import fast_recurrence

    right = fast_recurrence.GRU

    def wrong(saved, gradients):
        (input_dc, dz, dr, state_dc), before = right.derivative(saved, gradients)
        return (input_dc, dz, tf.zeros_like(dr), state_dc), before

    monkeypatch.setattr(fast_recurrence, "GRU", right._replace(derivative=wrong))
    result = charedge("train", corpus, "--output", tmp_path / "run", *TINY)
    assert result.status == 1
    assert "the gradient of a GRU is wrong on CPU:0 in float32" in result.stderr
    assert "Traceback" not in result.stderr
    assert not events


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("precision", ["float32", "mixed_bfloat16", "mixed_float16"])
def test_the_gradient_check_passes_here_with_dropped_and_rounded_weights(cell, precision):
    from charedge.trainer.fast_recurrence import FAST_LAYERS
    from charedge.trainer.gradient_check import TOLERANCES, check_gradient

    config = make_config(cell=cell, precision=precision, weight_drop=0.3, quantization_aware="int4")
    assert 0 < check_gradient(config, ["CPU:0"], "auto", FAST_LAYERS) < TOLERANCES[precision] / 3
