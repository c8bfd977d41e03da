"""Covariates are ranked next to the points: a covariate at its reference is shadow, one alone is light."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from glas3d import GLAS, Grid, Predictor
from glas3d.core.covariates import Covariates, WithEmptyMasks
from glas3d.core.explanation import class_difference
from glas3d.core.gaussian import gaussian_masks
from glas3d.errors import GlasError
from tests.core import oracle
from tests.core.cases import POINTS, SHAPES, TinyNet, assert_close, atlas, constant, is_trial, refused, volume

SIGMAS = {"sigma_light": 2.5, "sigma_shadow": 1.8, "sigma_spatial": 2.0}
NAMES = ("age", "education", "score")
VALUES, REFERENCE = (0.9, -0.4, 1.5), (0.2, 0.3, -0.1)
OURS = ("light", "shadow", "drop", "score")


def covariates(values=VALUES, reference=REFERENCE):
    return Covariates.of(dict(zip(NAMES, values, strict=True)), dict(zip(NAMES, reference, strict=True)))


class BothNet(nn.Module):
    """Logits of volume and numbers, which also meet each other."""

    def __init__(self, shape, channels=1):
        super().__init__()
        self.image = TinyNet(shape, channels)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            self.numbers = nn.Linear(3, 3)

    def forward(self, volumes, numbers):
        a, b = self.image(volumes), self.numbers(numbers)
        return a + b + torch.tanh(a) * b


def softmax(net):
    return lambda batch, numbers: net(batch, numbers).softmax(dim=1).detach()


def in_float64(net):
    twin = type(net)(net.shape, net.channels)
    twin.load_state_dict(net.state_dict())
    twin = twin.double()

    def probabilities(one, numbers):
        with torch.no_grad():
            row = torch.tensor([numbers], dtype=torch.float64)
            return twin(torch.from_numpy(np.ascontiguousarray(one))[None], row)[0].softmax(dim=0).numpy()

    return probabilities


def both_net(shape, channels=1):
    net = BothNet(shape, channels)
    net.shape, net.channels = shape, channels
    return net


class LinearInBoth:
    """``P_j = w_j.x + a_j.c``, in float64 and row by row."""

    def __init__(self, weights, slopes):
        self.weights = torch.as_tensor(weights, dtype=torch.float64)
        self.slopes = torch.as_tensor(slopes, dtype=torch.float64)
        self.inputs = []

    def __call__(self, batch, numbers):
        assert numbers.dtype == torch.float32
        assert len(numbers) == len(batch)
        if not is_trial():
            self.inputs.append((batch.clone().numpy(), numbers.clone().numpy()))
        rows = [
            (self.weights * x.double()).flatten(1).sum(dim=1) + self.slopes @ c.double()
            for x, c in zip(batch, numbers, strict=True)
        ]
        return torch.stack(rows)


@pytest.mark.parametrize("channel", [None, 1])
@pytest.mark.parametrize("background", [0.0, 0.7])
@pytest.mark.parametrize("search", ["grid", "segments"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_agrees_with_the_oracle(ndim, search, background, channel):
    shape, cells = SHAPES[ndim], {2: (3, 2), 3: (2, 1, 3)}[ndim]
    net, image = both_net(shape, 2), volume(shape, 2)
    where = {"points": oracle.grid(cells, shape)} if search == "grid" else {"labels": atlas(shape)}
    settings = SIGMAS | {"background": background, "channel": channel}
    expected = oracle.explain(in_float64(net), image, 1, values=VALUES, reference=REFERENCE, **where, **settings)
    found = GLAS(softmax(net), batch_size=4, **settings).explain(
        image, 1, Grid(cells) if search == "grid" else atlas(shape), covariates=covariates()
    )
    for name in ("probability", *OURS, "saliency"):
        assert_close(getattr(found, name), expected[name])
    assert found.covariates.names == NAMES
    for name in OURS:
        assert_close(getattr(found.covariates, name), expected["covariates"][name])
    assert np.abs(expected["covariates"]["drop"]).min() > 1e-3, "a case too dull to compare"


@given(st.sampled_from([0.0, 0.6]), st.integers(1, 16), st.floats(0.3, 20.0))
def test_a_linear_model_has_a_closed_form(background, batch_size, sigma):
    """A covariate drops ``a_j (c_j - r_j)``, and its light is that above what the references alone give."""
    image, random = volume((7, 8, 9), 2), np.random.default_rng(2)
    w, a = random.normal(size=(2, 2, 7, 8, 9)), random.normal(size=(2, 3))
    found = GLAS(
        LinearInBoth(w, a), sigma_light=sigma, sigma_shadow=sigma, background=background, batch_size=batch_size
    ).explain(image, 1, POINTS[3], covariates=covariates())
    bare = background * w[1].sum() + a[1] @ np.array(REFERENCE)
    above = w[1] * (image.astype(np.float64) - background)
    own_mask = np.array([(above * oracle.mask(mu, (7, 8, 9), sigma)).sum() for mu in POINTS[3]])
    own = a[1] * (np.array(VALUES) - np.array(REFERENCE))
    tolerance = 1e-7 * np.abs(w[1] * image).sum()
    np.testing.assert_allclose(found.drop, own_mask, atol=tolerance)
    np.testing.assert_allclose(found.light, bare + own_mask, atol=tolerance)
    np.testing.assert_allclose(found.covariates.drop, own, atol=tolerance)
    np.testing.assert_allclose(found.covariates.light, bare + own, atol=tolerance)
    assert np.array_equal(found.covariates.shadow, np.abs(found.covariates.drop) + 1e-5)
    assert np.array_equal(found.covariates.score, found.covariates.light * found.covariates.shadow)


@pytest.mark.parametrize("batch_size", [1, 4, 7, 50])
@pytest.mark.parametrize("ndim", [2, 3])
def test_what_the_model_gets(ndim, batch_size):
    """Every input, to the bit: which covariates come with which volume."""
    shape, image = SHAPES[ndim], volume(SHAPES[ndim], 2)
    model = LinearInBoth(np.ones((1, 2, *shape)), np.ones((1, 3)))
    GLAS(model, background=0.7, batch_size=batch_size, **SIGMAS).explain(
        image, 0, POINTS[ndim], covariates=covariates()
    )
    total, m = 2 * (len(POINTS[ndim]) + 3) + 1, len(POINTS[ndim])
    inputs = {}
    for start, (batch, numbers) in zip(range(0, total, batch_size), model.inputs, strict=True):
        here = range(start, min(start + batch_size, total))
        for row, number in enumerate(sorted(here, key=lambda n: (n > 0, n % 2 == 0, n))):
            inputs[number] = batch[row], numbers[row]
    values, reference = np.float32(VALUES), np.float32(REFERENCE)
    dark = np.full_like(image, 0.7)
    assert sorted(inputs) == list(range(total))
    assert np.array_equal(inputs[0][0], image)
    assert np.array_equal(inputs[0][1], values)
    for i in range(m):
        assert np.array_equal(inputs[2 * i + 1][1], reference)  # in the light of a point covariates are replaced
        assert np.array_equal(inputs[2 * i + 2][1], values)
    for j in range(3):
        (lit, alone), (shaded, without) = inputs[2 * (m + j) + 1], inputs[2 * (m + j) + 2]
        assert np.array_equal(lit, dark)
        assert np.array_equal(shaded, image)
        assert alone.tolist() == [values[i] if i == j else reference[i] for i in range(3)]
        assert without.tolist() == [reference[i] if i == j else values[i] for i in range(3)]


@given(st.integers(1, 30), st.integers(1, 4), st.integers(1, 3), st.integers(0, 9))
def test_rows_of_any_batch(size, points, q, start):
    """Rows against plain words; spare ones hold the reference."""
    given_values = Covariates(tuple("abc"[:q]), np.arange(q) + 10.0, -np.arange(q) - 1.0)
    total = 2 * (points + q) + 1
    numbers = list(range(start, min(start + size, total)))
    rows = given_values.rows(numbers, size, points)
    assert rows.shape == (size, q)
    for row, number in enumerate(numbers):
        player = None if number == 0 else (number - 1) // 2
        for j in range(q):
            lit, own = number % 2 == 1, player == points + j
            intact = number == 0 or (lit and own) or (not lit and not own)
            assert rows[row, j] == (given_values.values[j] if intact else given_values.reference[j])
    assert (rows[len(numbers) :] == given_values.reference).all()


def test_a_predictor_takes_them_in_the_order_it_names():
    net = both_net((7, 9))
    predict = Predictor(net, activation="softmax", covariates=NAMES, device="cpu")
    turned = Covariates.of(
        dict(zip(NAMES[::-1], VALUES[::-1], strict=True)), dict(zip(NAMES, REFERENCE, strict=True)), predict.covariates
    )
    one = GLAS(predict, **SIGMAS).explain(volume((7, 9)), 1, Grid(2), covariates=turned)
    other = GLAS(softmax(net), **SIGMAS).explain(volume((7, 9)), 1, Grid(2), covariates=covariates())
    for name in OURS:
        assert_close(getattr(one.covariates, name), getattr(other.covariates, name))
        assert_close(getattr(one, name), getattr(other, name))


def test_one_at_its_reference_does_nothing():
    net = both_net((7, 9))
    found = GLAS(softmax(net), batch_size=4, **SIGMAS).explain(
        volume((7, 9)), 1, Grid(2), covariates=covariates(VALUES, (VALUES[0], *REFERENCE[1:]))
    )
    assert found.covariates.drop[0] == pytest.approx(0, abs=1e-7)
    assert np.abs(found.covariates.drop[1:]).min() > 1e-3


def test_a_model_that_does_not_read_the_numbers_is_explained_as_without_them():
    net = TinyNet((7, 9))
    without = GLAS(lambda batch: net(batch).softmax(1).detach(), batch_size=4, **SIGMAS)
    with_them = without.replace(predict=lambda batch, numbers: net(batch).softmax(1).detach())
    one = without.explain(volume((7, 9)), 1, Grid(3))
    other = with_them.explain(volume((7, 9)), 1, Grid(3), covariates=covariates())
    for name in (*OURS, "saliency"):
        assert_close(getattr(other, name), getattr(one, name), 1e-6)
    assert np.abs(other.covariates.drop).max() < 1e-7
    assert len(set(np.round(other.covariates.light, 6))) == 1  # all of them are the bare background
    assert one.covariates is None
    assert other.settings["evaluations"] == one.settings["evaluations"] + 6


@pytest.mark.parametrize("search", [Grid((3, 2, 4)), atlas((7, 8, 9))], ids=["grid", "segments"])
def test_batches_do_not_matter_and_runs_repeat(search):
    net = both_net((7, 8, 9))
    results = {}
    for batch_size in (1, 2, 7, 1000, None):
        glas = GLAS(softmax(net), batch_size=batch_size, **SIGMAS)
        results[batch_size] = glas.explain(volume((7, 8, 9)), 1, search, covariates=covariates())
        again = glas.explain(volume((7, 8, 9)), 1, search, covariates=covariates())
        for name in OURS:
            for found in (lambda e: e, lambda e: e.covariates):
                own = getattr(found(results[batch_size]), name)
                assert np.array_equal(getattr(found(again), name), own)
                assert_close(own, getattr(found(results[1]), name), 1e-5)


def test_all_classes_come_from_the_same_evaluations():
    net, inputs = both_net((7, 9)), []

    def predict(batch, numbers):
        inputs.extend([len(batch)] * (not is_trial()))
        return softmax(net)(batch, numbers)

    classes = GLAS(predict, batch_size=1, **SIGMAS).explain(volume((7, 9)), (0, 1, 2), Grid(2), covariates=covariates())
    assert len(inputs) == 2 * (4 + 3) + 1
    assert np.abs(sum(e.covariates.drop for e in classes)).max() < 1e-6
    a, b, _ = classes
    found = class_difference(a, b).covariates
    assert found.names == NAMES
    assert np.array_equal(found.drop, a.covariates.drop - b.covariates.drop)
    assert np.array_equal(found.light, a.covariates.light - b.covariates.light)
    assert np.array_equal(found.score, a.covariates.score - b.covariates.score)
    assert np.array_equal(found.shadow, np.abs(found.drop))


def test_a_covariate_has_no_place_in_the_map():
    """Nor does it change the map of the points."""
    model = LinearInBoth(np.full((1, 1, 7, 9), 0.01), [[50.0, 0.0, 0.0]])
    found = GLAS(model, **SIGMAS).explain(volume((7, 9)), 0, Grid(2), covariates=covariates())
    assert found.points.shape == (4, 2)
    assert found.covariates.score.shape == (3,)
    assert_close(found.saliency, oracle.spread(found.points, found.score, (7, 9), 2.0))


@pytest.mark.parametrize("start", range(6))
@pytest.mark.parametrize("size", [1, 2, 6])
def test_empty_masks_come_behind(start, size):
    size = min(size, 6 - start)
    placed = gaussian_masks(POINTS[2], (7, 9), (1.5, 1.5))
    made = WithEmptyMasks(placed, 2)
    assert len(made) == 6
    out = made.masks(start, torch.full((size, 7, 9), 9.0))
    every = torch.cat([placed.masks(0, torch.empty(4, 7, 9)), torch.zeros(2, 7, 9)])
    assert torch.equal(out, every[start : start + size])


def test_the_model_s_order_is_kept():
    made = Covariates.of({"score": 1, "age": 70}, {"age": 65, "score": 2}, order=("age", "score"))
    assert made.names == ("age", "score")
    assert made.values.tolist() == [70, 1]
    assert made.reference.tolist() == [65, 2]
    as_given = Covariates.of({"score": np.float32(1), "age": np.int64(70)}, {"age": 65, "score": torch.tensor(2.0)})
    assert as_given.names == ("score", "age")
    assert as_given.values.tolist() == [1, 70]
    assert as_given.reference.tolist() == [2, 65]
    assert as_given.values.dtype == as_given.reference.dtype == np.float64


@pytest.mark.parametrize(
    ("values", "reference", "order", "match"),
    [
        ({}, {}, None, "covariates must have a name and a value each, got none"),
        ({"age": 70}, {}, None, "every covariate needs a reference value, 'age' has none"),
        ({"age": 70}, {"age": 65}, ("age", "score"), "every covariate needs a value, 'score' has none"),
        ({"age": 70, "iq": 1}, {"age": 65}, ("age",), "covariates must be of age, got a value for 'iq'"),
        ({"age": 70}, {"age": 65, "iq": 1}, None, "covariates must be of age, got a reference value for 'iq'"),
        ({"age": 70}, {"age": 65}, ("age", "age"), "every covariate must have a name of its own, got age, age"),
        ({"age": "old"}, {"age": 65}, None, "a covariate's value must be a finite number, 'age' has 'old'"),
        ({"age": "70"}, {"age": 65}, None, "a covariate's value must be a finite number, 'age' has '70'"),
        ({"age": [70.0]}, {"age": 65}, None, r"a covariate's value must be a finite number, 'age' has \[70.0\]"),
        ({"age": 70}, {"age": None}, None, "a covariate's reference value must be a finite number, 'age' has None"),
        ({"iq": 1, "age": float("nan")}, {"iq": 1, "age": 65}, None, "value must be a finite number, 'age' has nan"),
        ({"age": 70}, {"age": float("inf")}, None, "reference value must be a finite number, 'age' has inf"),
    ],
)
def test_refused(values, reference, order, match):
    with refused(match):
        Covariates.of(values, reference, order)


def test_a_number_beyond_all_floats_is_refused():
    with pytest.raises(GlasError, match="a covariate's value must be a finite number, 'age' has 1000"):
        Covariates.of({"age": 10**400}, {"age": 65})


def test_a_wrong_output_is_refused():
    with refused(r"one row of probabilities for each input"):
        GLAS(lambda batch, numbers: constant(0.4, 0.6)(batch[1:])).explain(
            volume((7, 9)), 1, Grid(2), covariates=covariates()
        )


def test_a_mapping_is_not_taken_as_covariates():
    glas = GLAS(lambda batch, table: batch.mean(dim=(1, 2, 3))[:, None])
    with refused(r"covariates must be Covariates.of\(values, reference\), got dict"):
        glas.explain(torch.ones(1, 7, 9), 0, Grid(2), covariates={"age": 7.0})
