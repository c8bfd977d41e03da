"""Functions and services give the scores of their torch original; what fails is reported in one sentence."""

import time

import numpy as np
import pytest
import torch

from glas3d import GlasError, Predictor
from glas3d.predict import Retrying, from_callable
from tests.predict.cases import SHAPES, assert_same_scores, explained, network


class Flaky:
    """A service that fails before it returns its first output."""

    def __init__(self, ndim, failures, error=ConnectionError):
        self.net, self.failures, self.error, self.calls = network(ndim), failures, error, 0

    def __call__(self, batch):
        assert isinstance(batch, np.ndarray)
        self.calls += 1
        if self.calls <= self.failures:
            raise self.error("connection reset\nby peer")
        with torch.no_grad():
            return self.net(torch.tensor(batch)).tolist()


@pytest.fixture
def waits(monkeypatch):
    slept = []
    monkeypatch.setattr(time, "sleep", slept.append)
    return slept


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_service_that_recovers_gives_the_scores_of_its_network(ndim, waits):
    service = Flaky(ndim, failures=2)
    predict = from_callable(service, "softmax", retries=2, wait=0.5, as_numpy=True)
    assert_same_scores(predict, Predictor(network(ndim), "softmax", device="cpu"), SHAPES[ndim])
    assert waits == [0.5, 1.0]


@pytest.mark.parametrize("as_numpy", [True, False])
def test_a_service_that_writes_to_a_batch_before_it_fails_gets_the_batch_again(waits, as_numpy):
    def service(batch):
        batch -= 0.5
        calls.append(1)
        if len(calls) % 3:
            raise ConnectionError
        return torch.as_tensor(batch).flatten(1)[:, :2]

    calls = []
    batch = torch.rand(2, 1, *SHAPES[2])
    output = from_callable(service, "none", retries=2, as_numpy=as_numpy)(batch)
    assert torch.equal(output, (batch - 0.5).flatten(1)[:, :2])


def test_a_service_that_stays_away_is_reported_in_one_sentence(waits):
    predict = from_callable(Flaky(2, 99), "softmax", name="far", retries=3, as_numpy=True)
    message = (
        r"^the model far was evaluated 4 times on a batch of \(1, 1, 12, 10\) and failed: "
        r"ConnectionError: connection reset \(test_callables\.py, line \d+, in __call__\)$"
    )
    with pytest.raises(GlasError, match=message) as caught:
        explained(predict, SHAPES[2])
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert waits == [1.0, 2.0, 4.0]


def test_only_errors_worth_it_are_tried_again(waits):
    service = Flaky(2, 1, KeyError)
    predict = from_callable(service, "softmax", retries=3, on=OSError, as_numpy=True)
    with pytest.raises(GlasError, match=r"Flaky was evaluated once .* and failed: KeyError"):
        explained(predict, SHAPES[2])
    assert (service.calls, waits) == (1, [])
    with pytest.raises(RuntimeError, match="out of memory"):  # the batch size's affair, not the service's
        Retrying(Flaky(2, 1, lambda _: RuntimeError("CUDA out of memory")), name="far")(np.zeros((1, 1, 3, 3)))
    assert waits == []


@pytest.mark.parametrize(
    ("output", "message"),
    [
        (lambda b: b.flatten(1)[:-1], "far must return 1 rows for a batch of 1, got 0"),
        (lambda b: 0.5, "far must return 1 rows for a batch of 1, got a single number"),
        (lambda b: None, "far must return 1 rows for a batch of 1, got 0"),
        (lambda b: {"error": "busy"}, "far must return numbers, one row for each input, got dict"),
        (lambda b: [[1], [1, 2], [1], [1]], "far must return numbers, one row for each input, got list"),
    ],
)
def test_an_output_of_other_rows_is_reported_and_not_tried_again(output, message, waits):
    with pytest.raises(GlasError, match=message):
        explained(from_callable(output, "none", name="far", retries=3), SHAPES[2])
    assert waits == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"call": 3}, "a model must be callable, got int"),
        ({"retries": -1}, "retries must be a whole number of at least 0, got -1"),
        ({"retries": 1.5}, "retries must be"),
        ({"wait": -1}, "wait must be 0 or a positive number of seconds, got -1"),
    ],
)
def test_settings_of_retrying_are_checked(settings, message):
    with pytest.raises(GlasError, match=message):
        Retrying(**({"call": len, "name": "far"} | settings))
