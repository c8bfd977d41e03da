"""Checkpoints become the weights of a bundle: the same tensors, no code, and only if they are the network's."""

import os
import pickle
import shutil
import zipfile

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from glas3d import GlasError, Grid, explain_img, load_model
from glas3d.predict import conversion, convert_weights
from tests import zoo

SETTINGS = {"sigma_light": 5.0, "sigma_shadow": 7.0, "assume_space": "MNI"}


@pytest.fixture
def bundle(tmp_path):
    """A bundle as the model zoo has it, with a pickle and no other weights."""
    folder = zoo.write(tmp_path / "zoo", [zoo.step("ScaleIntensityd")], postprocessing=zoo.SOFTMAX, weights=False)
    (folder / "docs").mkdir()
    (folder / "docs" / "README.md").write_text("# A card\n")
    torch.save(zoo.network().state_dict(), folder / "models" / "model.pt")
    return folder


def assert_explains_as_its_network(bundle, tmp_path):
    scan = zoo.scan(tmp_path / "scan.nii.gz")
    result = explain_img(scan, load_model(bundle, device="cpu"), 1, Grid(1), **SETTINGS)
    assert result.probability == pytest.approx(zoo.probabilities(zoo.preprocessed(bundle, scan))[1], abs=1e-6)


def test_a_zoo_bundle_is_explained_once_it_is_converted(bundle, tmp_path):
    with pytest.raises(
        GlasError, match=rf"a pickle, .*; glas3d convert {bundle}/models/model.pt {bundle} takes its ten"
    ):
        load_model(bundle)
    converted = convert_weights(bundle / "models" / "model.pt", bundle)
    state = zoo.network().state_dict()
    written = load_file(converted.file)
    assert converted.file == bundle / "models" / "model.safetensors"
    assert written.keys() == state.keys()
    assert all(torch.equal(written[name], state[name]) for name in state)
    assert (converted.n_tensors, converted.n_values) == (len(state), sum(t.numel() for t in state.values()))
    assert_explains_as_its_network(bundle, tmp_path)
    assert {p.stat().st_mode & 0o777 for p in bundle.rglob("*") if p.is_file()} == {0o644}


def test_a_new_folder_becomes_a_copy_without_the_pickle(bundle, tmp_path):
    before = sorted(bundle.rglob("*"))
    convert_weights(bundle / "models" / "model.pt", tmp_path / "new" / "bundle")
    files = {str(p.relative_to(tmp_path / "new" / "bundle")) for p in (tmp_path / "new").rglob("*") if p.is_file()}
    assert files == {"configs/metadata.json", "configs/inference.json", "docs/README.md", "models/model.safetensors"}
    assert sorted(bundle.rglob("*")) == before
    assert_explains_as_its_network(tmp_path / "new" / "bundle", tmp_path)


def test_the_hash_of_a_bundle_does_not_depend_on_the_pickle(bundle):
    convert_weights(bundle / "models" / "model.pt", bundle)
    before = load_model(bundle).info.sha256
    (bundle / "models" / "model.pt").unlink()
    assert load_model(bundle).info.sha256 == before


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: {"state_dict": state, "epoch": 3, "best": 0.9},
        lambda state: {"model": state, "optimizer": {"state": {}, "param_groups": [{"lr": 0.1}]}},
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {f"_orig_mod.{name}": tensor for name, tensor in state.items()},
        lambda state: {name: nn.Parameter(t) if t.is_floating_point() else t for name, t in state.items()},
    ],
    ids=["state_dict", "model", "data parallel", "compiled", "parameters"],
)
def test_the_usual_checkpoints_are_understood(bundle, wrap):
    state = zoo.network().state_dict()
    torch.save(wrap(state), bundle / "models" / "model.pt")
    written = load_file(convert_weights(bundle / "models" / "model.pt", bundle).file)
    assert all(torch.equal(written[name], state[name]) for name in state)


def test_tensors_that_share_memory_are_written_apart(bundle):
    state = zoo.network().state_dict()
    weight = state["class_layers.out.weight"]
    shared = torch.cat([weight, weight]).t()
    state["class_layers.out.weight"] = shared[:, :2].t()
    torch.save(state, bundle / "models" / "model.pt")
    written = load_file(convert_weights(bundle / "models" / "model.pt", bundle).file)
    assert torch.equal(written["class_layers.out.weight"], weight)


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker):
        self.marker = str(marker)

    def __reduce__(self):
        return os.mkdir, (self.marker,)


def jitted(path, tmp_path):
    torch.jit.save(torch.jit.script(nn.Linear(2, 2)), path)


def saved(content):
    return lambda path, tmp_path: torch.save(content(tmp_path), path)


REFUSED = {
    "code": (
        saved(lambda tmp: {"weight": Evil(tmp / "made")}),
        r"it names posix\.mkdir, and a pickle can run any code",
    ),
    "plain pickle": (
        lambda path, tmp: path.write_bytes(pickle.dumps(Evil(tmp / "made"), protocol=2)),
        r"it names posix\.mkdir, and a pickle can run any code",
    ),
    "module": (
        saved(lambda tmp: nn.Linear(2, 2)),
        r"it names torch\.nn\.modules\.linear\.Linear, and a pickle can run",
    ),
    "noise": (lambda path, tmp: path.write_bytes(b"noise" * 99), "it holds more than tensors, and a pickle can run"),
    "empty": (lambda path, tmp: path.write_bytes(b""), "it cannot be read: EOFError"),
    "TorchScript": (jitted, "it is a TorchScript archive: save the state dict of its network"),
    "number": (saved(lambda tmp: 3), "must hold one state dict, names and tensors, .* holds none, but int"),
    "numbers": (saved(lambda tmp: {"epoch": 3}), "must hold one state dict, .* holds none, but epoch"),
    "nothing": (saved(lambda tmp: {}), "must hold one state dict, .* holds none, but dict"),
    "two": (
        saved(lambda tmp: {"model": zoo.network().state_dict(), "ema": zoo.network().state_dict()}),
        "must hold one state dict, .* holds 2 of them: model, ema",
    ),
    "sparse": (
        saved(lambda tmp: zoo.network().state_dict() | {"class_layers.out.weight": torch.eye(2, 14).to_sparse()}),
        r"must be dense tensors, class_layers\.out\.weight of .* is torch\.sparse_coo",
    ),
    "meta": (
        saved(lambda tmp: zoo.network().to("meta").state_dict()),
        "must be dense tensors, features.* is without values",
    ),
    "another network": (
        saved(lambda tmp: nn.Linear(2, 2).state_dict()),
        "do not fit the bundle's network: .*Missing key",
    ),
    "no file": (lambda path, tmp: path.unlink(), "no such file: .*model.pt"),
}


@pytest.mark.parametrize(("make", "message"), REFUSED.values(), ids=REFUSED)
@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_what_is_no_state_dict_of_the_network_is_refused_and_nothing_is_run(bundle, tmp_path, make, message):
    path = bundle / "models" / "model.pt"
    make(path, tmp_path)
    for folder in (bundle, tmp_path / "new"):
        with pytest.raises(GlasError, match=message) as caught:
            convert_weights(path, folder)
        assert "\n" not in str(caught.value)
        assert str(path) in str(caught.value)
        assert "weights_only" not in str(caught.value)
    assert not (tmp_path / "made").exists()
    assert not (tmp_path / "new").exists()
    assert [p.name for p in (bundle / "models").iterdir() if p != path] == []


def test_weights_are_replaced_only_on_demand(bundle):
    path, other = bundle / "models" / "model.pt", zoo.network(seed=6).state_dict()
    file = convert_weights(path, bundle).file
    before = file.read_bytes()
    torch.save(other, path)
    with pytest.raises(GlasError, match=r"model\.safetensors exists already: give --overwrite"):
        convert_weights(path, bundle)
    assert file.read_bytes() == before
    convert_weights(path, bundle, overwrite=True)
    assert torch.equal(load_file(file)["class_layers.out.weight"], other["class_layers.out.weight"])


def test_a_bundle_that_does_not_describe_its_network_is_refused(bundle, tmp_path):
    alone = shutil.copy(bundle / "models" / "model.pt", tmp_path / "alone.pt")
    with pytest.raises(
        GlasError, match=r"new has no configs/metadata.json .*, and .*alone.pt does not lie in a bundle"
    ):
        convert_weights(alone, tmp_path / "new")
    convert_weights(alone, bundle)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("")
    with pytest.raises(GlasError, match=r"must hold configs/metadata.json, the folder .*full has no such file"):
        convert_weights(bundle / "models" / "model.pt", tmp_path / "full")
    (bundle / "configs" / "inference.json").unlink()
    with pytest.raises(GlasError, match=r"must describe its network in configs/inference.json"):
        convert_weights(alone, bundle, overwrite=True)


def test_a_checkpoint_that_inflates_is_not_read(tmp_path):
    """torch packs nothing; a pickle of zeros that is packed is 300 times smaller."""
    bundle = zoo.write(tmp_path / "bundle", weights=False)
    source = tmp_path / "model.pt"
    with zipfile.ZipFile(source, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        archive.writestr("archive/data/0", bytes(2**26))
    with pytest.raises(GlasError, match=r"not be more than 20 times larger than its file, .* inflates to 67,108,864"):
        convert_weights(source, bundle)


def test_weights_are_taken_from_the_bytes_that_were_checked(bundle, monkeypatch):
    """The file may be another when it is opened a second time."""
    path, checked = bundle / "models" / "model.pt", conversion.plain_archive

    def checked_then_replaced(content, what, name):
        path.write_bytes(b"")
        return checked(content, what, name)

    monkeypatch.setattr(conversion, "plain_archive", checked_then_replaced)
    state = load_file(convert_weights(path, bundle).file)
    assert all(torch.equal(state[name], tensor) for name, tensor in zoo.network().state_dict().items())


def test_members_that_readers_of_archives_take_differently_are_refused(bundle):
    """Of two members of one name Python reads the last, torch the first."""
    path = bundle / "models" / "model.pt"
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(next(name for name in archive.namelist() if name.endswith("data/0")), b"")
    with pytest.raises(GlasError, match=r"weights must hold each member once, .*model.pt holds 'data/0' several times"):
        convert_weights(path, bundle)
