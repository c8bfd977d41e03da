"""Explanations with a cut: the same scores from fewer computations, and what is recorded when nothing can be saved."""

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from glas3d import GLAS, RGLAS, GlasError, GlasWarning, Grid, Predictor
from glas3d.core.accelerate import recompute
from glas3d.core.accelerate.recompute import WindowedPerturbations
from glas3d.core.covariates import Covariates
from glas3d.core.gaussian import gaussian_masks
from glas3d.core.perturb import LightAndShadow
from glas3d.core.search import Segments
from tests.core import oracle

SHAPES = {2: (34, 41), 3: (20, 27, 23)}
EXACT = 7.0  # sigmas, beyond which a mask is 0 to begin with


def small_network():
    """Two logits from the mean of a convolution."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(
            nn.Conv3d(1, 4, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 2)
        )


def network(ndim, channels=1):
    torch.manual_seed(ndim)
    conv, pool = (nn.Conv2d, nn.MaxPool2d) if ndim == 2 else (nn.Conv3d, nn.MaxPool3d)
    with torch.no_grad():
        net = nn.Sequential(
            conv(channels, 4, 3, padding=1), nn.ReLU(), pool(2), conv(4, 3, 3), nn.ELU(), nn.Flatten(), nn.LazyLinear(3)
        )
        net(torch.rand(1, channels, *SHAPES[ndim]))
        net[-1].weight.mul_(4)
    return net


def scan(ndim, channels=1):
    """Return a scan with air all around, more on one side."""
    volume = np.zeros((channels, *SHAPES[ndim]), dtype=np.float32)
    inside = (slice(None), *[slice(3, n - 1) for n in SHAPES[ndim]])
    volume[inside] = np.random.default_rng(1).uniform(0.5, 2.0, volume[inside].shape)
    return volume


def explained(glas, ndim, search, channels=1, **options):
    return glas.explain(scan(ndim, channels), [0, 2], search, **options)


def assert_same(ours, theirs, atol):
    for one, other in zip(ours, theirs, strict=True):
        assert np.ptp(other.score) > 1e-4
        assert np.ptp(other.drop) > 1e-3
        for name in ("light", "drop", "score", "probability"):
            np.testing.assert_allclose(getattr(one, name), getattr(other, name), rtol=0, atol=atol)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize(
    ("cut", "atol", "settings"),
    [
        (EXACT, 1e-6, {}),
        (np.inf, 1e-6, {"background": 0.7, "batch_size": 3}),
        (EXACT, 1e-6, {"sigma_light": (1, 1.5, 2), "background": "blurred"}),
        (EXACT, 1e-6, {"channel": 1}),
        (4.0, 5e-5, {}),
        (4.5, 5e-5, {"kernel": "exponential", "sigma_light": 0.7, "sigma_shadow": 0.8}),
        (4.5, 5e-5, {"kernel": "ellipsoid"}),
        (EXACT, 1e-6, {"kernel": "segment"}),
    ],
)
def test_scores_are_those_of_full_forward_passes(ndim, cut, atol, settings):
    settings = {"sigma_light": 1.0, "sigma_shadow": 1.5} | settings
    if isinstance(settings["sigma_light"], tuple):
        settings["sigma_light"] = settings["sigma_light"][:ndim]
    channels = 2 if "channel" in settings else 1
    if settings.get("background") == "blurred":
        settings["background"] = scan(ndim, channels)[:, ::-1] * 0.5
    search = Grid(3)
    if settings.get("kernel") in ("ellipsoid", "segment"):
        labels = np.zeros(SHAPES[ndim], dtype=np.int16)
        for label, corner in enumerate(itertools.product((5, 14), repeat=ndim), start=300):
            labels[tuple(slice(p, p + 2 + label % 3) for p in corner)] = label
        search = Segments.from_labels(labels)
    glas = GLAS(Predictor(network(ndim, channels), "softmax", lambda x: x * 0.5 + 1, device="cpu"), **settings)
    theirs = explained(glas, ndim, search, channels)
    ours = explained(glas.replace(cut=cut, cut_always=True), ndim, search, channels)
    assert_same(ours, theirs, atol)
    record = ours[0].settings["recomputed"]
    assert record["recomputed"], record["reason"]
    assert record["checked"] >= 2
    assert record["measured_change"] <= atol
    assert (record["mask_cut_off"] == 0) == (cut >= EXACT)
    assert "recomputed" not in theirs[0].settings


@pytest.mark.parametrize("kernel", ["gaussian", "exponential"])
@pytest.mark.parametrize("cut", [1.5, 3.0, EXACT])
def test_the_bound_holds_and_is_reached(cut, kernel):
    """Compare with the perturbed volumes of the equations, taken as the base outside of the boxes."""
    shape, sigma = SHAPES[3], 2.0 if kernel == "gaussian" else 1.1
    points = np.array([[3.0, 4.5, 20.0], [11.2, 13.0, 9.0], [-0.4, 26.0, 1.0]])
    volume, background = scan(3), scan(3)[:, :, ::-1].copy()
    masks = gaussian_masks(points, shape, (sigma,) * 3, kernel)
    inputs = LightAndShadow(torch.from_numpy(volume), torch.from_numpy(background), masks, masks)
    made = WindowedPerturbations(inputs, cut, lambda _: 2)
    largest_mask = largest = 0.0
    for row, point in enumerate(points):
        mask = oracle.mask(point, shape, sigma, kernel)
        outside = np.ones(shape, dtype=bool)
        outside[tuple(map(slice, made.windows[0].low[row], made.windows[0].high[row]))] = False
        # beyond the boxes of I - B nothing is cut: the two are equal there
        largest = max(largest, np.abs(mask * (volume - background)[0])[outside].max(initial=0))
        largest_mask = max(largest_mask, mask[outside & (np.abs(volume - background)[0] > 0)].max(initial=0))
        assert (made.windows[0].high[row] - made.windows[0].low[row] <= made.windows[0].size).all()
    assert largest <= made.input_change * (1 + 1e-6) + 1e-9
    assert made.mask_cut_off <= np.exp(-0.5 * cut**2)
    if cut < EXACT:
        assert largest_mask == pytest.approx(made.mask_cut_off, rel=0.3)


def parts_of(made, kind):
    rows = np.concatenate(made.batches(kind))
    return rows, made.parts(kind, rows)


@pytest.mark.parametrize(("m", "fits", "size"), [(7, 64, 1), (80, 64, 10), (80, 4, 4), (4000, 64, 64)])
def test_there_are_batches_enough_to_decide_early(m, fits, size):
    points = np.random.default_rng(0).uniform(0, 20, (m, 3))
    volume, masks = torch.from_numpy(scan(3, 1)), gaussian_masks(points, SHAPES[3], (1.2, 1.0, 0.9))
    values = []
    inputs = LightAndShadow(volume, torch.zeros_like(volume), masks, masks)
    made = WindowedPerturbations(inputs, EXACT, lambda n: values.append(n) or fits)
    assert made.batch_size == (size, size)
    assert values == [2 * np.prod(one.size) for one in made.windows]


@pytest.mark.parametrize("channel", [None, 1])
def test_every_point_is_in_a_batch_and_its_window_holds_its_volume(channel):
    shape = SHAPES[3]
    points = np.random.default_rng(0).uniform(0, 20, (23, 3))
    volume, background = torch.from_numpy(scan(3, 2)), torch.full((2, *shape), 0.25)
    masks = gaussian_masks(points, shape, (1.2, 1.0, 0.9)), gaussian_masks(points, shape, (2.0,) * 3)
    made = WindowedPerturbations(LightAndShadow(volume, background, *masks, channel), EXACT, lambda _: 3)
    for kind in (0, 1):
        assert [len(rows) for rows in made.batches(kind)] == [3] * 8
        rows, parts = parts_of(made, kind)
        assert set(rows) == set(range(23))
        for row, part in zip(rows, parts, strict=True):
            pasted = made.bases[kind].clone()
            box = tuple(
                slice(int(c), int(c) + n) for c, n in zip(made.windows[kind].corner[row], part.shape[1:], strict=True)
            )
            pasted[(slice(None), *box)] = part
            assert torch.equal(pasted, made.whole(kind, int(row))[0])


def test_a_callable_is_evaluated_in_full_with_a_warning():
    predict = Predictor(network(3), "softmax", device="cpu")
    glas = GLAS(lambda batch: predict(batch), sigma_light=1, sigma_shadow=1.5)
    theirs = explained(glas, 3, Grid(2))
    with pytest.warns(GlasWarning, match="saves nothing, every input is evaluated in full: the model is a callable"):
        ours = explained(glas.replace(cut=5), 3, Grid(2))
    assert_same(ours, theirs, 0)
    assert ours[0].settings["recomputed"]["reason"] == "the model is a callable that does not say what it computes"


def test_covariates_are_evaluated_in_full():
    class Both(nn.Module):
        def forward(self, volume, table):
            return volume.mean(dim=(1, 2, 3, 4))[:, None] * table

    glas = GLAS(Predictor(Both(), "sigmoid", covariates=("age", "sex"), device="cpu"), sigma_light=1, cut=EXACT)
    covariates = Covariates.of({"age": 2.0, "sex": 1.0}, {"age": 0.0, "sex": 0.0})
    with pytest.warns(GlasWarning, match="the model takes covariates next to the volume"):
        glas.explain(scan(3), 0, Grid(2), covariates=covariates)


def test_a_cut_that_changes_the_answer_is_not_taken():
    glas = GLAS(Predictor(network(3), "softmax", device="cpu"), sigma_light=2, sigma_shadow=2)
    theirs = explained(glas, 3, Grid(2))
    ours = explained(glas.replace(cut=0.5, cut_always=True), 3, Grid(2))
    assert_same(ours, theirs, 0)
    record = ours[0].settings["recomputed"]
    assert not record["recomputed"]
    assert record["measured_change"] > recompute.TOLERANCE
    assert record["reason"].startswith("it changes an output by 0.")
    assert record["reason"].endswith("more than 0.0001")


@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize("slow", ["whole", "windows"])
def test_the_slower_of_the_two_is_not_used(monkeypatch, slow, always):
    """The clock runs only while one of the two is evaluated."""
    now = 0.0
    monkeypatch.setattr(recompute.time, "perf_counter", lambda: now)
    whole = WindowedPerturbations.whole, 2.0 if slow == "whole" else 0.1
    parts = WindowedPerturbations.parts, 1.0

    def counting(method, cost):
        def counted(self, kind, rows):
            nonlocal now
            now += cost * np.size(rows)
            return method(self, kind, rows)

        return counted

    monkeypatch.setattr(WindowedPerturbations, "whole", counting(*whole))
    monkeypatch.setattr(WindowedPerturbations, "parts", counting(*parts))
    glas = GLAS(Predictor(network(3), "softmax", device="cpu"), sigma_light=1, sigma_shadow=1.5, batch_size=2)
    ticks = []
    glas = glas.replace(cut=EXACT, cut_always=always, progress=lambda done, total: ticks.append((done, total)))
    record = explained(glas, 3, Grid(2))[0].settings["recomputed"]
    in_full = slow == "windows" and not always
    assert record["recomputed"] is not in_full
    assert record["reason"] == ("the full forward pass is not slower" if in_full else "")
    assert ticks[-1] == (17, 17)
    assert sorted(ticks) == ticks


def test_a_recursion_recomputes_too():
    glas = GLAS(Predictor(network(2), "softmax", device="cpu"), sigma_light=1.5, sigma_shadow=2)
    theirs, ours = (
        RGLAS(g, max_iterations=3).explain(scan(2), 1, Grid(4))
        for g in (glas, glas.replace(cut=EXACT, cut_always=True))
    )
    np.testing.assert_allclose(ours.saliency, theirs.saliency, atol=1e-4)
    assert all(one.explanation.settings["recomputed"]["recomputed"] for one in ours.rounds)


@pytest.mark.parametrize("cut", [0, -1, "far", float("nan"), (1, 2)])
def test_a_cut_is_a_positive_number(cut):
    with pytest.raises(GlasError, match="cut must be"):
        GLAS(lambda batch: batch, cut=cut)


@pytest.mark.parametrize("batch_size", [2, 5])
def test_truncation_is_checked_where_the_effects_are(batch_size):
    """A grid whose first points lie in air, around a head in the middle."""
    net = small_network()
    with torch.no_grad():
        net[-1].weight *= 20
    image = np.zeros((1, 26, 28, 30), dtype=np.float32)
    image[:, 9:17, 10:18, 10:20] = np.random.default_rng(0).uniform(0.5, 2.0, (1, 8, 8, 10))
    glas = GLAS(Predictor(net, "softmax", device="cpu"), batch_size=batch_size, sigma_light=3, sigma_shadow=4)
    expected = glas.explain(image, 1, Grid((5, 4, 6)))
    found = glas.replace(cut=1.0, cut_always=True).explain(image, 1, Grid((5, 4, 6)))
    np.testing.assert_allclose(found.light, expected.light, rtol=0, atol=1e-4)
    record = found.settings["recomputed"]
    assert not record["recomputed"]
    assert "it changes an output by" in record["reason"]


def test_truncation_is_held_to_a_share_of_small_effects():
    """Drops of 1e-5 must not be off by a half."""
    net = small_network()
    with torch.no_grad():
        net[-1].weight *= 0.1
    glas = GLAS(Predictor(net, "softmax", device="cpu"), batch_size=4, sigma_light=2, sigma_shadow=2)
    image = np.random.default_rng(0).uniform(0.5, 2.0, (1, 16, 18, 20))
    expected = glas.explain(image, 1, Grid((3, 2, 4)))
    assert np.abs(expected.drop).max() < 1e-3
    found = glas.replace(cut=1.0, cut_always=True).explain(image, 1, Grid((3, 2, 4)))
    np.testing.assert_allclose(found.drop, expected.drop, rtol=0, atol=0.1 * np.abs(expected.drop).max())
