from dataclasses import replace
from functools import cache

import nibabel as nib
import numpy as np
import pytest

from glas3d import GlasError
from glas3d.imaging.space import mni_grid, resample, template_on, voxel_to_world
from glas3d.predict import intensity_scale
from glas3d.simulate import GROUPS, PLANTED, Simulation, planted_labels, simulate_participant, simulate_participants

COARSE = Simulation(participants=8, seed=11, resolution=8)
# Nothing but anatomy: no deformation, bias or noise.
STILL = replace(COARSE, resolution=4, participants=2, deformation=0, bias=0, noise=0)


@cache
def cohort(simulation=COARSE):
    return list(simulate_participants(simulation))


def scaled(participant):
    return participant.volume / intensity_scale(participant.volume)


def row(participant):
    names = ("participant_id", "group", "age", "sex", "site", "severity")
    return tuple(getattr(participant, name) for name in names)


def test_a_participant_is_the_same_whatever_the_size_of_the_cohort():
    few = list(simulate_participants(replace(COARSE, participants=3)))
    for participant, other in zip(few, cohort(), strict=False):
        assert row(participant) == row(other)
        np.testing.assert_array_equal(participant.volume, other.volume)
    last = simulate_participant(replace(COARSE, participants=1), 7)
    np.testing.assert_array_equal(last.volume, cohort()[7].volume)


def test_a_seed_determines_the_cohort():
    for participant, other in zip(cohort(), simulate_participants(COARSE), strict=True):
        assert row(participant) == row(other)
        np.testing.assert_array_equal(participant.volume, other.volume)
    other = simulate_participant(replace(COARSE, seed=12), 0)
    assert other.age != cohort()[0].age
    assert not np.array_equal(other.volume, cohort()[0].volume)
    assert len({participant.volume.tobytes() for participant in cohort()}) == len(cohort())


def test_neighbouring_seeds_share_no_participant():
    """Participant 1 of seed 0 is not participant 0 of seed 1."""
    made = [simulate_participant(replace(COARSE, seed=seed), i) for seed in range(3) for i in range(3)]
    assert len({participant.age + participant.volume.sum() for participant in made}) == 9


def test_the_global_generator_is_neither_used_nor_disturbed():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    simulate_participant(COARSE, 0)
    np.testing.assert_array_equal(np.random.get_state()[1], before)


def test_groups_alternate_and_only_ad_has_disease():
    assert [participant.group for participant in cohort()] == ["AD", "NC"] * 4
    assert set(GROUPS) == {"AD", "NC"}
    for participant in cohort():
        assert len(participant.severity) == len(PLANTED) == 6
        if participant.group == "NC":
            assert participant.severity == (0.0,) * 6
        else:
            assert all(0.1 < s <= 0.7 for s in participant.severity)
            assert max(participant.severity) >= 0.3
    assert len({participant.severity for participant in cohort() if participant.group == "AD"}) == 4


@pytest.mark.parametrize(
    ("n", "ad", "expected"),
    [(7, 2, "AD NC AD NC NC NC NC"), (7, 5, "AD NC AD NC AD AD AD"), (4, 0, "NC NC NC NC"), (3, 3, "AD AD AD"),
     (5, None, "AD NC AD NC AD")],
)  # fmt: skip
def test_groups_of_unequal_size(n, ad, expected):
    """Groups alternate while there are participants of both."""
    simulation = replace(COARSE, participants=n, ad=ad)
    assert [simulation.group(i) for i in range(n)] == expected.split()


def test_a_participant_of_the_same_number_and_group_is_the_same():
    """The other participants of the seed may be of any group."""
    some = {2: 2, 5: 0, 6: 6, 7: 7}  # number, and how many of eight have AD
    for number, ad in some.items():
        participant = simulate_participant(replace(COARSE, ad=ad), number)
        other = cohort()[number]
        assert (participant.age, participant.sex, participant.site) == (other.age, other.sex, other.site)
        same = participant.group == other.group
        assert (row(participant) == row(other)) == same
        assert np.array_equal(participant.volume, other.volume) == same


def test_ids_ages_sexes_and_sites():
    people = [simulate_participant(replace(COARSE, participants=40), i) for i in range(40)]
    assert [participant.participant_id for participant in people[:2]] == ["0001", "0002"]
    ages = np.array([participant.age for participant in people])
    assert 70 < ages.mean() < 80
    assert ages.min() >= 55
    assert {participant.sex for participant in people} == {"F", "M"}
    assert {participant.site for participant in people} == {"site1", "site2", "site3"}


def test_volumes_are_brains_on_the_grid_in_a_scanner_s_units():
    brain = template_on(8) > 0.1
    levels = {}
    for participant in cohort():
        assert participant.volume.shape == COARSE.grid.shape == mni_grid(8).shape
        assert participant.volume.dtype == np.float32
        assert np.isfinite(participant.volume).all()
        assert participant.volume.min() == 0
        assert (participant.volume[~brain] > 0).mean() < 0.1
        assert (participant.volume[template_on(8) > 0.5] > 0).mean() > 0.97
        levels.setdefault(participant.site, []).append(intensity_scale(participant.volume))
        assert np.corrcoef(scaled(participant)[brain], template_on(8)[brain])[0, 1] > 0.8
    assert len(levels) == 3
    expected = {"site1": 700, "site2": 1000, "site3": 1500}
    for site, found in levels.items():
        assert all(0.6 * expected[site] < level < 1.2 * expected[site] for level in found)


@cache
def regions(atlas, mm=4):
    labels = atlas.on(mni_grid(mm))
    return {name: labels == index for name, index in zip(atlas.table["name"], atlas.table["index"], strict=True)}


def lost(with_disease, without, mask, grey):
    """Share of intensity lost in the grey matter of a region."""
    inside = mask & (grey > 0.5)
    return 1 - with_disease[inside].mean() / without[inside].mean() if inside.any() else 0.0


def test_disease_is_planted_in_six_regions_and_nowhere_else(aal):
    """The same participant with and without disease: everything else about it is equal."""
    ill, well = (simulate_participant(replace(STILL, severity=(s, s)), 0) for s in (0.9, 0.0))
    assert ill.group == well.group == "AD"
    assert well.severity == (0.0,) * 6
    assert max(ill.severity) == 0.9
    changed = {name: lost(ill.volume, well.volume, mask, template_on(4, "gm")) for name, mask in regions(aal).items()}
    assert min(changed[name] for name in PLANTED) > 0.12
    assert max(share for name, share in changed.items() if name not in PLANTED) < 0.06
    planted = np.isin(
        aal.on(mni_grid(4)), [i for i, n in zip(aal.table["index"], aal.table["name"], strict=True) if n in PLANTED]
    )
    gone = well.volume - ill.volume
    assert gone.min() > -1e-3 * well.volume.max()  # nothing grows
    assert gone[planted].sum() > 0.6 * gone.sum()  # the rest is a voxel's blur around them


def test_the_more_severe_the_more_is_lost(aal):
    volumes = [simulate_participant(replace(STILL, severity=(s, s)), 0).volume for s in (0.0, 0.2, 0.4, 0.8)]
    grey = template_on(4, "gm")
    for name in PLANTED:
        shares = [lost(v, volumes[0], regions(aal)[name], grey) for v in volumes[1:]]
        assert 0 < shares[0] < shares[1] < shares[2]
        assert shares[2] == pytest.approx(4 * shares[0], rel=0.05)


def test_every_region_loses_what_its_severity_says(aal):
    """The share of tissue lost is proportional to the recorded severity, by a constant of each region."""
    ratios = []
    for number in (0, 2):
        ill, well = (simulate_participant(replace(STILL, severity=s), number) for s in ((0.1, 0.9), (0.0, 0.0)))
        shares = [lost(ill.volume, well.volume, regions(aal)[name], template_on(4, "gm")) for name in PLANTED]
        ratios.append(np.divide(shares, ill.severity))
        assert np.ptp(ill.severity) > 0.05
    np.testing.assert_allclose(*ratios, rtol=0.1)


def test_controls_do_not_depend_on_severity():
    participant, other = (simulate_participant(replace(COARSE, severity=(s, s)), 1).volume for s in (0.1, 0.9))
    np.testing.assert_array_equal(participant, other)


def test_groups_differ_in_the_planted_regions(aal):
    """The means of a whole noisy cohort differ, which a classifier can learn."""
    people = cohort(Simulation(participants=40, seed=5, resolution=8))
    means = {g: np.mean([scaled(p) for p in people if p.group == g], axis=0) for g in GROUPS}
    grey, masks = template_on(8, "gm") * 2, regions(aal, 8)
    changed = {name: lost(means["AD"], means["NC"], mask, grey) for name, mask in masks.items()}
    others = [share for name, share in changed.items() if name not in PLANTED]
    assert min(changed[name] for name in PLANTED) > max(0.05, *others)
    assert abs(np.mean(others)) < 0.02


def test_grey_matter_is_lost_with_age(aal):
    """In controls, and faster in the hippocampus."""
    people = sorted((p for p in cohort(replace(STILL, participants=24)) if p.group == "NC"), key=lambda p: p.age)
    young, old = people[0], people[-1]
    assert old.age > young.age + 8
    white, grey = template_on(4, "wm") > 0.95, template_on(4, "gm")
    ratio = [p.volume / p.volume[white].mean() for p in (young, old)]
    everywhere = lost(ratio[1], ratio[0], np.ones_like(white), grey)
    hippocampus = lost(ratio[1], ratio[0], regions(aal)["Hippocampus_L"], grey)
    assert 0.002 < everywhere < hippocampus


def test_a_participant_has_one_anatomy_at_every_resolution():
    """A participant's deviation from the others at 4 mm resembles its own at 8 mm, and no other participant's."""
    quiet = replace(COARSE, participants=5, noise=0, deformation=3)
    coarse = np.stack([scaled(p) for p in simulate_participants(quiet)])
    fine = replace(quiet, resolution=4)
    affine = fine.grid.affine
    fine = np.stack([resample(nib.Nifti1Image(scaled(p), affine), quiet.grid) for p in simulate_participants(fine)])
    brain = template_on(8) > 0.3
    found = [(v - v.mean(axis=0))[:, brain] for v in (coarse, fine)]
    similar = np.corrcoef(*found)[:5, 5:]
    assert similar.diagonal().min() > 0.6
    assert (similar - np.eye(5)).max() < 0.3
    at = [replace(COARSE, participants=2, resolution=mm) for mm in (8, 4)]
    assert [row(p) for p in simulate_participants(at[0])] == [row(p) for p in simulate_participants(at[1])]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("resolution", "shape"),
    [
        (16, (16, 16, 16)),
        (5.5, (40, 48, 40)),
        (3, (64, 80, 64)),
        (2, (91, 109, 91)),
        (1, (181, 217, 181)),
    ],
)
def test_other_resolutions(resolution, shape):
    participant = simulate_participant(replace(COARSE, resolution=resolution), 0)
    assert participant.volume.shape == shape
    brain = template_on(resolution) > 0.1
    assert np.corrcoef(scaled(participant)[brain], template_on(resolution)[brain])[0, 1] > 0.6


@pytest.mark.parametrize(
    ("nuisance", "expected"), [("deformation", 3.0), ("bias", 0.2), ("noise", 0.2)], ids=lambda v: str(v)
)
def test_every_nuisance_moves_the_volume(nuisance, expected):
    plain, moved = (simulate_participant(replace(STILL, **{nuisance: v}), 1) for v in (0.0, expected))
    brain = template_on(4) > 0.3
    change = np.abs(scaled(moved) - scaled(plain))[brain].mean()
    assert 0.02 < change < 0.3
    assert row(moved) == row(plain)


def test_the_truth_map_holds_the_six_labels(aal):
    index = aal.table.set_index("name")["index"]
    for resolution in (8, 4):
        found = planted_labels(resolution)
        assert found.shape == mni_grid(resolution).shape
        assert found.dtype == np.int32
        assert set(np.unique(found)) == {0, *index[list(PLANTED)]}
        np.testing.assert_array_equal(found[found > 0], aal.on(mni_grid(resolution))[found > 0])


@pytest.mark.parametrize("name", PLANTED)
def test_left_is_left(aal, name):
    label = aal.table.set_index("name")["index"][name]
    x = voxel_to_world(np.argwhere(planted_labels(4) == label), mni_grid(4).affine)[:, 0]
    assert (x < 0).all() if name.endswith("_L") else (x > 0).all()


def test_disease_on_one_side_is_on_that_side():
    """The left hippocampus alone darkens the left half only."""
    well, left = (simulate_participant(STILL, 0, keep).volume for keep in ((), ("Hippocampus_L",)))
    gone = well - left
    x = voxel_to_world(np.argwhere(gone > 0.2 * gone.max()), STILL.grid.affine)[:, 0]
    assert len(x) > 20
    assert (x < 0).all()
    assert (well - simulate_participant(STILL, 0).volume).sum() > 2 * gone.sum()


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ({"participants": 0}, "participants must be at least 1, got 0"),
        ({"participants": -3}, "participants must be at least 1, got -3"),
        ({"ad": -1}, "ad must be from 0 to the 20 participants, got -1"),
        ({"ad": 21}, "ad must be from 0 to the 20 participants, got 21"),
        ({"seed": -1}, "seed must be 0 or more, got -1"),
        ({"severity": (0.7, 0.3)}, "severity must be two shares from 0 to 1, the lower first"),
        ({"severity": (-0.1, 0.3)}, "severity must be two shares"),
        ({"severity": (0.1, 1.3)}, "severity must be two shares"),
        ({"severity": (float("nan"), 0.3)}, "severity must be two shares"),
        ({"deformation": -1}, "deformation must be 0 or more, got -1"),
        ({"bias": float("nan")}, "bias must be 0 or more, got nan"),
        ({"noise": float("inf")}, "noise must be 0 or more, got inf"),
        ({"resolution": 0}, "resolution must be from 0.5 to 16 mm, got 0"),
        ({"resolution": float("nan")}, "resolution must be from 0.5 to 16 mm, got nan"),
        ({"regions": ()}, "regions must name at least one region, got none"),
        ({"regions": ("Insula_L", "Hipocampus_L")}, "the atlas AAL, which has no 'Hipocampus_L'; did you mean Hippo"),
        ({"regions": ("Insula_L", "Insula_L")}, "regions must be given once each, got Insula_L, Insula_L"),
        ({"atlas": "nowhere.nii.gz"}, "no such file: nowhere.nii.gz"),
    ],
    ids=str,
)
def test_settings_outside_their_range_are_refused(bad, message):
    with pytest.raises(GlasError, match=message):
        Simulation(**bad)
