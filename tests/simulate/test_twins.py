"""Twins: equal in everything but the disease of chosen regions."""

from dataclasses import replace

import numpy as np
import pytest

from glas3d import Atlas, GlasError
from glas3d.imaging.space import mni_grid
from glas3d.simulate import PLANTED, Simulation, planted_labels, simulate_participant, twins
from glas3d.simulate.regions import region_shares

SIMULATION = Simulation(participants=4, seed=6, resolution=8)
OTHERS = replace(SIMULATION, regions=("Thalamus_R", "Precuneus_L", "Hippocampus_L"))


def person(participant):
    return participant.participant_id, participant.group, participant.age, participant.sex, participant.site


def untouched(simulation, regions):
    """Voxels that no tissue of these regions reaches, also not by interpolation after the deformation."""
    share = region_shares(simulation.resolution, tuple(regions)).max(axis=0)
    away = np.ones(share.shape, bool)
    for x, y, z in np.argwhere(share > 0):
        away[max(x - 2, 0) : x + 3, max(y - 2, 0) : y + 3, max(z - 2, 0) : z + 3] = False
    return away


@pytest.mark.parametrize("simulation", [SIMULATION, OTHERS], ids=["planted", "others"])
def test_a_twin_differs_in_the_healed_region_alone(simulation):
    ill = simulate_participant(simulation, 0)
    for healed in simulation.regions[:3]:
        twin = simulate_participant(simulation, 0, [name for name in simulation.regions if name != healed])
        assert person(twin) == person(ill)
        differs = twin.volume != ill.volume
        assert 5 < differs.sum() < 0.2 * differs.size
        assert not differs[untouched(simulation, [healed])].any()
        assert (twin.volume - ill.volume)[differs].mean() > 0
        expected = [0 if name == healed else s for name, s in zip(simulation.regions, ill.severity, strict=True)]
        assert twin.severity == tuple(expected)


def test_a_region_alone_is_the_healed_twin_elsewhere():
    healed = simulate_participant(SIMULATION, 0, [])
    for name in PLANTED[::2]:
        twin = simulate_participant(SIMULATION, 0, [name])
        assert twin.abnormalities == (name,)
        differs = twin.volume != healed.volume
        assert differs.any()
        assert not differs[untouched(SIMULATION, [name])].any()


def test_a_healed_participant_is_the_control_with_the_same_draws():
    healed = simulate_participant(SIMULATION, 0, [])
    control = simulate_participant(replace(SIMULATION, ad=0), 0)
    assert control.group == "NC"
    assert healed.severity == control.severity == (0.0,) * 6
    np.testing.assert_array_equal(healed.volume, control.volume)


def test_keeping_everything_is_the_participant():
    ill = simulate_participant(SIMULATION, 2)
    same = simulate_participant(SIMULATION, 2, PLANTED)
    np.testing.assert_array_equal(same.volume, ill.volume)
    assert same.abnormalities == ill.abnormalities == PLANTED


def test_a_region_is_as_ill_whichever_the_others_are():
    """A cohort with disease in fewer regions, or in others too, holds twins of the same participants."""
    ill = simulate_participant(SIMULATION, 0)
    few = simulate_participant(replace(SIMULATION, regions=("Amygdala_R", "Hippocampus_L")), 0)
    assert few.severity == (ill.severity[3], ill.severity[0])
    twin = simulate_participant(SIMULATION, 0, ["Amygdala_R", "Hippocampus_L"])
    np.testing.assert_allclose(few.volume, twin.volume, rtol=1e-6)
    more = simulate_participant(OTHERS, 0)
    assert more.severity[2] == ill.severity[0]
    assert more.severity[:2] == simulate_participant(replace(OTHERS, regions=OTHERS.regions[:2]), 0).severity
    assert 0.3 <= min(more.severity) <= max(more.severity) <= 0.7
    assert len(set(more.severity)) == 3


def test_disease_of_any_region_of_any_atlas(tmp_path, aal):
    """The same regions under other names in an atlas of one's own give the same scans."""
    regions = ("Hippocampus_L", "Putamen_R")
    index = aal.table.set_index("name")["index"]
    labels = np.asarray(aal.labels_img.dataobj)
    own = np.where(labels == index[regions[0]], 7, np.where(labels == index[regions[1]], 3, 0)).astype(np.int16)
    type(aal.labels_img)(own, aal.labels_img.affine).to_filename(tmp_path / "atlas-own_dseg.nii.gz")
    (tmp_path / "atlas-own_dseg.tsv").write_text("index\tname\n7\tHippocampus_L\n3\tPutamen_R\n")
    simulation = replace(SIMULATION, regions=regions, atlas=tmp_path / "atlas-own_dseg.nii.gz")
    of_aal = replace(SIMULATION, regions=regions)
    np.testing.assert_array_equal(simulate_participant(simulation, 0).volume, simulate_participant(of_aal, 0).volume)
    found = planted_labels(8, regions, simulation.atlas)
    assert set(np.unique(found)) == {0, 3, 7}
    np.testing.assert_array_equal(found == 7, Atlas.load("AAL").on(mni_grid(8)) == index["Hippocampus_L"])


def test_twins_of_a_participant_are_all_but_one_and_one_alone():
    made = list(twins(OTHERS, 0))
    assert [(twin.kind, twin.abnormality) for twin in made] == [
        ("healed", ""),
        *((kind, name) for name in OTHERS.regions for kind in ("without", "only")),
    ]
    for twin in made:
        expected = {
            "healed": (),
            "without": tuple(name for name in OTHERS.regions if name != twin.abnormality),
            "only": (twin.abnormality,),
        }[twin.kind]
        assert twin.participant.abnormalities == expected
        np.testing.assert_array_equal(twin.participant.volume, simulate_participant(OTHERS, 0, expected).volume)
    assert made[2].desc == "onlyThalamusR"


def test_a_control_has_no_twins():
    assert simulate_participant(SIMULATION, 1).abnormalities == ()
    assert list(twins(SIMULATION, 1)) == []


def test_a_name_that_is_no_abnormality_is_refused():
    with pytest.raises(GlasError, match=r"keep must name abnormalities of Hippocampus_L, .*, got Insula_L"):
        simulate_participant(SIMULATION, 0, ["Insula_L", "Hippocampus_L"])


def test_a_rescan_is_the_same_anatomy_and_disease():
    quiet = replace(SIMULATION, noise=0.0, bias=0.0)
    first, second = (simulate_participant(quiet, 0, scan=scan) for scan in (0, 1))
    assert person(first) == person(second)
    assert first.severity == second.severity
    tissue = first.volume > 0
    scale = second.volume[tissue] / first.volume[tissue]
    assert np.ptp(scale) < 1e-5 * scale.mean()  # another scale, and nothing else
    assert abs(scale.mean() - 1) > 1e-3


def test_scans_of_a_participant_differ_in_what_the_scanner_adds():
    ill = simulate_participant(SIMULATION, 0)
    rescans = [simulate_participant(SIMULATION, 0, scan=scan) for scan in (0, 1, 2, 1)]
    np.testing.assert_array_equal(rescans[0].volume, ill.volume)
    np.testing.assert_array_equal(rescans[1].volume, rescans[3].volume)
    assert not np.allclose(rescans[1].volume / rescans[1].volume.max(), rescans[2].volume / rescans[2].volume.max())
    healed = simulate_participant(SIMULATION, 0, (), scan=1)
    assert not (healed.volume != rescans[1].volume)[untouched(SIMULATION, PLANTED)].any()
    with pytest.raises(GlasError, match="scan must be a whole number"):
        simulate_participant(SIMULATION, 0, scan=-1)
