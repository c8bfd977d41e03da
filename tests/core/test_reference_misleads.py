"""A reference that misleads, and how it shows."""

import numpy as np
import pytest

from glas3d import GLAS, Predictor, load_model
from glas3d.core.reference import consensus, probability_of_background, references
from glas3d.imaging.space import mni_grid
from glas3d.predict import intensity_scale
from glas3d.simulate import PLANTED, Simulation, simulate_participant
from tests.core.atrophy import shrunk_participant
from tests.core.cases import TinyNet, refused, volume
from tests.core.test_reference import SIGMAS, backgrounds


@pytest.fixture(scope="module", params=[2, 3], ids=["2D", "3D"])
def shrunk(request):
    """A participant whose tissue shrank in one block, a detector, and three references, of which 0 is far away."""
    return shrunk_participant(request.param)


def test_darkness_misleads_and_the_consensus_finds_it_again(shrunk):
    found, planted = shrunk.explanations, shrunk.planted
    agreed = consensus(found)
    assert found["zero"].probability > 0.7
    dark, mean, donor = agreed.drop[:, planted]
    assert dark < -0.1, "a black patch is more atrophy still: the region seems to be evidence against disease"
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
    """Black makes every planted region speak against simulated disease, and finds none of them."""
    predict, grid = load_model("adnc-simulated", device="cpu"), mni_grid(4)
    simulation = Simulation(seed=2020)
    one, donor = simulate_participant(simulation, 44), simulate_participant(simulation, 19)
    scale = intensity_scale(one.volume)
    each = references(
        GLAS(predict, sigma_light=8.0, sigma_shadow=12.0, unit="mm"),
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
    assert (agreed.drop[0, planted] < 0).all()
    assert (agreed.drop[1:, planted] > 0).all()
    first = {name: int(planted[np.argsort(-e.score)[:8]].sum()) for name, e in found.items()}
    assert first["zero"] == 0
    assert planted[np.argsort(-agreed.explanation.score)[:8]].sum() >= 4
    assert (agreed.sign[planted] == 1).all()
    flips = agreed.flips(20)
    assert flips[0, 1] > 0.7 > flips[1, 2]
    assert probability_of_background(each["zero"], one.volume[None], "AD") > 0.9
    assert probability_of_background(each["donor"], one.volume[None], "AD") < 0.5


def test_a_misleading_reference_gives_itself_away(shrunk):
    """The model takes darkness for the disease, and the other two for none."""
    each, patient, found = shrunk.explainers, shrunk.volume, shrunk.explanations
    assert probability_of_background(each["mean"], patient, 1) == pytest.approx(1 / (1 + np.exp(2)), abs=1e-5)
    assert probability_of_background(each["donor"], patient, 1) < 0.3
    many = references(each["zero"], {"as it is": patient})
    assert probability_of_background(many["as it is"], patient, 1) == pytest.approx(found["zero"].probability, abs=1e-6)


def test_the_answer_to_a_background_is_that_of_light_with_nothing_lit():
    named = Predictor(TinyNet((7, 9), classes=2), "softmax", device="cpu", classes=("NC", "AD"))
    for background in backgrounds((7, 9)).values():
        glas = GLAS(named, background=background, sigma_light=1e-3, sigma_shadow=1)
        lit = glas.explain(volume((7, 9)), "AD", [[2.5, 3.5]]).light[0]  # between voxels: none is lit
        assert probability_of_background(glas, volume((7, 9)), "AD") == pytest.approx(lit, abs=1e-6)
        assert probability_of_background(glas, volume((7, 9)), 1) == probability_of_background(
            glas, volume((7, 9)), "AD"
        )
    with refused(r"target must be one of NC \(0\), AD \(1\), got 'MCI'"):
        probability_of_background(glas, volume((7, 9)), "MCI")


class ByBrightness:
    """A normalisation that is fitted to the intact volume and frozen."""

    def fit(self, volume):
        scale = float(volume.max())
        return lambda batch: batch / scale


def test_normalisation_stays_that_of_the_intact_volume():
    """Fitted to darkness it could not even be; half as bright, the background would look like the volume."""
    net, image = TinyNet((7, 9)), volume((7, 9))
    glas = GLAS(Predictor(net, "softmax", transform=ByBrightness(), device="cpu"), background=image / 2, **SIGMAS)
    plain = GLAS(Predictor(net, "softmax", device="cpu"), background=image / 2 / image.max(), **SIGMAS)
    scaled = image / image.max()
    assert probability_of_background(glas, image, 1) == pytest.approx(
        probability_of_background(plain, scaled, 1), abs=1e-6
    )
    assert probability_of_background(glas.replace(background=0.0), image, 1) > 0
