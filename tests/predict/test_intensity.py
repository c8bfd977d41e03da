import numpy as np
import pytest
import torch
from nilearn.datasets import load_mni152_template

from glas3d import GLAS, GlasError, Grid, Predictor, load_model
from glas3d.imaging import load_scan, resample_scan
from glas3d.predict import Standardisation, intensity_scale
from tests import bundles

SHAPE = (7, 8, 9)


def scans(n=6, channels=1):
    values = torch.as_tensor(np.random.default_rng(0).uniform(0.2, 1, (n, channels, *SHAPE)), dtype=torch.float32)
    values[:, :, 0] = 0  # air
    return values


@pytest.fixture
def rng():
    return np.random.default_rng(1)


@pytest.fixture
def standardisation():
    return Standardisation.of(scans())


def test_the_scale_is_the_90th_percentile_of_what_is_bright():
    volume = np.zeros((4, 5, 6), dtype=np.float32)
    volume.flat[:101] = np.arange(101)
    # half of the sum of 1 to 100 comes from 71 and more, and a voxel of at most a tenth of that is no tissue
    assert intensity_scale(volume) == pytest.approx(np.percentile(np.arange(8, 101), 90))
    assert intensity_scale(torch.as_tensor(volume)) == intensity_scale(volume)
    assert intensity_scale(np.where(volume == 0, -5, volume)) == intensity_scale(volume)


def brain(rng):
    """Return a brain of 600 to 1000 in an air of 0, and which voxels are air."""
    volume = np.zeros((17, 19, 23), dtype=np.float32)
    volume[3:14, 4:15, 5:18] = rng.uniform(600, 1000, (11, 11, 13))
    return volume, volume == 0


RESIDUES = {
    "rounding": lambda shape, rng: np.full(shape, 1e-13),
    "negative rounding": lambda shape, rng: np.full(shape, -1e-13),
    "ringing of an interpolation": lambda shape, rng: rng.normal(0, 8, shape),
    "a tail of smoothing": lambda shape, rng: rng.uniform(0, 30, shape) * (rng.random(shape) < 0.4),
}


@pytest.mark.parametrize("residue", RESIDUES)
def test_what_is_left_in_air_does_not_change_the_scale(rng, residue):
    volume, air = brain(rng)
    expected = np.percentile(volume[~air], 90)
    assert intensity_scale(volume) == pytest.approx(expected, rel=1e-6)
    left = np.where(air, RESIDUES[residue](volume.shape, rng), volume).astype(np.float32)
    assert intensity_scale(left) == pytest.approx(expected, rel=0.002)


@pytest.mark.parametrize("offset", [-1024.0, -3.0, 40.0, 5000.0])
def test_the_offset_of_air_does_not_change_what_the_network_sees(rng, offset):
    volume, _ = brain(rng)
    assert intensity_scale(volume + np.float32(offset)) == pytest.approx(intensity_scale(volume), rel=1e-5)
    volumes = torch.as_tensor(np.stack([volume, volume + np.float32(offset)]))[:, None]
    standardisation = Standardisation(torch.full((1, *volume.shape), 0.4), torch.full((1, *volume.shape), 0.1))
    plain, shifted = (standardisation.fit(one)(one[None])[0] for one in volumes)
    torch.testing.assert_close(shifted, plain, rtol=1e-3, atol=1e-2)
    in_units = standardisation.fit(volumes[1]).to_scan_units(np.zeros(volumes.shape[1:], np.float32))
    np.testing.assert_allclose(in_units, offset, rtol=1e-6)  # a reference's air is the scan's


def test_how_much_air_surrounds_the_head_does_not_change_the_scale(rng):
    volume, _ = brain(rng)
    inside = volume[3:14, 4:15, 5:18]
    assert intensity_scale(np.pad(volume, 25)) == intensity_scale(volume) == intensity_scale(inside)


def test_a_single_bright_voxel_does_not_change_the_scale(rng):
    volume, _ = brain(rng)
    hot = volume.copy()
    hot[8, 9, 11] = 1e5
    assert intensity_scale(hot) == pytest.approx(intensity_scale(volume), rel=0.002)


@pytest.mark.filterwarnings("ignore:The 'template")
def test_the_same_head_at_1_and_2_mm_has_the_same_probability():
    predict = load_model("adnc-simulated", device="cpu")
    probabilities = []
    for mm in (1, 2):
        scan = load_scan(load_mni152_template(resolution=mm))
        volume = torch.as_tensor(resample_scan(scan, predict.info.grid))[None]
        probabilities.append(float(predict.fit(volume)(volume[None])[0, 1]))
    assert probabilities[1] == pytest.approx(probabilities[0], abs=0.01)


@pytest.mark.parametrize("value", [0, -1, np.nan])
def test_a_scan_without_brightness_is_refused(value):
    with pytest.raises(GlasError, match="needs positive intensities, this scan has none"):
        intensity_scale(np.full((3, 3, 3), value))


def test_every_voxel_is_standardised():
    scaled = scans()
    standardisation = Standardisation.of(scaled, floor=0.0625)
    torch.testing.assert_close(standardisation.mean, scaled.mean(dim=0))
    expected = scaled.std(dim=0)
    assert (expected[:, 0] == 0).all()
    torch.testing.assert_close(standardisation.std, expected.clamp_min(0.0625))
    assert (standardisation.std[:, 0] == 0.0625).all()  # air: no division by 0
    fitted = standardisation.fit(scaled[0] * 300)
    scale = intensity_scale(scaled[0] * 300)
    torch.testing.assert_close(
        fitted(scaled * 300), (scaled * 300 / scale - standardisation.mean) / standardisation.std, rtol=1e-4, atol=1e-4
    )


def test_the_training_scans_come_out_standardised():
    scaled = scans(50)
    standardisation = Standardisation.of(scaled, floor=1e-6)
    out = (scaled - standardisation.mean) / standardisation.std
    assert out.mean(dim=0).abs().max() < 1e-3
    torch.testing.assert_close(out.std(dim=0)[:, 1:], torch.ones(1, 6, 8, 9))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("factor", [2.0, 0.25])
def test_the_units_of_a_scan_do_not_matter(channels, factor):
    volume = scans(1, channels)[0] * 700
    fitted = [Standardisation.of(scans(6, channels)).fit(v) for v in (volume, volume * factor)]
    assert torch.equal(fitted[0](volume[None]), fitted[1](factor * volume[None]))


@pytest.mark.parametrize("factor", [2.0, 0.001, 37.3])
def test_the_units_of_a_scan_do_not_matter_to_a_probability(tmp_path, factor):
    predict = load_model(bundles.write(tmp_path), device="cpu")
    volume = bundles.scan()
    original, scaled = bundles.probabilities(predict, volume), bundles.probabilities(predict, volume * factor)
    torch.testing.assert_close(original, scaled, rtol=1e-4, atol=1e-5)
    unscaled = predict.fit(volume)(volume[None] * factor)[0]  # only a fit makes up for it
    assert (unscaled - original).abs().max() > 1e-3


def test_the_scale_is_fixed_by_fit(standardisation):
    volume = scans(1)[0] * 400
    fitted = standardisation.fit(volume)
    masked = volume.clone()
    masked[:, 3:] = 0
    other = standardisation.fit(masked)
    assert fitted.scale == intensity_scale(volume) != other.scale
    # what was not masked is what it was
    assert torch.equal(fitted(masked[None])[:, :, :3], fitted(volume[None])[:, :, :3])
    assert not torch.equal(other(masked[None])[:, :, :3], fitted(volume[None])[:, :, :3])


def test_glas_fits_once_on_the_intact_scan(standardisation):
    class Counted(Standardisation):
        def fit(self, volume):
            fits.append(volume.clone())
            return super().fit(volume)

    fits = []
    transform = Counted(standardisation.mean, standardisation.std)

    def net(batch):
        p = torch.sigmoid(batch.flatten(1).mean(dim=1))
        return torch.stack([1 - p, p], dim=1)

    volume = scans(1)[0] * 400
    predict = Predictor(net, "none", transform, "cpu")
    explanation = GLAS(predict, sigma_light=2, sigma_shadow=2).explain(volume, 1, Grid(2))
    assert len(fits) == 1
    assert torch.equal(fits[0], volume)
    assert explanation.probability == pytest.approx(float(predict.fit(volume)(volume[None])[0, 1]))


def test_a_reference_in_the_units_of_the_scan(standardisation):
    volume = scans(1)[0] * 400
    fitted = standardisation.fit(volume)
    reference = scans(2)[1].numpy()
    brought = fitted.to_scan_units(reference)
    assert brought.dtype == np.float32
    np.testing.assert_allclose(brought, reference * intensity_scale(volume), rtol=1e-6)
    # the inverse: the network sees the reference as it is kept
    expected = (torch.as_tensor(reference) - standardisation.mean) / standardisation.std
    torch.testing.assert_close(fitted(torch.as_tensor(brought[None]))[0], expected, rtol=1e-4, atol=1e-4)
    # a scan that is its own reference
    np.testing.assert_allclose(fitted.to_scan_units((volume / fitted.scale).numpy()), volume.numpy(), rtol=1e-6)


def test_absolute_intensities_are_standardised_as_they_are(standardisation):
    """Half the tissue everywhere is half of every value, not another unit."""
    absolute = Standardisation(standardisation.mean, standardisation.std, "absolute")
    volume = scans(1)[0]
    for amount in (1.0, 0.5):
        fitted = absolute.fit(amount * volume)
        expected = (amount * volume - absolute.mean) / absolute.std
        torch.testing.assert_close(fitted((amount * volume)[None])[0], expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_array_equal(fitted.to_scan_units(volume.numpy()), volume.numpy())
    offset = absolute.fit(volume + 7)  # no air is looked for either
    assert (offset.air, offset.scale) == (0, 1)


@pytest.mark.parametrize("shape", [(1, 8, 7, 9), (2, *SHAPE), SHAPE])
def test_another_shape_is_refused(standardisation, shape):
    with pytest.raises(GlasError, match=r"takes scans of \(1, 7, 8, 9\), got \(") as caught:
        standardisation.fit(torch.rand(shape))
    assert str(shape) in str(caught.value)


def test_a_dark_scan_is_refused(standardisation):
    with pytest.raises(GlasError, match="positive intensities"):
        standardisation.fit(torch.zeros(1, *SHAPE))
