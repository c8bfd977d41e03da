"""A reference that misleads: how it shows, and what putting a map's places out one by one tells."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from glas3d import GLAS, Predictor, load_model
from glas3d.core.reference import answer_to_background, consensus, deletion, references
from glas3d.imaging.space import mni_grid
from glas3d.predict.intensity import intensity_scale
from glas3d.simulate.participants import PLANTED, Simulation, participant
from tests.core.cases import (
    CELLS,
    SHAPES,
    WIDE,
    NoisyOr,
    Recorder,
    TinyNet,
    assert_close,
    atlas,
    blocks,
    refused,
    volume,
)
from tests.core.test_reference import SIGMAS, backgrounds, of_each


class Atrophy:
    """A detector that compares one place with the rest, against the controls' mean, as a standardised network does."""

    def __init__(self, planted, mean):
        self.mean = torch.as_tensor(mean)
        self.weight = torch.as_tensor(planted / planted.sum() - ~planted / (~planted).sum()).float()

    def __call__(self, batch):
        less = ((self.mean - batch) * self.weight).flatten(1).sum(dim=1)
        p = torch.sigmoid(12 * less - 2)
        return torch.stack([1 - p, p], dim=1)


@pytest.fixture(scope="module", params=[2, 3], ids=["2D", "3D"])
def shrunk(request):
    """A participant whose tissue shrank in one block, a detector, and three references, of which 0 is far away."""
    ndim = request.param
    shape, labels = WIDE[ndim], blocks(WIDE[ndim], CELLS[ndim])
    random = np.random.default_rng(3)
    where = np.unique(labels)[5]
    planted = labels == where
    mean = random.uniform(0.8, 1.2, (1, *shape)).astype(np.float32)
    patient, donor = (mean + random.normal(0, 0.02, mean.shape).astype(np.float32) for _ in range(2))
    patient[0][planted] -= 0.3
    glas = GLAS(Atrophy(planted, mean), sigma_light=2, sigma_shadow=2)
    each = references(glas, {"zero": 0.0, "mean": mean, "donor": donor})
    found = {name: one.explain(patient, 1, labels) for name, one in each.items()}
    return each, patient, labels, found, int(np.flatnonzero(found["zero"].segments.index == where)[0])


def test_darkness_misleads_and_the_consensus_finds_it_again(shrunk):
    _, _, _, found, planted = shrunk
    agreed = consensus(found)
    assert found["zero"].probability > 0.7
    dark, mean, donor = agreed.drop[:, planted]
    assert dark < -0.1, "a black patch is more atrophy still: the place seems to speak against disease"
    assert mean > 0.3 < donor
    assert found["zero"].score.argmax() != planted
    assert agreed.explanation.score.argmax() == planted
    assert agreed.explanation.drop[planted] > 0.3
    assert agreed.sign[planted] == 1
    assert agreed.agreement[planted] == pytest.approx(2 / 3)
    flips = agreed.flips(3)
    assert flips[0, 1] > flips[1, 2]


@pytest.mark.slow
def test_darkness_misleads_about_the_shipped_model_too(aal):
    """Mild simulated disease: black makes every planted region speak against it, and finds none of them."""
    predict, grid = load_model("adnc-simulated", device="cpu"), mni_grid(4)
    mild = Simulation(seed=2020, severity=(0.2, 0.4))
    one, donor = participant(mild, 44), participant(mild, 19)
    scale = intensity_scale(one.volume)
    each = references(
        GLAS(predict, **predict.info.preset),
        {
            "zero": 0.0,
            "control mean": predict.info.reference * np.float32(scale),
            "donor": donor.volume[None] * np.float32(scale / intensity_scale(donor.volume)),
        },
    )
    regions = aal.segments(grid)
    planted = aal.table.set_index("index")["name"].loc[regions.index].isin(PLANTED).to_numpy()
    found = {name: e.explain(one.volume[None], "AD", regions, grid.spacing) for name, e in each.items()}
    agreed = consensus(found)
    assert (agreed.drop[0, planted] < -0.1).all()
    assert agreed.drop[1:, planted].mean() > 0.2
    first = {name: int(planted[np.argsort(-e.score)[:8]].sum()) for name, e in found.items()}
    assert first["zero"] == 0
    assert planted[np.argsort(-agreed.explanation.score)[:8]].sum() >= 4
    assert (agreed.sign[planted] == 1).sum() >= 5
    flips = agreed.flips(20)
    assert flips[0, 1] > 0.7 > flips[1, 2]
    assert answer_to_background(each["zero"], one.volume[None], "AD") > 0.99
    assert answer_to_background(each["donor"], one.volume[None], "AD") < 0.5


def test_a_misleading_reference_gives_itself_away(shrunk):
    """The model takes darkness for the disease, and the other two for none."""
    each, patient, _, found, _ = shrunk
    assert answer_to_background(each["mean"], patient, 1) == pytest.approx(1 / (1 + np.exp(2)), abs=1e-5)
    assert answer_to_background(each["donor"], patient, 1) < 0.3
    many = references(each["zero"], {"as it is": patient})
    assert answer_to_background(many["as it is"], patient, 1) == pytest.approx(found["zero"].probability, abs=1e-6)


def test_the_answer_to_a_background_is_that_of_light_with_nothing_lit():
    named = Predictor(TinyNet((7, 9), classes=2), device="cpu", classes=("NC", "AD"))
    for background in backgrounds((7, 9)).values():
        glas = GLAS(named, background=background, sigma_light=1e-3, sigma_shadow=1)
        lit = glas.explain(volume((7, 9)), "AD", [[2.5, 3.5]]).light[0]  # between voxels: none is lit
        assert answer_to_background(glas, volume((7, 9)), "AD") == pytest.approx(lit, abs=1e-6)
        assert answer_to_background(glas, volume((7, 9)), 1) == answer_to_background(glas, volume((7, 9)), "AD")
    with refused("target must be one of 'NC', 'AD', got 'MCI'"):
        answer_to_background(glas, volume((7, 9)), "MCI")


class ByBrightness:
    """A normalisation that is fitted to the intact volume and frozen."""

    def fit(self, volume):
        scale = float(volume.max())
        return lambda batch: batch / scale


def test_normalisation_stays_that_of_the_intact_volume():
    """Fitted to darkness it could not even be; half as bright, the background would look like the volume."""
    net, image = TinyNet((7, 9)), volume((7, 9))
    glas = GLAS(Predictor(net, transform=ByBrightness(), device="cpu"), background=image / 2, **SIGMAS)
    plain = GLAS(Predictor(net, device="cpu"), background=image / 2 / image.max(), **SIGMAS)
    scaled = image / image.max()
    assert answer_to_background(glas, image, 1) == pytest.approx(answer_to_background(plain, scaled, 1), abs=1e-6)
    assert answer_to_background(glas.replace(background=0.0), image, 1) > 0
    one = glas.explain(image, 1, atlas((7, 9)))
    got, expected = deletion(glas, image, one, 3), deletion(plain, scaled, one, 3)
    assert_close(got.probability, expected.probability)
    assert np.ptp(got.probability) > 1e-3


# Deletion.


@pytest.mark.parametrize("search", ["grid", "segments"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_deletion_agrees_with_plain_loops(ndim, search):
    found, shape = of_each(ndim, search), SHAPES[ndim]
    each = references(GLAS(Predictor(TinyNet(shape), device="cpu"), **SIGMAS), backgrounds(shape))
    one, image = found["donor"], volume(shape)
    asked = Recorder(Predictor(TinyNet(shape), device="cpu"))
    got = deletion(each["grey"].replace(predict=asked), image, one, steps=4)
    if search == "grid":
        order = sorted(np.ndindex(*shape), key=lambda x: -one.saliency[x])
        groups = [[x] for x in order]
    else:
        ranked = sorted(range(len(one.score)), key=lambda i: -one.score[i])
        groups = [list(zip(*np.nonzero(atlas(shape) == one.segments.index[i]), strict=True)) for i in ranked]
    inputs = np.concatenate(asked.batches)
    for step in range(5):
        expected, gone = image.copy(), 0
        for place, group in enumerate(groups):
            if place * 4 < step * len(groups):
                gone += len(group)
                for x in group:
                    expected[0][x] = np.float32(0.7)
        assert np.array_equal(inputs[step], expected)
        assert got.share[step] == gone / sum(map(len, groups))
    assert (got.share[0], got.share[-1]) == (0, 1)
    assert got.probability[0] == pytest.approx(one.probability, abs=1e-6)
    area = sum((b - a) * (p + q) / 2 for a, b, p, q in steps_of(got))
    assert got.area == pytest.approx(area, rel=1e-12)


def steps_of(found):
    return zip(found.share[:-1], found.share[1:], found.probability[:-1], found.probability[1:], strict=True)


def test_the_better_map_has_the_smaller_area():
    labels = blocks(WIDE[2], CELLS[2])
    image = np.zeros((1, *WIDE[2]), dtype=np.float32)
    image[0, 16:19, 19:22] = 1.0
    glas = GLAS(NoisyOr({(17, 20): 0.9}), sigma_light=3, sigma_shadow=3)
    right = glas.explain(image, 1, labels)
    wrong = replace(right, score=-right.score, saliency=-right.saliency)
    good, bad = (deletion(glas, image, one, steps=16) for one in (right, wrong))
    assert good.area < 0.15 < 0.8 < bad.area
    assert good.probability[1] == pytest.approx(0.02)
    assert bad.probability[-2] == pytest.approx(good.probability[0])


def test_deletion_by_the_wrong_reference_shows_nothing(shrunk):
    """Put out with darkness, the detector only gets surer, whatever the order."""
    each, patient, _, found, _ = shrunk
    agreed = consensus(found).explanation
    by_mean = deletion(each["mean"], patient, agreed, 8)
    by_zero = deletion(each["zero"], patient, agreed, 8)
    assert by_mean.area < 0.3 < by_zero.probability[1]
    assert by_zero.probability[1] > 0.99


def test_deletion_in_batches_is_the_same():
    found, shape = of_each(), SHAPES[3]
    glas = GLAS(Predictor(TinyNet(shape), device="cpu"), background=0.7)
    results = []
    for size in (1, 3, 100):
        one = replace(found["zero"], settings=found["zero"].settings | {"batch_size": size})
        results.append(deletion(glas, volume(shape), one, 7))
    for other in results[1:]:
        assert np.array_equal(other.share, results[0].share)
        assert_close(other.probability, results[0].probability, 1e-6)


def test_deletions_refused():
    found = of_each()["zero"]
    glas = GLAS(Predictor(TinyNet((7, 8, 9)), device="cpu"))
    for steps in (0, 2.5, True):
        with refused(f"steps must be a whole number of at least 1, got {steps}"):
            deletion(glas, volume((7, 8, 9)), found, steps)
    with refused(r"needs the explained volume of \(7, 8, 9\), got \(1, 7, 9\)"):
        deletion(glas, volume((7, 9)), found)
