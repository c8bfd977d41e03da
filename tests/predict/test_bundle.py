import errno
import json
import os
import shutil

import nibabel as nib
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from glas3d import GlasError, Predictor, load_model
from glas3d.predict import Standardisation
from tests import bundles

DATA = "network_data_format"


@pytest.fixture
def mine(bundle, tmp_path):
    """A copy of the bundle, to be damaged."""
    return shutil.copytree(bundle, tmp_path / "mine")


def edit(change, file="metadata"):
    """Return what changes a JSON file of a bundle."""

    def damage(folder):
        path = folder / "configs" / f"{file}.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return damage


def volume(name, values=None, affine=bundles.GRID.affine):
    """Return what replaces one volume of a bundle."""
    values = np.random.default_rng(1).uniform(1, 2, bundles.GRID.shape) if values is None else values
    img = nib.Nifti1Image(values.astype(np.float32), affine)
    return lambda folder: nib.save(img, folder / "models" / f"{name}.nii.gz")


def remove(name):
    return lambda folder: (folder / name).unlink()


def weights(state):
    return lambda folder: save_file(state, folder / "models" / "model.safetensors")


def content(name, data):
    return lambda folder: (folder / name).write_bytes(data)


def pickled(folder):
    (folder / "models" / "model.safetensors").unlink()
    torch.save(bundles.network().state_dict(), folder / "models" / "model.pt")


def generic(folder):
    """Remove what bundles of other packages do not have."""
    edit(lambda m: m.pop("glas3d"))(folder)
    for name in ("mean", "std", "reference"):
        (folder / "models" / f"{name}.nii.gz").unlink()


def test_a_bundle_loads_as_it_was_written(bundle):
    net, reference = bundles.network(), nib.load(bundle / "models" / "reference.nii.gz").get_fdata()
    mean, std = (nib.load(bundle / "models" / f"{n}.nii.gz").get_fdata(dtype=np.float32) for n in ("mean", "std"))
    original = Predictor(
        net, "softmax", Standardisation(torch.as_tensor(mean[None]), torch.as_tensor(std[None])), "cpu"
    )
    loaded = load_model(bundle, device="cpu")
    outputs = [bundles.probabilities(loaded, bundles.scan(seed)) for seed in range(3)]
    for seed, output in enumerate(outputs):
        assert torch.equal(output, bundles.probabilities(original, bundles.scan(seed)))
    assert not torch.equal(outputs[0], outputs[1])
    assert loaded.classes == bundles.CLASSES
    assert loaded.activation == "softmax"
    info = loaded.info
    assert (info.name, info.channels, dict(info.preset)) == ("tiny", 1, bundles.PRESET)
    assert info.grid.same_as(bundles.GRID)
    assert info.reference.shape == (1, *bundles.GRID.shape)
    assert info.reference.dtype == np.float32
    np.testing.assert_array_equal(info.reference[0], reference.astype(np.float32))
    assert not loaded.net.training


def test_volumes_are_kept_exactly(tmp_path):
    rng = np.random.default_rng(5)
    mean, std, reference = rng.uniform(0.1, 1, (3, 1, *bundles.GRID.shape)).astype(np.float32)
    standardisation = Standardisation(torch.as_tensor(mean), torch.as_tensor(std))
    loaded = load_model(bundles.write(tmp_path, standardisation=standardisation, reference=reference), device="cpu")
    np.testing.assert_array_equal(loaded.transform.mean.numpy(), mean)
    np.testing.assert_array_equal(loaded.transform.std.numpy(), std)
    np.testing.assert_array_equal(loaded.info.reference, reference)


def test_intensities_are_kept(tmp_path):
    volumes = torch.full((2, 1, *bundles.GRID.shape), 0.5)
    for intensities in ("relative", "absolute"):
        folder = bundles.write(tmp_path / intensities, standardisation=Standardisation(*volumes, intensities))
        loaded = load_model(folder, device="cpu")
        assert loaded.transform.intensities == intensities
        stated = json.loads((folder / "configs" / "metadata.json").read_text())
        assert stated["task"] == f"Classification of {SUBJECTS[intensities]}"
        outputs = [bundles.probabilities(loaded, bundles.scan(0) / unit) for unit in (1000, 2000)]
        assert torch.allclose(*outputs, atol=1e-5) is (intensities == "relative")


def test_the_files_are_monai_s_and_nothing_is_pickled(bundle):
    files = {str(p.relative_to(bundle)) for p in bundle.rglob("*") if p.is_file()}
    volumes = {f"models/{name}.nii.gz" for name in ("mean", "std", "reference")}
    configs = {"configs/metadata.json", "configs/inference.json"}
    assert files == configs | volumes | {"models/model.safetensors", "docs/README.md"}
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    assert {"version", "task", "description", "authors", "copyright", DATA} <= set(metadata)
    assert (metadata["authors"], metadata["copyright"]) == ("not stated", "not stated")  # nobody else's, nor ours
    assert metadata[DATA]["inputs"]["image"]["spatial_shape"] == list(bundles.GRID.shape)
    assert nib.load(bundle / "models" / "mean.nii.gz").header.get_xyzt_units()[0] == "mm"


def test_all_files_have_the_same_permissions(bundle):
    assert len({p.stat().st_mode & 0o777 for p in bundle.rglob("*") if p.is_file()}) == 1


def test_a_pathlike_and_a_string_load_the_same(bundle):
    assert load_model(str(bundle)).info.sha256 == load_model(bundle).info.sha256


def test_the_hash_does_not_depend_on_the_folder(bundle, tmp_path):
    hashes = {load_model(folder).info.sha256 for folder in (bundle, bundles.write(tmp_path / "other"))}
    assert len(hashes) == 1
    assert len(hashes.pop()) == 64


def one_weight(folder):
    state = bundles.network().state_dict()
    state["classifier.6.bias"][0] += 1e-6
    weights(state)(folder)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        (one_weight, False),
        (edit(lambda m: m["glas3d"]["preset"].update(sigma_light=25.0)), False),
        (edit(lambda c: c["network_def"].update(dropout=0.1), "inference"), False),
        (volume("reference"), False),
        (volume("std"), False),
        (content("docs/README.md", b"another card"), True),
    ],
    ids=["weight", "preset", "network", "reference", "std", "card"],
)
def test_the_hash_covers_all_that_decides_the_output(bundle, mine, change, same):
    change(mine)
    assert (load_model(mine).info.sha256 == load_model(bundle).info.sha256) is same


def test_a_bundle_without_a_reference_or_a_standardisation(mine):
    remove("models/reference.nii.gz")(mine)
    loaded = load_model(mine)
    assert loaded.info.reference is None
    assert loaded.info.grid.same_as(bundles.GRID)
    volume("reference")(mine)
    for name in ("mean", "std"):
        remove(f"models/{name}.nii.gz")(mine)
    loaded = load_model(mine)
    assert loaded.transform is None
    assert loaded.info.reference is not None


@pytest.mark.parametrize("activation", ["softmax", "sigmoid", "none"])
def test_a_generic_bundle_takes_its_activation_as_an_argument(mine, activation):
    generic(mine)
    with pytest.raises(GlasError, match=f"{mine} states no activation: give softmax, sigmoid or none"):
        load_model(mine)
    predict = load_model(mine, activation=activation, device="cpu")
    batch = torch.rand(2, 1, *bundles.GRID.shape)
    with torch.inference_mode():
        raw = bundles.network()(batch)
    functions = {"softmax": lambda z: z.softmax(1), "sigmoid": torch.sigmoid, "none": lambda z: z}
    assert torch.equal(predict(batch), functions[activation](raw))
    assert (predict.info.grid, predict.info.reference, dict(predict.info.preset)) == (None, None, {})


def test_a_yaml_configuration_will_do(bundle, mine):
    remove("configs/inference.json")(mine)
    text = f"network_def:\n  _target_: {bundles.NETWORK['_target_']}\n  shape: {bundles.NETWORK['shape']}\n"
    (mine / "configs" / "inference.yaml").write_text(text + "  batch_norm: true\n")
    outputs = [bundles.probabilities(load_model(folder), bundles.scan()) for folder in (bundle, mine)]
    assert torch.equal(*outputs)


def inputs(**changed):
    return edit(lambda m: m[DATA]["inputs"]["image"].update(changed))


def outputs(**changed):
    return edit(lambda m: m[DATA]["outputs"]["pred"].update(changed))


def on_another_grid(folder):
    for name in ("mean", "std", "reference"):
        volume(name, np.random.default_rng(0).uniform(1, 2, (32, 32, 32)))(folder)


other_shape = np.random.default_rng(0).uniform(1, 2, (24, 24, 32))
some_zeros = np.random.default_rng(0).uniform(1, 2, bundles.GRID.shape) * (np.arange(24)[:, None, None] > 0)
SUBJECTS = {"relative": "T1w brain scans", "absolute": "tissue maps"}
UNFIT = "the bundle .*mine does not fit its own description: "
REFUSED = {
    "no metadata": (remove("configs/metadata.json"), "must hold configs/metadata.json"),
    "metadata no JSON": (content("configs/metadata.json", b"{"), "metadata.json must be JSON"),
    "metadata no text": (content("configs/metadata.json", b"\xff\xfe\x00"), "metadata.json must be JSON"),
    "metadata a list": (content("configs/metadata.json", b"[]"), "metadata.json must hold a JSON object"),
    "no inference": (remove("configs/inference.json"), "must describe its network in configs/inference.json"),
    "inference no JSON": (content("configs/inference.json", b"{"), "inference.json cannot be read as a config"),
    "no network": (content("configs/inference.json", b"{}"), "inference.json cannot be made: .*network_def"),
    "network unknown": (
        edit(lambda c: c["network_def"].update(_target_="no.such.Net"), "inference"),
        "inference.json cannot be made: .*no.such.Net",
    ),
    "network made wrongly": (
        edit(lambda c: c["network_def"].update(colour="red"), "inference"),
        "inference.json cannot be made: .*PaperNet.*colour",
    ),
    "network no module": (
        edit(lambda c: c.update(network_def={"_target_": "builtins.dict", "a": 1}), "inference"),
        "names builtins.dict, which is no network or layer of torch.nn, monai.networks, glas3d, which can run any code",
    ),
    "no weights": (
        remove("models/model.safetensors"),
        "models/model.safetensors, .*: the file does not exist",
    ),
    "pickled weights": (pickled, "weights in models/model.safetensors, .*: it has model.pt, a pickle"),
    "weights noise": (content("models/model.safetensors", b"noise" * 100), "model.safetensors is no safetensors file"),
    "weights empty": (content("models/model.safetensors", b""), "model.safetensors is no safetensors file"),
    "weights of another shape": (
        weights(bundles.network(shape=(24, 32, 32)).state_dict()),
        r"do not fit its network: .*classifier.2.weight.*\[32, 480\]",
    ),
    "weights of three classes": (weights(bundles.network(classes=3).state_dict()), "do not fit .*classifier.6.weight"),
    "weights of another network": (weights({"x": torch.zeros(2)}), "do not fit its network: .*Missing key"),
    "activation": (
        edit(lambda m: m["glas3d"].update(activation="relu")),
        f"{UNFIT}.*softmax, sigmoid, none, got 'relu'",
    ),
    "intensities": (
        edit(lambda m: m["glas3d"].update(intensities="mine")),
        'intensities in the metadata of .* must be "relative" or "absolute", got \'mine\'',
    ),
    "caution": (
        edit(lambda m: m["glas3d"].update(caution="a\nb")),
        "caution in the metadata of .* of one line, got 'a",
    ),
    "channels": (
        inputs(num_channels=2),
        rf"{UNFIT}.*takes scans of \(1, 24, 32, 24\), got \(2, 24, 32, 24\)",
    ),
    "grid": (on_another_grid, rf"{UNFIT}.*does not take a batch of \(1, 1, 32, 32, 32\)"),
    "outputs": (outputs(num_channels=3), f"{UNFIT}it promises 3 outputs, its network gives 2"),
    "classes": (
        outputs(channel_def={"0": "NC", "1": "MCI", "2": "AD"}),
        f"{UNFIT}3 classes are named, the model gives 2",
    ),
    "glas3d a list": (edit(lambda m: m.update(glas3d=[])), "glas3d in the metadata of .* must be an object, got list"),
    "formats a list": (
        edit(lambda m: m.update({DATA: [1]})),
        f"{DATA} in the metadata of .* must be an object, got list",
    ),
    "classes a list": (
        outputs(channel_def=["NC", "AD"]),
        "channel_def in the metadata of .* must be an object, got list",
    ),
    "classes by name": (
        outputs(channel_def={"zero": "NC", "one": "AD"}),
        "channel_def in the metadata of .* must number the outputs, got zero, one",
    ),
    "classes from 1": (
        outputs(channel_def={"1": "NC", "2": "AD"}),
        "channel_def in the metadata of .* must number the outputs from 0 on, got 1, 2",
    ),
    "classes with a gap": (outputs(channel_def={"0": "NC", "2": "AD"}), "must number the outputs from 0 on, got 0, 2"),
    "mean without std": (remove("models/std.nii.gz"), "needs mean.nii.gz and std.nii.gz, .* has one of them"),
    "std without mean": (remove("models/mean.nii.gz"), "needs mean.nii.gz and std.nii.gz, .* has one of them"),
    "another affine": (volume("std", affine=bundles.GRID.affine + np.eye(4) * 0.1), "must share one grid"),
    "another shape": (volume("reference", other_shape), "must share one grid"),
    "std of zero": (volume("std", some_zeros), r"must be greater than 0, got others in .*std\.nii\.gz"),
    "volume damaged": (content("models/mean.nii.gz", b"noise"), "mean.nii.gz is not: "),
}


@pytest.mark.parametrize(("damage", "message"), REFUSED.values(), ids=REFUSED)
def test_what_does_not_fit_is_refused_and_the_bundle_named(mine, damage, message):
    damage(mine)
    with pytest.raises(GlasError, match=message) as caught:
        load_model(mine)
    assert "\n" not in str(caught.value)
    assert str(mine) in str(caught.value)


@pytest.mark.parametrize("name", ["configs/logging", "models/older"])
def test_folders_inside_a_bundle_do_no_harm(bundle, mine, name):
    (mine / name).mkdir()
    assert load_model(mine).info.sha256 == load_model(bundle).info.sha256


@pytest.mark.parametrize(
    "damage", [inputs(num_channels="1"), inputs(num_channels=-1), edit(lambda m: m["glas3d"].update(preset=["mm"]))]
)
def test_numbers_and_presets_of_other_types_are_refused(mine, damage):
    damage(mine)
    with pytest.raises(GlasError, match=r"num_channels|preset"):
        load_model(mine)


def test_unknown_names_and_files_of_other_kinds_are_refused(tmp_path):
    with pytest.raises(GlasError, match=r"shipped name \(.*\), a MONAI bundle folder, a .*:factory, got nosuch"):
        load_model("nosuch")
    with pytest.raises(GlasError, match=r"got adnc-simulate; did you mean adnc-simulated\?$"):
        load_model("adnc-simulate")
    with pytest.raises(GlasError, match=r"got .*weights.safetensors"):
        save_file({"x": torch.zeros(1)}, tmp_path / "weights.safetensors")
        load_model(tmp_path / "weights.safetensors")
    with pytest.raises(
        GlasError, match=r"must be a MONAI bundle .*configs/metadata\.json, the folder .* has no such file"
    ):
        load_model(tmp_path)


@pytest.mark.parametrize("suffix", ["pt", "pth", "pkl", "ckpt", "bin"])
def test_a_pickle_is_not_opened(tmp_path, suffix):
    path = tmp_path / f"model.{suffix}"
    torch.save(nn.Linear(2, 2).state_dict(), path)
    advice = f"give package.module:factory, .*glas3d convert {path} BUNDLE_DIR"
    with pytest.raises(GlasError, match=f"safetensors weights, {path} is a pickle.*{advice}"):
        load_model(path)
    with pytest.raises(GlasError, match=f"no such file or folder: mine.{suffix}"):
        load_model(f"mine.{suffix}")


def test_a_factory_makes_a_model():
    predict = load_model("tests.bundles:factory")
    batch = torch.rand(2, 1, *bundles.GRID.shape)
    assert torch.equal(predict(batch), bundles.factory()(batch))
    assert predict.classes == bundles.CLASSES


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("no.such.module:factory", "no model factory no.such.module:factory: No module named 'no'"),
        ("tests.bundles:nosuch", "no model factory tests.bundles:nosuch: .*no attribute 'nosuch'"),
        ("tests.bundles:no_predictor", "must return a Predictor, tests.bundles:no_predictor returned PaperNet"),
        ("tests.bundles:NOT_CALLABLE", "must return a Predictor, tests.bundles:NOT_CALLABLE"),
        (":factory", "no model factory :factory"),
        (".bundles:factory", "no model factory .bundles"),
    ],
)
def test_what_is_no_factory_is_refused(spec, message):
    with pytest.raises(GlasError, match=message):
        load_model(spec)


def test_a_bundle_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(GlasError, match="No space left on device: free some"):
        bundles.write(tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()
