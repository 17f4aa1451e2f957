"""The protocols of evaluation against the formulas in numpy."""

from types import SimpleNamespace

import numpy as np
import pytest
from charedge.trainer.evaluation import chunk_loss, evaluate_by, evaluate_ids, evaluate_last_character, evaluate_windows
from charedge.trainer.logits import compile_reader
from charedge.trainer.model import LOGITS, state_size
from keras_models import UNITS, VOCABULARY_SIZE, build, weights_of
from reference import log_softmax, run_model

from charedge import CharedgeError


@pytest.fixture(scope="module", params=["gru", "lstm"])
def network(request):
    """A model, its function for chunks, S, and a function from a window of ids to the nats of each prediction in it."""
    model = build(request.param)
    weights = weights_of(model, request.param)

    def nats(window):
        logits, _ = run_model(weights, window[:-1])
        return -log_softmax(logits)[np.arange(len(window) - 1), window[1:]]

    size = state_size(request.param, 2, UNITS)
    read, last = compile_reader(model), compile_reader(model, last=True)
    return SimpleNamespace(model=model, chunk=chunk_loss(read), last=last, size=size, nats=nats)


def text(length):
    return np.random.default_rng(2).integers(1, VOCABULARY_SIZE, length).astype(np.int32)


class Mapped:
    """Ids that lie on disk: parts can be read, the whole cannot."""

    def __init__(self, ids):
        self._ids, self.most = ids, 0

    def __len__(self):
        return len(self._ids)

    def __getitem__(self, place):
        part = self._ids[place]
        self.most = max(self.most, part.size)
        return part

    def __array__(self, *arguments, **options):
        raise AssertionError("all of the ids were read at once")


@pytest.mark.parametrize("length", [7, 40, 500])
def test_the_state_is_carried_from_the_first_character_to_the_last(network, length):
    ids = text(41)
    assert evaluate_ids(network.chunk, network.size, ids, 1, length) == pytest.approx(network.nats(ids).mean(), rel=1e-5)


def test_streams_are_parts_that_each_begin_from_zeros(network):
    ids = text(44)  # 43 predictions: three streams of 14, one left over
    expected = np.mean([network.nats(ids[start : start + 15]) for start in (0, 14, 28)])
    assert evaluate_ids(network.chunk, network.size, ids, 3, 5) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("batch", [1, 2, 64])
def test_windows_predict_every_position_from_zeros(network, batch):
    ids = text(38)  # five windows of 7 and a part of one
    expected = np.mean([network.nats(ids[start : start + 8]) for start in range(0, 35, 7)])
    result = evaluate_windows(network.chunk, network.size, ids, 7, batch)
    assert result.nats_per_character == pytest.approx(expected, rel=1e-5)
    assert result.predictions == 35


def test_a_text_shorter_than_a_window_is_one_window(network):
    ids = text(20)
    result = evaluate_windows(network.chunk, network.size, ids, 256, 64)
    assert (result.nats_per_character, result.predictions) == (pytest.approx(network.nats(ids).mean(), rel=1e-5), 19)


def test_the_last_window_may_end_with_the_text(network):
    assert evaluate_windows(network.chunk, network.size, text(22), 7, 64).predictions == 21


@pytest.mark.parametrize(("stride", "batch"), [(1, 512), (1, 4), (3, 4), (1000, 4)])
def test_last_character_is_the_loss_after_overlapping_windows(network, stride, batch):
    ids = text(30)
    losses = [network.nats(ids[start : start + 9])[-1] for start in range(0, 22, stride)]
    result = evaluate_last_character(network.last, network.size, ids, 8, batch, stride)
    assert result.nats_per_character == pytest.approx(np.mean(losses), rel=1e-5)
    assert result.predictions == len(losses)


def test_last_character_has_a_prediction_for_all_but_the_first_window(network):
    assert evaluate_last_character(network.last, network.size, text(30), 8).predictions == 22


def test_last_character_computes_the_logits_of_the_last_position_alone(network, monkeypatch):
    layer, ranks = network.model.get_layer(LOGITS), []
    call = layer.call
    monkeypatch.setattr(layer, "call", lambda x, **options: (ranks.append(len(x.shape)), call(x, **options))[1])
    evaluate_last_character(compile_reader(network.model, last=True), network.size, text(30), 8)
    assert set(ranks) == {2}


def test_a_text_as_short_as_its_window_is_refused(network):
    with pytest.raises(CharedgeError, match=r"8 characters.*`window` 8 needs 9"):
        evaluate_last_character(network.last, network.size, text(8), 8)


def test_ids_on_disk_are_read_in_parts(network):
    ids = text(400)
    mapped = Mapped(ids)
    size, chunk = network.size, network.chunk
    assert evaluate_ids(chunk, size, mapped, 4, 10) == evaluate_ids(chunk, size, ids, 4, 10)
    assert evaluate_windows(chunk, size, mapped, 10, 4) == evaluate_windows(chunk, size, ids, 10, 4)
    assert evaluate_last_character(network.last, size, mapped, 10, 4, 7) == evaluate_last_character(
        network.last, size, ids, 10, 4, 7
    )
    assert mapped.most == 4 * 11


def places(reports):
    assert {(report.stage, report.unit) for report in reports} == {("evaluating", "windows")}
    return [(report.done, report.total) for report in reports]


def test_progress_is_reported_up_to_its_end(network):
    windows, characters = [], []
    evaluate_windows(network.chunk, network.size, text(36), 7, 2, windows.append)
    evaluate_last_character(network.last, network.size, text(30), 8, 8, 2, characters.append)
    assert places(windows) == [(2, 5), (4, 5), (5, 5)]
    assert places(characters) == [(8, 11), (11, 11)]


def test_a_protocol_is_chosen_by_its_name(network):
    ids, reports = text(300), []

    def by(protocol, **options):
        return evaluate_by(protocol, network.model, ids, **options)

    assert by("carried").predictions == 299
    assert by("carried").nats_per_character == pytest.approx(network.nats(ids).mean(), rel=1e-5)
    assert by("windows") == evaluate_windows(network.chunk, network.size, ids, 256)
    assert by("windows", window=10) == evaluate_windows(network.chunk, network.size, ids, 10)
    assert by("last-character", stride=50, progress=reports.append).predictions == 4
    assert places(reports) == [(4, 4)]
