import gzip
import os
from pathlib import Path

import numpy as np
import pytest
import torch

from glas3d import GlasError
from glas3d.errors import GlasWarning
from glas3d.imaging.scan import load_scan
from glas3d.imaging.space import mni_grid, resample_scan
from glas3d.predict import intensity_scale
from glas3d.study import read_cohort
from glas3d.study.training import stored_scans as cache
from glas3d.study.training.stored_scans import StoredScans, store_scans
from tests.study.folders import SHAPE, brain, derivative, people, save, scan


def cohort(folder, n=4, **settings):
    return read_cohort(derivative(folder, people(n)), **settings)


def stored(participants, folder, grid=None, **settings):
    return store_scans(participants, folder, grid, assume_space="MNI", **settings)


def test_scans_are_scaled_by_their_brightness_on_their_own_grid(tmp_path):
    kept, scans = stored(cohort(tmp_path / "in"), tmp_path / "cache")
    assert scans.shape == (4, 1, *SHAPE)
    assert len(scans) == 4
    batch = scans[torch.tensor([2, 0])]
    assert batch.dtype == torch.float32
    for row, volume in zip((2, 0), batch, strict=True):
        source = load_scan(kept.table["path"][row]).data
        np.testing.assert_allclose(volume[0], source / intensity_scale(source), rtol=1e-6)
    assert kept.table["sha256"].tolist() == [load_scan(path).sha256 for path in kept.table["path"]]


def test_scans_are_resampled_to_another_grid(tmp_path):
    grid = mni_grid(12)
    kept, scans = stored(cohort(tmp_path / "in", 2), tmp_path / "cache", grid)
    assert scans.grid is grid
    expected = resample_scan(load_scan(kept.table["path"][1]), grid)
    np.testing.assert_allclose(scans[[1]][0, 0], expected / intensity_scale(expected), rtol=1e-6)


NAMES = {
    "sub-01_space-MNI_label-GM_probseg": "absolute",
    "sub-01_T1w_space-Ixi549Space_modulated-on_probability": "absolute",
    "mwp1sub-01_T1w": "absolute",
    "s8mwp1sub-01_T1w": "absolute",
    "m0wp1sub-01_T1w": "absolute",
    "mwrc2sub-01_T1w": "absolute",
    "p0sub-01_T1w": "relative",  # labels of CAT12
    "wmsub-01_T1w": "relative",
    "sub-01_desc-probseg_T1w": "relative",
}


@pytest.mark.parametrize("name", NAMES)
def test_maps_of_tissue_are_known_by_their_names(name):
    for extension in (".nii", ".nii.gz"):
        assert cache._intensities([Path("p1sub-01") / f"{name}{extension}"] * 2) == NAMES[name]
    both = [Path(f"{name}.nii"), Path("sub-02_T1w.nii"), Path("sub-03_probseg.nii")]
    assert cache._intensities(both) == "relative"


def test_absolute_intensities_are_kept(tmp_path):
    participants = cohort(tmp_path / "in")
    _, relative = stored(participants, tmp_path / "cache")
    kept, absolute = stored(participants, tmp_path / "cache", intensities="absolute")
    assert (relative.intensities, absolute.intensities) == ("relative", "absolute")
    assert absolute.subset([1]).intensities == "absolute"
    for row, path in enumerate(kept.table["path"]):
        assert np.array_equal(absolute[[row]][0, 0], load_scan(path).data)
        assert relative[[row]].max() < 2 < 100 < absolute[[row]].max()


def test_a_scan_is_read_once(tmp_path, monkeypatch):
    source, folder = tmp_path / "in", tmp_path / "cache"
    participants = cohort(source)
    _, first = stored(participants, folder, mni_grid(12))
    read = []
    monkeypatch.setattr(cache, "load_scan", lambda path: read.append(path) or load_scan(path))
    _, again = stored(participants, folder, mni_grid(12))
    assert read == []
    assert again.files == first.files
    save(scan(source, "sub-02"), brain("NC", 77))
    stored(participants, folder, mni_grid(12))
    assert [path.name.split("_")[0] for path in read] == ["sub-02"]
    stored(participants, folder, mni_grid(13))
    assert len(read) == 1 + 4


def zeros(file):
    file.write_bytes(bytes(file.stat().st_size))


def zero_voxels(file):
    """A power cut may leave the header, which is in an earlier block, and nothing after it."""
    content = file.read_bytes()
    file.write_bytes(content[:128] + bytes(len(content) - 128))


def other_shape(file):
    with file.open("wb") as opened:
        np.save(opened, np.zeros((3, 4, 5), np.float32))


def flipped_bit(file):
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["scan.npy", "scan.json"])
@pytest.mark.parametrize("spoil", [Path.unlink, os.truncate, zeros, zero_voxels, other_shape, flipped_bit])
def test_a_damaged_array_is_made_again(tmp_path, spoil, name):
    participants = cohort(tmp_path / "in", 2)
    _, scans = stored(participants, tmp_path / "cache")
    expected = scans[[0, 1]]
    damaged = scans.files[0].with_name(name)
    spoil(damaged, 40) if spoil is os.truncate else spoil(damaged)
    unfinished = scans.files[0].with_name(".unfinished-1")  # of a run that was killed
    unfinished.mkdir()
    kept, scans = stored(participants, tmp_path / "cache")
    assert torch.equal(scans[[0, 1]], expected)
    assert (kept.table["voxels_sha256"].str.len() == 64).all()
    assert sorted(path.name for path in damaged.parent.iterdir()) == ["scan.json", "scan.npy"]


def test_arrays_are_on_the_disk_before_they_have_their_names(tmp_path, monkeypatch):
    """Else a power cut leaves files of zeros under the names of finished ones."""
    events = []
    sync, put = os.fsync, os.replace
    monkeypatch.setattr(
        os, "fsync", lambda fd: events.append(Path(os.readlink(f"/proc/self/fd/{fd}")).name) or sync(fd)
    )
    monkeypatch.setattr(os, "replace", lambda old, new: events.append(f"= {Path(new).name}") or put(old, new))
    stored(cohort(tmp_path / "in", 2), tmp_path / "cache")
    for name in ("scan.npy", "scan.json"):
        assert events.count(name) == events.count(f"= {name}") == 2
        assert events.index(name) < events.index(f"= {name}")


def truncated(folder):
    path = scan(folder, "sub-02")
    path.write_bytes(path.read_bytes()[:-2000])


def flat(folder):
    save(scan(folder, "sub-02"), np.ones(SHAPE, np.float32))


def dark(folder):
    save(scan(folder, "sub-02"), -brain("NC", 3))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [(truncated, "is truncated or damaged"), (flat, "varying intensities"), (dark, "positive intensities")],
)
def test_unusable_scans_are_refused_or_left_out(tmp_path, spoil, message):
    whole = cohort(tmp_path / "in")
    spoil(tmp_path / "in")
    with pytest.raises(GlasError, match=f"1 unreadable \\(sub-02: .*{message}"):
        stored(whole, tmp_path / "cache")
    with pytest.warns(GlasWarning, match=message):
        kept, scans = stored(read_cohort(tmp_path / "in", on_error="skip"), tmp_path / "cache")
    assert kept.table["participant_id"].tolist() == ["sub-01", "sub-03", "sub-04"]
    assert len(scans) == 3
    assert kept.problems["participant_id"].tolist() == ["sub-02"]


def test_one_file_for_two_participants_is_refused(tmp_path):
    """It would be trained on under one participant's name and tested under the other's."""
    whole = cohort(tmp_path / "in")
    scan(tmp_path / "in", "sub-03").write_bytes(scan(tmp_path / "in", "sub-02").read_bytes())
    with pytest.raises(GlasError, match=r"2 duplicated \(sub-02, sub-03: one scan for sub-02 and sub-03\)"):
        stored(whole, tmp_path / "cache")


def test_one_file_for_two_sessions_of_a_participant_is_accepted(tmp_path):
    folder = derivative(tmp_path / "in", people(2), ("M00", "M12"))
    scan(folder, "sub-02", "M12").write_bytes(scan(folder, "sub-02", "M00").read_bytes())
    kept, scans = stored(read_cohort(folder), tmp_path / "cache")
    assert len(kept) == len(scans) == 4


def test_scans_out_of_mni_space_are_refused(tmp_path):
    whole = cohort(tmp_path / "in", 2)
    with pytest.raises(
        GlasError,
        match=r'does not look like a brain in MNI space: .* give assume_space="MNI" .--assume-space MNI. only if',
    ):
        store_scans(whole, tmp_path / "cache")
    stored(whole, tmp_path / "cache")
    with pytest.raises(GlasError, match="does not look like"):
        store_scans(whole, tmp_path / "cache")
    with pytest.raises(GlasError, match='assume_space must be "MNI" or None'):
        store_scans(whole, tmp_path / "cache", assume_space="native")


def test_only_the_two_groups_are_read(tmp_path):
    folder = derivative(tmp_path / "in", people(6).assign(group=["AD", "NC", "MCI"] * 2))
    truncated_other = scan(folder, "sub-03")
    whole = read_cohort(folder)
    truncated_other.write_bytes(b"x")
    kept, scans = stored(whole, tmp_path / "cache")
    assert len(scans) == 4
    assert (kept.everyone["sha256"] == "").sum() == 2


def test_progress(tmp_path):
    ticks = []
    stored(cohort(tmp_path / "in", 2), tmp_path / "cache", progress=lambda *t: ticks.append(t))
    assert ticks == [(1, 2), (2, 2)]


def test_a_folder_that_cannot_be_written_to(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(GlasError, match=f"cannot write to {tmp_path}/cache/"):
        stored(cohort(tmp_path / "in", 2), tmp_path / "cache")


def test_a_full_disk_is_named_where_numpy_does_not_say_so(tmp_path, monkeypatch):
    def full(file, array):
        raise OSError(f"{array.size} requested and 0 written")

    monkeypatch.setattr(cache.np, "save", full)
    with pytest.raises(GlasError, match=r"cannot write to .*: No space left on device: free some"):
        stored(cohort(tmp_path / "in", 2), tmp_path / "cache")
    assert not list((tmp_path / "cache").rglob("*.npy"))


def test_a_cohort_without_scans_is_refused(tmp_path):
    whole = cohort(tmp_path / "in", 2, participant_label="01")
    other = whole.without([])
    object.__setattr__(other, "everyone", other.everyone.iloc[:0])
    with pytest.raises(GlasError, match="a cohort needs scans"):
        stored(other, tmp_path / "cache")


def test_arrays_are_mapped_and_not_kept(tmp_path):
    files = []
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", np.full((2, 3, 4), i, np.float32))
        files.append(tmp_path / f"{i}.npy")
    scans = StoredScans(tuple(files), mni_grid(12).__class__((2, 3, 4), np.eye(4)))
    batch = scans[torch.tensor([1])]
    batch += 5
    assert scans[[1]].unique().tolist() == [1]
    os.remove(files[0])
    assert scans[[2, 1]][:, 0, 0, 0, 0].tolist() == [2, 1]


def test_the_same_voxels_in_another_file_are_refused(tmp_path):
    """A scan that was compressed anew has another hash of its file."""
    whole = cohort(tmp_path / "in")
    content = gzip.decompress(scan(tmp_path / "in", "sub-02").read_bytes())
    scan(tmp_path / "in", "sub-03").write_bytes(gzip.compress(content, compresslevel=1, mtime=7))
    for _ in range(2):  # also where the arrays were stored before
        with pytest.raises(GlasError, match=r"2 duplicated \(sub-02, sub-03: one scan for sub-02 and sub-03\)"):
            stored(whole, tmp_path / "cache")
