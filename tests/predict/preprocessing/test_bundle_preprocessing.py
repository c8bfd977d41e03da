"""A bundle's own preprocessing decides what its network gets, as MONAI makes it of the intact scan, or is refused."""

import json
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

from glas3d import GLAS, GlasError, Grid, explain_img, load_model
from glas3d.imaging.space import VoxelGrid
from glas3d.predict import Predictor, Standardisation
from tests import bundles, zoo
from tests.zoo import step

SETTINGS = {"sigma_light": 5.0, "sigma_shadow": 7.0, "assume_space": "MNI"}
SPACING = step("Spacingd", pixdim=[3.0, 2.5, 2.0], mode="bilinear")
KEPT = {
    "tissue": [step("NormalizeIntensityd", nonzero="True", channel_wise=True), step("EnsureTyped", device="@device")],
    "grid and range": [
        step("Orientationd", axcodes="RAS"),
        SPACING,
        step("ScaleIntensityRanged", a_min=0, a_max=1500, b_min=0, b_max=1, clip=True),
        step("CastToTyped", dtype="$torch.float32"),
    ],
    "resized": [step("ScaleIntensityd"), step("Resized", spatial_size=[17, 18, 20], mode=["area"], keys=["image"])],
    "padded": [
        step("NormalizeIntensityd"),
        step("SpatialPadd", spatial_size=[24, 22, 26]),
        step("GaussianSmoothd", sigma=0.7),
    ],
    "percentiles": [
        step("ScaleIntensityRangePercentilesd", lower=1, upper=99, b_min=-1, b_max=1, clip=True),
        step("Orientationd", axcodes="LPS"),
    ],
    "other names": [
        {"_target_": "monai.transforms.intensity.dictionary.NormalizeIntensityD", "keys": ["image", "label"]},
        {"_target_": "ShiftIntensityDict", "keys": "image", "offset": "$0.5 / 2"},
        {"_target_": "RandFlipd", "keys": "label"},
        {"_target_": "RandFlipd", "keys": "image", "_disabled_": True},
        {"_target_": "Compose", "transforms": [step("ThresholdIntensityd", threshold=-0.5, cval=-0.5)]},
    ],
}


@pytest.fixture
def scan(tmp_path):
    return zoo.scan(tmp_path / "sub-01_T1w.nii.gz")


@pytest.mark.parametrize("transforms", KEPT.values(), ids=KEPT)
def test_the_network_gets_what_the_bundle_makes_of_the_scan(tmp_path, scan, transforms):
    bundle = zoo.write(tmp_path / "bundle", transforms, postprocessing=zoo.SOFTMAX)
    of_image = [
        t | ({"keys": "image"} if "label" in t.get("keys", ()) else {}) for t in transforms if t.get("keys") != "label"
    ]
    expected = zoo.probabilities(zoo.preprocessed(zoo.write(tmp_path / "monai", of_image), scan))
    result = explain_img(scan, load_model(bundle, device="cpu"), [0, 1], Grid((2, 3, 2)), **SETTINGS)
    np.testing.assert_allclose([r.probability for r in result], expected, atol=1e-6)
    np.testing.assert_array_equal(result[0].saliency_img.affine, nib.load(scan).affine)
    assert result[0].saliency_img.shape == zoo.SHAPE
    plain = explain_img(scan, Predictor(zoo.network(), "softmax", device="cpu"), 1, Grid(1), **SETTINGS)
    assert abs(plain.probability - expected[1]) > 0.01


def test_light_and_shadow_are_normalised_by_the_intact_scan(tmp_path, scan):
    bundle = zoo.write(tmp_path / "bundle", [step("NormalizeIntensityd", nonzero=True)], postprocessing=zoo.SOFTMAX)
    intact = nib.load(scan).get_fdata()
    tissue = intact != 0
    mean, deviation = intact[tissue].mean(), intact[tissue].std()
    result = explain_img(scan, load_model(bundle, device="cpu"), 1, Grid((2, 3, 2)), **SETTINGS).explanation
    indices = np.indices(zoo.SHAPE)
    for point, light, drop in zip(result.points, result.light, result.drop, strict=True):
        squared = ((indices - point.reshape(3, 1, 1, 1)) ** 2).sum(axis=0)
        lit, shaded = intact * np.exp(-squared / 50), intact * (1 - np.exp(-squared / 98))
        values = [zoo.probabilities((x - mean * tissue)[None] / deviation)[1] for x in (lit, shaded)]
        assert light == pytest.approx(values[0], abs=1e-5)
        assert drop == pytest.approx(result.probability - values[1], abs=1e-5)


def test_masks_lie_on_the_resampled_grid(tmp_path, scan):
    transforms = [step("Orientationd", axcodes="RAS"), SPACING, step("ScaleIntensityd")]
    bundle = zoo.write(tmp_path / "bundle", transforms, postprocessing=zoo.SOFTMAX)
    resampled = zoo.preprocessed(zoo.write(tmp_path / "grid", transforms[:2]), scan)
    predict = load_model(bundle, device="cpu")
    result = explain_img(scan, predict, 1, Grid((2, 3, 2)), **SETTINGS)
    alone = GLAS(predict, sigma_light=5.0, sigma_shadow=7.0, sigma_spatial=6.0).explain(resampled, 1, Grid((2, 3, 2)))
    np.testing.assert_allclose(result.explanation.light, alone.light, atol=1e-6)
    np.testing.assert_allclose(result.explanation.drop, alone.drop, atol=1e-6)
    assert tuple(result.provenance["Grid"]["shape"]) == resampled.shape[1:]
    assert result.provenance["Model"]["preprocessing"][0] == "Orientation(axcodes=RAS)"
    grid = predict.info.grid_for(VoxelGrid(zoo.SHAPE, zoo.AFFINE))
    assert (grid.shape, grid.spacing) == (tuple(resampled.shape[1:]), pytest.approx((3.0, 2.5, 2.0)))


def test_several_channels_are_resampled_alike(tmp_path, scan):
    transforms = [step("Orientationd", axcodes="RAS"), SPACING, step("NormalizeIntensityd", channel_wise=True)]
    bundle = zoo.write(tmp_path / "bundle", transforms, postprocessing=zoo.SOFTMAX)
    resampling, other = load_model(bundle, device="cpu").info.resampling, zoo.scan(tmp_path / "pet.nii.gz", seed=4)

    def model(batch):
        return torch.stack([batch[:, 0].mean((1, 2, 3)), batch[:, 1].mean((1, 2, 3))], dim=1)

    from glas3d.predict import ModelInfo

    predict = Predictor(model, "none", info=ModelInfo(name="two", channels=2, resampling=resampling))
    results = explain_img([scan, other], predict, [0, 1], Grid(1), **SETTINGS)
    for path, result in zip((scan, other), results, strict=True):
        expected = zoo.preprocessed(zoo.write(tmp_path / "grid", transforms[:2]), path).mean()
        assert result.probability == pytest.approx(float(expected), rel=1e-5)


def joined(tmp_path, transforms, after, keys=("pet", "t1")):
    """Write a bundle of two inputs whose preprocessing joins them."""
    formats = {"inputs": {"image": {"num_channels": 2}}, "outputs": {"pred": {"num_channels": 2}}}
    reading = [{"_target_": name, "keys": list(keys)} for name in ("LoadImaged", "EnsureChannelFirstd")]
    join = {"_target_": "ConcatItemsd", "keys": list(keys), "name": "image"}
    own = {"_target_": "Compose", "transforms": [*reading, *transforms, join, *after]}
    network = zoo.NETWORK | {"in_channels": 2}
    bundle = zoo.write(
        tmp_path / "bundle",
        metadata={"network_data_format": formats},
        weights=False,
        network_def=network,
        preprocessing=own,
        postprocessing=zoo.SOFTMAX,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        net = zoo.DenseNet(**{name: value for name, value in network.items() if name != "_target_"})
        with torch.no_grad():
            net.class_layers.out.weight *= 4
    zoo.save_file(net.state_dict(), bundle / "models" / "model.safetensors")
    return bundle, net.eval()


def test_images_that_a_bundle_joins_are_channels_in_its_order(tmp_path, scan):
    """Steps before ConcatItems measure each image alone, those after it all together; MONAI's numbers on both."""
    other = zoo.scan(tmp_path / "pet.nii.gz", seed=4)
    each = [
        {"_target_": "Orientationd", "keys": ["t1", "pet"], "axcodes": "RAS"},
        {"_target_": "NormalizeIntensityd", "keys": ["t1", "pet"], "nonzero": True},
        {"_target_": "ShiftIntensityd", "keys": "pet", "offset": 0.5},
    ]
    bundle, net = joined(tmp_path, each, [step("ScaleIntensityd")])
    predict = load_model(bundle, device="cpu")
    assert (predict.info.channels, predict.info.channel_names) == (2, ("pet", "t1"))
    assert predict.info.preprocessing == (
        "Orientation(axcodes=RAS)",
        "NormalizeIntensity(nonzero=True)",
        "ShiftIntensity(offset=0.5) of pet",
        "ConcatItems(pet, t1)",
        "ScaleIntensity()",
    )
    volumes = []
    for path, shift in ((other, 0.5), (scan, 0.0)):
        values = nib.as_closest_canonical(nib.load(path)).get_fdata()
        tissue = values != 0
        volumes.append(np.where(tissue, (values - values[tissue].mean()) / values[tissue].std(), 0) + shift)
    stack = np.stack(volumes)
    stack = (stack - stack.min()) / np.ptp(stack)
    with torch.no_grad():
        expected = net(torch.as_tensor(stack[None], dtype=torch.float32)).softmax(1)[0, 1].item()
    for images in ([other, scan], {"pet": other, "t1": scan}, {"t1": scan, "pet": other}):
        result = explain_img(images, predict, 1, Grid(1), **SETTINGS)
        assert result.probability == pytest.approx(expected, abs=1e-6)
        assert list(result.provenance["Input"]["channels"]) == ["pet", "t1"] or isinstance(images, list)
    assert abs(explain_img([scan, other], predict, 1, Grid(1), **SETTINGS).probability - expected) > 1e-3
    with pytest.raises(GlasError, match=r"takes the channels pet, t1, got t1, flair"):
        explain_img({"t1": scan, "flair": other}, predict, 1, Grid(1), **SETTINGS)
    with pytest.raises(GlasError, match=r"takes 2 input channels \(pet, t1\), a scan has 1"):
        explain_img(scan, predict, 1, Grid(1), **SETTINGS)


def test_images_that_are_resampled_in_different_ways_are_refused(tmp_path):
    bundle, _ = joined(tmp_path, [{"_target_": "Orientationd", "keys": "t1", "axcodes": "RAS"}], [])
    with pytest.raises(GlasError, match="Orientationd does not resample the channels pet, t1 alike"):
        load_model(bundle)


# Layouts


@pytest.mark.parametrize(
    "transforms",
    ["$@reading + @base", [{"_target_": "Compose", "transforms": "@base"}, "@last"]],
    ids=["sum", "nested"],
)
def test_references_and_expressions_are_resolved(tmp_path, scan, transforms):
    parts = {
        "reading": zoo.READING,
        "base": [step("NormalizeIntensityd", divisor="@divisor", subtrahend="$@divisor / 2")],
    }
    own = {"_target_": "Compose", "transforms": transforms}
    more = {"divisor": 300.0, "last": step("ShiftIntensityd", offset=0.25)}
    bundle = zoo.write(tmp_path / "bundle", **parts, **more, preprocessing=own)
    values = (nib.load(scan).get_fdata()[None] - 150) / 300 + (0 if isinstance(transforms, str) else 0.25)
    predict = load_model(bundle, activation="softmax", device="cpu")
    result = explain_img(scan, predict, 1, Grid(1), **SETTINGS)
    assert result.probability == pytest.approx(zoo.probabilities(values)[1], abs=1e-6)


@pytest.mark.parametrize("key", ["validate", "val_preprocessing"])
@pytest.mark.parametrize("suffix", ["json", "yaml"])
def test_the_preprocessing_of_training_counts_where_inference_has_none(tmp_path, scan, key, suffix):
    bundle = zoo.write(tmp_path / "bundle", postprocessing=zoo.SOFTMAX)
    own = {"_target_": "Compose", "transforms": "$@base + @scaling"}
    content = {"image_key": "image", "base": zoo.READING, "scaling": [step("ScaleIntensityd")]}
    content["preprocessing"] = {"_target_": "Compose", "transforms": "$@base + @augmentation + @scaling"}
    content["augmentation"] = [step("RandFlipd")]
    content |= {"validate": {"preprocessing": own}} if key == "validate" else {key: own}
    (bundle / "configs" / f"train.{suffix}").write_text(json.dumps(content))  # JSON is YAML
    values = nib.load(scan).get_fdata()
    result = explain_img(scan, load_model(bundle, device="cpu"), 1, Grid(1), **SETTINGS)
    assert result.probability == pytest.approx(zoo.probabilities(values[None] / values.max())[1], abs=1e-6)
    content.pop(key)
    (bundle / "configs" / f"train.{suffix}").write_text(json.dumps(content))
    with pytest.raises(GlasError, match="RandFlipd cannot be kept under masks: it is random"):
        load_model(bundle)


def test_a_bundle_of_a_training_configuration_alone(tmp_path):
    bundle = zoo.write(tmp_path / "bundle", [step("ScaleIntensityd")], file="train.json")
    assert load_model(bundle, activation="softmax").info.preprocessing == ("ScaleIntensity()",)


def test_a_bundle_s_own_name_for_its_image(tmp_path, scan):
    formats = {"inputs": {"t1": {"num_channels": 1}}, "outputs": {"pred": {"num_channels": 2}}}
    transforms = [{"_target_": "LoadImaged", "keys": "t1"}, {"_target_": "ScaleIntensityd", "keys": "t1"}]
    own = {"_target_": "Compose", "transforms": transforms}
    bundle = zoo.write(tmp_path / "bundle", metadata={"network_data_format": formats}, preprocessing=own)
    predict = load_model(bundle, activation="softmax")
    assert (predict.info.preprocessing, predict.info.channels) == (("ScaleIntensity()",), 1)


def test_as_the_closest_canonical_orientation(tmp_path, scan):
    reading = [{**zoo.READING[0], "reader": "NibabelReader", "as_closest_canonical": True}, *zoo.READING[1:]]
    own = {"_target_": "Compose", "transforms": reading}
    bundle = zoo.write(tmp_path / "bundle", preprocessing=own, postprocessing=zoo.SOFTMAX)
    result = explain_img(scan, load_model(bundle), 1, Grid(1), **SETTINGS)
    assert result.probability == pytest.approx(zoo.probabilities(zoo.preprocessed(bundle, scan))[1], abs=1e-6)
    canonical = nib.as_closest_canonical(nib.load(scan))
    np.testing.assert_allclose(result.provenance["Grid"]["affine"], canonical.affine, atol=1e-6)


# What is refused

REFUSED = {
    "random": ([step("RandAffined")], "RandAffined cannot be kept under masks: it is random"),
    "one of": ([{"_target_": "OneOf", "transforms": []}], "OneOf cannot be kept under masks: it is random"),
    "cropped": (
        [step("CropForegroundd", source_key="image")],
        "CropForegroundd .*: what it crops depends on the content",
    ),
    "unknown": ([step("HistogramNormalized")], "HistogramNormalized cannot be kept under masks: it is none that"),
    "code": ([step("Lambdad", func="$lambda x: x / 2")], "Lambdad cannot be kept under masks"),
    "own code": ([step("scripts.mine.Halved")], "scripts.mine.Halved is none of MONAI's transforms"),
    "own code of a known name": ([step("scripts.ScaleIntensityd")], "scripts.ScaleIntensityd is none of MONAI's"),
    "of others": (
        [{"_target_": "CopyItemsd", "keys": ["a"], "names": "image"}],
        "it makes the image .* of others",
    ),
    "joined along an axis": (
        [{"_target_": "ConcatItemsd", "keys": ["a", "b"], "name": "image", "dim": 1}],
        "ConcatItemsd .*: it must join images as channels",
    ),
    "another number of channels": (
        [{"_target_": "ConcatItemsd", "keys": ["a", "b"], "name": "image"}],
        "num_channels in the metadata of .* is 1, and its preprocessing joins 2 images, a, b",
    ),
    "resampled late": ([step("ScaleIntensityd"), SPACING], r"Spacingd comes after ScaleIntensity\(\)"),
    "turned late": (
        [step("Resized", spatial_size=[9, 9, 9]), step("Orientationd", axcodes="RAS")],
        "Orientationd comes after Resize",
    ),
    "padded by content": ([step("SpatialPadd", spatial_size=[30] * 3, mode="mean")], "what it pads with depends on"),
    "rounded": ([step("CastToTyped", dtype="$torch.uint8")], "CastToType to uint8 .*: it rounds intensities"),
    "an argument": ([step("ScaleIntensityd", colour="red")], "ScaleIntensity cannot be made .*'colour'"),
    "a number": ([step("ScaleIntensityRangePercentilesd", lower=1, upper=300, b_min=0, b_max=1)], r"range \[0, 100\]"),
    "lazy": ([{"_target_": "Compose", "transforms": [], "lazy": True}], "Compose is lazy"),
    "made otherwise": ([{"_target_": "ScaleIntensityd", "_mode_": "callable"}], "not made in the default way"),
    "no name": ([{"_target_": "$print"}], "the _target_ of a transform must be a name"),
}


@pytest.mark.parametrize(("transforms", "message"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_kept_is_refused_by_its_name(tmp_path, transforms, message):
    bundle = zoo.write(tmp_path / "bundle", transforms)
    with pytest.raises(GlasError, match=message) as caught:
        load_model(bundle, activation="softmax")
    assert str(bundle) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("preprocessing", "message"),
    [
        ("$torch.nn.Identity()", "preprocessing is the expression .* which can run any code; give --trust"),
        ("@nothing", "the preprocessing of .*inference.json cannot be read: .*@nothing"),
        ("$1 / 0", "the preprocessing of .*inference.json cannot be read"),
        ("by hand", "it must be a list of transforms with a _target_ each, it holds a str"),
        ([{"_target_": "LoadImaged", "keys": "img"}], "none of its transforms is applied to the image, 'image'"),
        ({"transforms": []}, "it must be a list of transforms with a _target_ each, it holds a dict"),
    ],
)
def test_a_preprocessing_that_cannot_be_read_is_refused(tmp_path, preprocessing, message):
    bundle = zoo.write(tmp_path / "bundle", preprocessing=preprocessing)
    with pytest.raises(GlasError, match=message) as caught:
        load_model(bundle, activation="softmax")
    assert str(bundle) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_transform_is_made_to_read_a_preprocessing(tmp_path, monkeypatch):
    marker = tmp_path / "made"
    own = {"_target_": "pathlib.Path.touch", "self": f"$__import__('pathlib').Path({str(marker)!r})"}
    bundle = zoo.write(tmp_path / "bundle", [{"_target_": "os.mkdir", "path": str(marker)}])
    with pytest.raises(GlasError, match=r"os\.mkdir is none of MONAI's transforms"):
        load_model(bundle, activation="softmax")
    bundle = zoo.write(tmp_path / "post", [step("ScaleIntensityd")], postprocessing=own)
    load_model(bundle, activation="softmax")
    assert not marker.exists()


def test_a_sliding_window_is_refused(tmp_path):
    bundle = zoo.write(tmp_path / "bundle", inferer={"_target_": "SlidingWindowInferer", "roi_size": [9, 9, 9]})
    with pytest.raises(GlasError, match=r"the whole scan at once .*, .*bundle states SlidingWindowInferer"):
        load_model(bundle, activation="softmax")
    zoo.write(bundle, inferer={"_target_": "SimpleInferer"})
    load_model(bundle, activation="softmax")


def test_a_bundle_states_its_preprocessing_once(bundle, tmp_path):
    bundle = shutil.copytree(bundle, tmp_path / "mine")
    config = bundle / "configs" / "inference.json"
    content = json.loads(config.read_text())
    content["preprocessing"] = [step("ScaleIntensityd", keys="image")]
    config.write_text(json.dumps(content))
    with pytest.raises(GlasError, match=r"must state its preprocessing once, .* and models/mean.nii.gz"):
        load_model(bundle)
    for name in ("mean", "std"):
        (bundle / "models" / f"{name}.nii.gz").unlink()
    predict = load_model(bundle, device="cpu")
    volume = bundles.scan()
    reference = predict.fit(volume).transform.to_scan_units(predict.info.reference)
    np.testing.assert_allclose(
        reference, predict.info.reference * float(volume.max() - volume.min()) + float(volume.min()), atol=1e-3
    )
    content["preprocessing"] = [step("Resized", keys="image", spatial_size=list(bundles.GRID.shape))]
    config.write_text(json.dumps(content))
    with pytest.raises(GlasError, match=r"reference of the bundle .* Resize.*cannot be undone"):
        load_model(bundle)
    content["preprocessing"] = [step("Spacingd", keys="image", pixdim=[8, 8, 8])]
    config.write_text(json.dumps(content))
    with pytest.raises(GlasError, match="must state its voxel grid once"):
        load_model(bundle)


# What else a bundle states


@pytest.mark.parametrize(
    ("stated", "given", "expected"),
    [
        ({"softmax": True}, None, "softmax"),
        ({"sigmoid": "true"}, None, "sigmoid"),
        ({"sigmoid": [True]}, "sigmoid", "sigmoid"),
        ({"other": "$torch.tanh"}, "none", "none"),
    ],
)
def test_the_activation_of_the_postprocessing_counts(tmp_path, stated, given, expected):
    post = {"_target_": "Compose", "transforms": [{"_target_": "Activationsd", "keys": "pred", **stated}]}
    bundle = zoo.write(tmp_path / "bundle", postprocessing=post)
    assert load_model(bundle, activation=given).activation == expected


def test_another_activation_than_that_of_the_postprocessing_is_refused(tmp_path):
    post = {"_target_": "Compose", "transforms": [{"_target_": "Activationsd", "keys": "pred", "sigmoid": True}]}
    bundle = zoo.write(tmp_path / "bundle", postprocessing=post)
    with pytest.raises(GlasError, match=r"activation='softmax' is for models that state none, .* states sigmoid"):
        load_model(bundle, activation="softmax")


def test_an_activation_that_is_given_replaces_what_cannot_be_read(tmp_path):
    bundle = zoo.write(tmp_path / "bundle", postprocessing="@nothing")
    assert load_model(bundle, activation="sigmoid").activation == "sigmoid"
    with pytest.raises(GlasError, match=r"the postprocessing of .* cannot be read"):
        load_model(bundle)


def test_a_single_logit_with_one_name_has_two_columns(tmp_path):
    formats = {"inputs": {"image": {"num_channels": 1}}}
    formats["outputs"] = {"pred": {"num_channels": 1, "channel_def": {"0": "AD"}}}
    post = {"_target_": "Compose", "transforms": [{"_target_": "Activationsd", "keys": "pred", "sigmoid": True}]}
    network = {**zoo.NETWORK, "out_channels": 1}
    bundle = zoo.write(
        tmp_path / "bundle",
        metadata={"network_data_format": formats},
        network_def=network,
        postprocessing=post,
        weights=False,
    )
    from monai.networks.nets import DenseNet
    from safetensors.torch import save_file

    net = DenseNet(**{k: v for k, v in network.items() if k != "_target_"}).eval()
    save_file(net.state_dict(), bundle / "models" / "model.safetensors")
    predict = load_model(bundle, device="cpu")
    assert predict.classes == ("not AD", "AD")
    batch = torch.rand(2, 1, *zoo.SHAPE)
    with torch.no_grad():
        assert torch.allclose(predict(batch)[:, 1], net(batch).sigmoid()[:, 0])


def test_monai_s_grid_is_the_one_that_is_recorded(tmp_path):
    transforms = [step("Spacingd", pixdim=[3.0, -1, 2.0])]
    resampling = load_model(zoo.write(tmp_path / "bundle", transforms), activation="softmax").info.resampling
    import monai.transforms as mt

    expected = mt.Spacing([3.0, -1, 2.0])(MetaTensor(torch.zeros(1, *zoo.SHAPE), affine=torch.as_tensor(zoo.AFFINE)))
    grid = resampling.grid_for(VoxelGrid(zoo.SHAPE, zoo.AFFINE))
    assert grid.same_as(VoxelGrid(tuple(expected.shape[1:]), expected.affine.numpy()))


def test_a_transform_of_voxel_statistics_is_not_a_preprocessing(bundle):
    predict = load_model(bundle)
    assert isinstance(predict.transform, Standardisation)
    assert (predict.info.preprocessing, predict.info.resampling) == ((), None)
