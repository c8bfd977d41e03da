"""Lesions, a suppressor and artefacts: each alters what it says and nothing else."""

from dataclasses import replace

import numpy as np
import pytest

from glas3d import GlasError
from glas3d.imaging.space import VoxelGrid, mni_grid, template_on
from glas3d.simulate import Simulation, simulate_participant, twins
from glas3d.simulate.artefacts import with_artefacts
from glas3d.simulate.lesions import lesion_share
from glas3d.simulate.regions import region_shares

SIMULATION = Simulation(participants=4, seed=6, resolution=4, regions=("Thalamus_R",))
LESIONS = replace(SIMULATION, lesions=(3.0, 20.0))
SUPPRESSED = replace(SIMULATION, suppressor="Precuneus_L")


def test_lesions_darken_white_matter_where_they_are():
    still = replace(LESIONS, deformation=0, bias=0, noise=0)
    ill = simulate_participant(still, 0)
    assert ill.abnormalities == ("Thalamus_R", "lesions")
    healed = simulate_participant(still, 0, ["Thalamus_R"])
    assert healed.lesions is None
    assert healed.severity == ill.severity
    changed = ill.volume != healed.volume
    np.testing.assert_array_equal(changed, (ill.lesions > 0) & changed)
    assert (ill.volume <= healed.volume).all()
    assert template_on(4, "wm")[ill.lesions > 0.5].mean() > 0.6
    deep = changed & (ill.lesions == 1) & (template_on(4, "wm") > 0.99)
    ratio = ill.volume[deep] / healed.volume[deep]
    assert 0.6 < ratio.min() <= ratio.max() < 0.85  # grey matter against white


def test_lesions_change_nothing_else():
    """All draws of the participant are those without lesions."""
    plain, ill = simulate_participant(SIMULATION, 0), simulate_participant(LESIONS, 0)
    np.testing.assert_array_equal(simulate_participant(LESIONS, 0, ["Thalamus_R"]).volume, plain.volume)
    away = ill.lesions == 0
    np.testing.assert_array_equal(ill.volume[away], plain.volume[away])
    assert (ill.volume != plain.volume).any()


def test_the_number_of_lesions_is_that_of_the_group():
    grid = mni_grid(4)
    volumes = {
        mean: np.mean(
            [
                0 if (share := lesion_share(np.random.default_rng(i), mean, "ICBM152", grid)) is None else share.sum()
                for i in range(30)
            ]
        )
        for mean in (2.0, 8.0)
    }
    assert volumes[8.0] == pytest.approx(4 * volumes[2.0], rel=0.35)
    people = [simulate_participant(replace(LESIONS, lesions=(0.0, 9.0)), i) for i in range(4)]
    assert [p.lesions is not None for p in people] == [True, False, True, False]


def test_lesions_have_their_volume_at_every_resolution():
    """Radii do not depend on the voxels, nor does the place."""
    found = {}
    for mm in (1, 2, 4):
        grid = mni_grid(mm)
        share = lesion_share(np.random.default_rng(3), 6.0, "ICBM152", grid)
        centre = (np.argwhere(share > 0) * share[share > 0][:, None]).sum(axis=0) / share.sum() * mm + grid.affine[
            :3, 3
        ]
        found[mm] = share.sum() * mm**3, centre
    for volume, centre in found.values():
        assert volume == pytest.approx(found[1][0], rel=0.35)
        np.testing.assert_allclose(centre, found[1][1], atol=3.0)


def test_lesions_outside_the_grid_are_left_out():
    affine = mni_grid(2).affine.copy()
    affine[:3, 3] += 300
    share = lesion_share(np.random.default_rng(3), 6.0, "ICBM152", VoxelGrid((7, 8, 9), affine))
    assert share.shape == (7, 8, 9)
    assert share.sum() == 0


def test_the_suppressor_loses_what_regions_with_disease_lose_whatever_the_group():
    people = [simulate_participant(replace(SUPPRESSED, participants=40), i) for i in range(40)]
    by_group = {g: np.array([p.suppressor for p in people if p.group == g]) for g in ("AD", "NC")}
    everyone = np.concatenate(list(by_group.values()))
    assert 0 <= everyone.min() < 0.05
    assert 0.25 < everyone.max() <= 0.3
    assert abs(by_group["AD"].mean() - by_group["NC"].mean()) < 0.08
    assert people[0].abnormalities == ("Thalamus_R", "Precuneus_L")
    assert people[1].abnormalities == ("Precuneus_L",)


def test_the_suppressor_shows_the_share_in_its_region_and_in_the_region_with_disease():
    """In a control: the same share of grey matter is gone in both regions, and the twin lacks it in one."""
    still = replace(SUPPRESSED, deformation=0, bias=0, noise=0)
    control, plain = simulate_participant(still, 1), simulate_participant(replace(still, suppressor=None), 1)
    twin = simulate_participant(still, 1, ())
    assert control.severity == (0.0,)
    grey = template_on(4, "gm")
    for name, after in (("Precuneus_L", control.volume), ("Thalamus_R", control.volume), ("Thalamus_R", twin.volume)):
        inside = (region_shares(4, (name,))[0] > 0.99) & (grey > 0.3) & (template_on(4) > 0.3)
        gone = 1 - after[inside] / plain.volume[inside]
        expected = control.suppressor * grey[inside] * (1 - 0.25 / template_on(4)[inside])
        np.testing.assert_allclose(gone, expected, atol=0.03)
        assert gone.mean() > 0.02
    far = region_shares(4, ("Precuneus_L",))[0] == 0
    np.testing.assert_array_equal(twin.volume[far], control.volume[far])
    alone = ~far & (region_shares(4, ("Thalamus_R",))[0] == 0)
    np.testing.assert_array_equal(twin.volume[alone], plain.volume[alone])


def test_twins_are_made_of_every_abnormality_a_participant_has():
    simulation = replace(LESIONS, resolution=8, suppressor="Precuneus_L")
    assert [t.desc for t in twins(simulation, 0)] == [
        "healed",
        *(f"{kind}{name}" for name in ("ThalamusR", "PrecuneusL", "lesions") for kind in ("without", "only")),
    ]
    assert {t.abnormality for t in twins(simulation, 1)} <= {"", "Precuneus_L", "lesions"}


@pytest.fixture
def volume():
    return np.random.default_rng(1).uniform(0, 1, (24, 20, 28))


def test_gibbs_truncates_k_space(volume):
    found = np.fft.fftshift(np.fft.fftn(with_artefacts(volume, ["gibbs"], np.random.default_rng(2))))
    before = np.fft.fftshift(np.fft.fftn(volume))
    centre = [n // 2 for n in volume.shape]
    radius = np.sqrt(sum((x - c) ** 2 for x, c in zip(np.ogrid[:24, :20, :28], centre, strict=True)))
    full = 28 * np.sqrt(2) / 2
    assert np.abs(found[radius > 0.6 * full + 1]).max() < 1e-3
    np.testing.assert_allclose(found[radius < 0.35 * full], before[radius < 0.35 * full], rtol=1e-3, atol=1e-2)


def test_a_spike_adds_stripes_of_one_frequency(volume):
    stripes = with_artefacts(volume, ["spike"], np.random.default_rng(2)) - volume
    spectrum = np.abs(np.fft.fftn(stripes))
    assert (spectrum > 0.2 * spectrum.max()).sum() == 2  # the frequency and its conjugate
    assert 0.02 < np.abs(stripes).max() < 0.13


def test_low_resolution_keeps_the_mean_and_takes_detail(volume):
    found = with_artefacts(volume, ["low-resolution"], np.random.default_rng(2))
    assert found.shape == volume.shape
    assert found.mean() == pytest.approx(volume.mean(), rel=0.01)
    assert found.std() < 0.7 * volume.std()


def test_an_artefact_is_the_same_whichever_the_others_are(volume):
    alone = [with_artefacts(volume, [name], np.random.default_rng(2)) for name in ("spike", "low-resolution")]
    both = with_artefacts(volume, ["low-resolution", "spike"], np.random.default_rng(2))
    step = with_artefacts(alone[0], ["low-resolution"], np.random.default_rng(2))
    np.testing.assert_allclose(both, step, atol=1e-5)
    assert not np.allclose(both, alone[1], atol=1e-3)


def test_artefacts_come_with_the_group_where_the_shares_say_so():
    simulation = replace(SIMULATION, resolution=8, participants=6, artefacts=("spike",), artefact_share=(0.0, 1.0))
    people = [simulate_participant(simulation, i) for i in range(6)]
    assert [p.artefacts for p in people] == [("spike",), ()] * 3
    plain = [simulate_participant(replace(simulation, artefacts=()), i) for i in range(6)]
    assert [np.array_equal(p.volume, q.volume) for p, q in zip(people, plain, strict=True)] == [False, True] * 3
    assert [p.age for p in people] == [p.age for p in plain]


def test_twins_have_the_participant_s_artefacts():
    """The same stripes: what differs between twins is what differs without the artefact."""
    plain = replace(SIMULATION, noise=0, bias=0)
    spiked = replace(plain, artefacts=("spike",))
    stripes = [
        simulate_participant(spiked, 0, keep).volume - simulate_participant(plain, 0, keep).volume
        for keep in ((), None)
    ]
    assert np.abs(stripes[0]).max() > 10
    assert np.abs(stripes[0] - stripes[1]).max() < 1e-4 * np.abs(stripes[0]).max()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"atrophy": "melting"}, "atrophy must be one of thinning, shrinking, both, got 'melting'"),
        ({"lesions": (0, -1)}, r"lesions must be two mean numbers of at least 0, got \(0, -1\)"),
        ({"suppressor": "Nowhere"}, "must be names of the atlas AAL, which has no 'Nowhere'"),
        ({"suppressor": "Thalamus_R"}, "regions must be given once each, got Thalamus_R, Thalamus_R"),
        ({"artefacts": ("ghost",)}, "artefacts must be among gibbs, spike, low-resolution, got ghost"),
        ({"artefact_share": (0, 2)}, r"artefact_share must be two shares from 0 to 1, got \(0, 2\)"),
    ],
    ids=str,
)
def test_impossible_settings_are_refused(bad, message):
    with pytest.raises(GlasError, match=message):
        replace(SIMULATION, **bad)
