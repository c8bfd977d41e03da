"""A bundle runs no code of its author unless it is trusted; what the model zoo's bundles state is read without."""

import sys

import pytest
import torch
from torch import nn

from glas3d import GlasError, load_model
from glas3d.cli import run
from glas3d.errors import GlasWarning
from glas3d.predict import convert_weights
from glas3d.predict.bundle_entries import make_network
from tests import zoo


def touch(marker):
    return f"__import__('pathlib').Path({str(marker)!r}).touch()"


def network(**changed):
    return {"network_def": zoo.NETWORK | changed}


HOSTILE = {
    "a function of another package": lambda m: {"network_def": {"_target_": "os.system", "command": f"touch {m}"}},
    "a module within a package": lambda m: network(_target_="torch.nn.modules.module.torch.os.system"),
    "a function of a package": lambda m: network(_target_="monai.networks.utils.save_state"),
    "a function of ours": lambda m: {"network_def": {"_target_": "glas3d.load_model", "model": "tests.zoo:write"}},
    "an expression as target": lambda m: network(_target_=f"${touch(m)}"),
    "an expression": lambda m: {"network_def": f"${touch(m)}"},
    "an expression within": lambda m: network(act=["RELU", {"inplace": f"${touch(m)} or True"}]),
    "an expression behind a reference": lambda m: network(spatial_dims="@dims") | {"dims": [f"${touch(m)} or 3"]},
    "a reference within an expression": lambda m: network(spatial_dims="$@dims[0]") | {"dims": [f"${touch(m)} or 3"]},
    "a macro": lambda m: {"network_def": "%net"} | {"net": zoo.NETWORK | {"_target_": "os.system"}},
    "another file": lambda m: {"network_def": "%/tmp/other.json::net"},
    "what it requires": lambda m: network(_requires_=[f"${touch(m)}"]),
    "a debugger": lambda m: network(_mode_="debug"),
    "a target within": lambda m: network(act={"_target_": "pathlib.Path.touch", "self": "x"}),
    "a network that reads a file": lambda m: network(pretrained="/etc/passwd"),
    "a network that fetches its weights": lambda m: network(pretrained=True),
    "weights by their name": lambda m: network(_target_="TorchVisionFCModel", weights="DEFAULT"),
    "weights by a number": lambda m: network(_target_="TorchVisionFCModel", weights=1),
    "a network that always fetches": lambda m: {"network_def": {"_target_": "Transchex", "in_channels": 1}},
    "a network that fetches, within": lambda m: network(act={"_target_": "EfficientNetBN", "pretrained": True}),
    "an attribute": lambda m: network(spatial_dims="$().__class__.__bases__[0].__subclasses__()"),
    "a huge number": lambda m: network(spatial_dims="$9" + "*9" * 200),
    "a long list": lambda m: network(block_config="$[1] * 10**9"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_what_could_run_code_is_refused_and_its_entry_named(tmp_path, kind):
    marker = tmp_path / "ran"
    content = HOSTILE[kind](marker) | {"imports": [f"${touch(marker)}", "$import antigravity"]}
    bundle = zoo.write(tmp_path / "bundle", **content)
    with pytest.raises(GlasError, match=r"network_def|dims") as caught:
        load_model(bundle, activation="softmax")
    assert "give --trust (trust=True)" in str(caught.value)
    assert str(bundle) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not marker.exists()
    assert "antigravity" not in sys.modules


def test_depth_and_repetition_have_limits(tmp_path):
    deep = "[" * 100_000 + "]" * 100_000
    bundle = zoo.write(tmp_path / "bundle")
    path = bundle / "configs" / "inference.json"
    whole = path.read_text()
    path.write_text(whole[:-1] + f', "deep": {deep}}}')
    with pytest.raises(GlasError, match=r"cannot be read as a configuration"):
        load_model(bundle, activation="softmax")
    laughs = {f"a{i}": [f"@a{i + 1}"] * 10 for i in range(12)} | {"a12": 1}
    for content in (network(act="@a0") | laughs, network(act="@network_def")):
        zoo.write(bundle, **content)
        with pytest.raises(GlasError, match=r"nested too deeply, refers to itself, or is too large"):
            load_model(bundle, activation="softmax")
    (bundle / "configs" / "metadata.json").write_text('{"name": ' + deep + "}")
    with pytest.raises(GlasError, match=r"metadata.json must be JSON"):
        load_model(bundle, activation="softmax")


def test_a_network_far_larger_than_its_weights_is_not_made(tmp_path):
    """10^15 values would be 4 PB."""
    bundle = zoo.write(tmp_path / "bundle", **network(init_features=10**7, growth_rate=10**7))
    with pytest.raises(GlasError, match=r"as many values as its weights, [\d,]+, it has many times more"):
        load_model(bundle, activation="softmax")


@pytest.mark.parametrize(
    ("preset", "message"),
    [({"sigma_light": "wide"}, "sigma_light"), ({"kernel": ["gaussian"]}, "kernel"), ({"gamma": {}}, "gamma")],
)
def test_presets_of_other_types_and_absurd_channels_are_refused(tmp_path, preset, message):
    bundle = zoo.write(tmp_path / "bundle", metadata={"glas3d": {"preset": preset}})
    with pytest.raises(GlasError, match=rf"the preset in the metadata of .* cannot be used: {message}"):
        load_model(bundle, activation="softmax")
    image = {"num_channels": 10**9, "spatial_shape": [8, 8, 8]}
    zoo.write(bundle, metadata={"network_data_format": {"inputs": {"image": image}, "outputs": {"pred": {}}}})
    with pytest.raises(GlasError, match=r"num_channels .* must be at most 1000, got 1000000000"):
        load_model(bundle, activation="softmax")


def test_a_bundle_of_the_zoo_loads_without_trust_and_the_same_with_it(tmp_path):
    """Imports, a device and an evaluator are stated, and only what the network needs is read."""
    content = {
        "imports": ["$import glob", "$import os"],
        "output_dir": "$@bundle_root + '/eval'",
        "spatial": "$1 + 2",
        "norm": {"name": "batch", "affine": "$True"},
        "network_def": zoo.NETWORK | {"spatial_dims": "@spatial", "act": ["RELU", {"inplace": True}]},
        "network": "$@network_def.to(@device)",
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", "keys": "pred", "softmax": True},
                {"_target_": "Lambdad", "keys": "pred", "func": "$lambda x: x.argmax()"},
                {"_target_": "SaveImaged", "keys": "pred", "output_dir": "@output_dir"},
            ],
        },
        "evaluator": {"_target_": "SupervisedEvaluator", "device": "@device", "network": "@network"},
        "initialize": ["$setattr(torch.backends.cudnn, 'benchmark', True)"],
    }
    transforms = [
        {"_target_": "EnsureTyped", "keys": "@image_key", "device": "@device", "dtype": "$torch.float32"},
        {"_target_": "ScaleIntensityRanged", "keys": "@image_key", "a_min": "$-0.5 * 2", "a_max": 900.0}
        | {"b_min": 0.0, "b_max": 1.0, "clip": True},
    ]
    bundle = zoo.write(tmp_path / "bundle", transforms, **content)
    batch = torch.rand(2, 1, *zoo.SHAPE) * 800
    with torch.inference_mode():
        plain, trusted = (load_model(bundle, trust=trust, device="cpu") for trust in (False, True))
        assert plain.activation == trusted.activation == "softmax"
        assert plain.info.preprocessing == trusted.info.preprocessing
        torch.testing.assert_close(plain.fit(batch[0])(batch), trusted.fit(batch[0])(batch), rtol=0, atol=0)


@pytest.mark.parametrize("target", ["torch.nn.Sequential", "monai.networks.nets.DenseNet121", "resnet10"])
def test_networks_of_the_allowed_packages_are_made(tmp_path, target):
    arguments = {} if target == "torch.nn.Sequential" else {"spatial_dims": 3, "out_channels": 2, "in_channels": 1}
    if target == "resnet10":
        arguments = {"spatial_dims": 3, "num_classes": 2, "n_input_channels": 1}
    bundle = zoo.write(tmp_path / "bundle", network_def={"_target_": target, **arguments})
    with pytest.raises(GlasError, match=r"do not fit its network|many times more"):
        load_model(bundle, activation="softmax")


@pytest.mark.parametrize("mode", ["default", "callable"])
def test_weights_that_a_network_fetches_by_default_are_not_fetched(monkeypatch, mode):
    """EfficientNet of MONAI downloads its weights unless it is told not to."""

    def connect(*_):
        raise AssertionError("a bundle that is only loaded must not use the internet")

    monkeypatch.setattr("monai.networks.nets.efficientnet.model_zoo.load_url", connect)
    monkeypatch.setattr("socket.socket.connect", connect)
    entry = {"_target_": "EfficientNetBN", "model_name": "efficientnet-b0", "num_classes": 2, "_mode_": mode}
    net = make_network(entry, "network_def")
    net = net() if mode == "callable" else net
    assert sum(p.numel() for p in net.parameters()) > 10**6


def test_numbers_of_paths_are_no_names_of_files():
    """``drop_path`` is the probability that a path through a network is left out."""
    entry = {"_target_": "torch.nn.Identity", "drop_path": 0.1, "use_checkpoint": True, "weights": []}
    make_network(entry, "network_def")
    with pytest.raises(GlasError, match=r"network_def::drop_path is 'net\.pt', which reads or downloads other files"):
        make_network(entry | {"drop_path": "net.pt"}, "network_def")


class OwnNet(nn.Module):
    def __init__(self):
        super().__init__()
        self.last = nn.Linear(1, 2)

    def forward(self, x):
        return self.last(x.flatten(2).mean(2))


def test_a_network_of_one_s_own_needs_trust_on_every_way(tmp_path, capsys):
    bundle = zoo.write(tmp_path / "bundle", network_def={"_target_": "tests.predict.test_trust.OwnNet"}, weights=False)
    torch.save(OwnNet().state_dict(), bundle / "models" / "model.pt")
    with pytest.raises(GlasError, match=r"names tests.predict.test_trust.OwnNet, .* give --trust"):
        convert_weights(bundle / "models" / "model.pt", bundle)
    assert run(["convert", str(bundle / "models" / "model.pt"), str(bundle)]) == 2
    assert "give --trust if you trust it" in capsys.readouterr().err
    assert run(["convert", str(bundle / "models" / "model.pt"), str(bundle), "--trust"]) == 0
    assert load_model(bundle, activation="softmax", trust=True)(torch.rand(2, 1, 4, 5, 6)).shape == (2, 2)
    words = [str(zoo.scan(tmp_path / "scan.nii.gz")), "--model", str(bundle), "--target", "1", "--grid", "2"]
    words += ["--activation", "softmax", "--out", str(tmp_path / "out"), "--assume-space", "MNI"]
    assert run(["explain", *words]) == 2
    assert "--trust" in capsys.readouterr().err
    assert run(["explain", *words, "--trust"]) == 0


def test_the_help_says_what_trust_is(capsys):
    for command in ("explain", "compare", "cohort", "convert"):
        run([command, "--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert "--trust" in text


def test_a_key_that_stands_twice_is_named(tmp_path):
    bundle = zoo.write(tmp_path / "bundle")
    (config,) = (bundle / "configs").glob("inference.*")
    config.write_text(config.read_text().replace("{", '{"network_def": "@gone", ', 1))
    with pytest.warns(GlasWarning, match=r"inference.json has the key 'network_def' more than once, the last counts"):
        load_model(bundle, activation="softmax")
