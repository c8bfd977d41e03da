"""Exported files give the scores of their network; what cannot be used is refused in one sentence."""

import contextlib
import json
import sys
import zipfile

import nibabel as nib
import numpy as np
import onnx
import pytest
import torch
from monai.networks.nets import DenseNet, ViT
from monai.networks.nets.swin_unetr import SwinTransformer
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from glas3d import GLAS, GlasError, Grid, Predictor, explain_img, load_model
from glas3d.cli import run
from glas3d.imaging.space import VoxelGrid
from glas3d.predict import FirstOutput, from_onnx, from_pt2
from glas3d.predict.adapters import onnx_file as onnx_adapter
from tests.predict.cases import AFFINE, SHAPES, assert_same_scores, explained, network, volume


def pt2(path, net, shape, batch=2, **dynamic):
    torch.export.save(torch.export.export(net, (torch.rand(batch, 1, *shape),), **dynamic), path)
    return path


def onnx_file(path, net, shape, batch, inputs=1, **save):
    """`network` node by node: lighter than an exporter and its dependencies."""
    conv, linear = net[0], net[4]
    weights = {"w": conv.weight, "b": conv.bias, "v": linear.weight, "c": linear.bias}
    nodes = [
        helper.make_node("Conv", ["x0", "w", "b"], ["1"], pads=[1, 1] * len(shape)),
        helper.make_node("Relu", ["1"], ["2"]),
        helper.make_node("GlobalAveragePool", ["2"], ["3"]),
        helper.make_node("Flatten", ["3"], ["4"]),
        helper.make_node("Gemm", ["4", "v", "c"], ["y"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [value(f"x{i}", [batch, 1, *shape]) for i in range(inputs)],
        [value("y", [batch, 2])],
        [numpy_helper.from_array(p.detach().numpy(), n) for n, p in weights.items()],
    )
    return onnx_graph(path, graph, **save)


def value(name, shape, kind=TensorProto.FLOAT):
    return helper.make_tensor_value_info(name, kind, shape)


def onnx_graph(path, graph, **save):
    onnx.save_model(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path, **save)
    return path


# Exported files


def pt2_of(path, net, shape, batch):
    """Export as `pt2`, in batches of a fixed size, of any size ("dynamic") or of 2 or 3 ("bounded")."""
    dims = {"dynamic": torch.export.Dim("n"), "bounded": torch.export.Dim("n", min=2, max=3)}
    if batch in dims:
        return pt2(path, net, shape, dynamic_shapes=({0: dims[batch]},))
    return pt2(path, net, shape, batch)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("batch", [1, 3, "dynamic", "bounded"])
def test_a_pt2_file_gives_the_scores_of_its_network(tmp_path, ndim, batch):
    net, shape = network(ndim), SHAPES[ndim]
    path = pt2_of(tmp_path / "net.pt2", net, shape, batch)
    predict = load_model(path, activation="softmax", device="cpu")
    assert_same_scores(predict, Predictor(net, "softmax", device="cpu"), shape)
    assert (predict.info.name, predict.info.channels, len(predict.info.sha256)) == ("net.pt2", 1, 64)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("batch", [1, 3, "n"])
def test_an_onnx_file_gives_the_scores_of_its_network(tmp_path, ndim, batch):
    net, shape = network(ndim), SHAPES[ndim]
    path = onnx_file(tmp_path / "net.onnx", net, shape, batch)
    predict = load_model(path, activation="softmax")
    assert_same_scores(predict, Predictor(net, "softmax", device="cpu"), shape)
    assert (predict.info.name, predict.info.channels, len(predict.info.sha256)) == ("net.onnx", 1, 64)


def test_a_free_shape_takes_any_scan(tmp_path):
    net = network(2)
    path = onnx_file(tmp_path / "net.onnx", net, ("x", "y"), "n")
    for shape in ((12, 10), (9, 14)):
        assert_same_scores(from_onnx(path, "softmax"), Predictor(net, "softmax", device="cpu"), shape)


def test_tensors_in_another_file_count_in_its_hash(tmp_path):
    path = tmp_path / "net.onnx"
    stored = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx_file(path, network(2), SHAPES[2], 2, **stored)
    before = from_onnx(path, "softmax")
    assert_same_scores(before, Predictor(network(2), "softmax", device="cpu"), SHAPES[2])
    weights = bytearray((tmp_path / "weights.bin").read_bytes())
    weights[0] ^= 1
    (tmp_path / "weights.bin").write_bytes(weights)
    assert from_onnx(path, "softmax").info.sha256 != before.info.sha256


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/passwd", "sub/../../weights.bin"])
def test_tensors_elsewhere_are_refused(tmp_path, location):
    (tmp_path / "models").mkdir()
    path = tmp_path / "models" / "net.onnx"
    stored = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx_file(path, network(2), SHAPES[2], 2, **stored)
    model = onnx.load(path, load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            entry.value = location if entry.key == "location" else entry.value
    path.write_bytes(model.SerializeToString())
    with pytest.raises(GlasError, match=r"must store its tensors next to it, .*net.onnx names "):
        from_onnx(path, "softmax")


def test_tensors_that_change_while_they_are_read_are_refused(tmp_path, monkeypatch):
    """Their hash would be that of another model."""
    path = tmp_path / "net.onnx"
    stored = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}
    onnx_file(path, network(2), SHAPES[2], 2, **stored)
    hashed = onnx_adapter.file_sha256

    def hashed_then_changed(file):
        digest = hashed(file)
        file.write_bytes(bytes(len(file.read_bytes())))
        return digest

    monkeypatch.setattr(onnx_adapter, "file_sha256", hashed_then_changed)
    with pytest.raises(GlasError, match="must stay as it is while it is read"):
        from_onnx(path, "softmax")


class Flat(nn.Module):
    """Flattened by a view, into which torch.export writes a batch that is not dynamic."""

    def forward(self, x):
        return x.view(x.shape[0], -1)


def deep(flat):
    torch.manual_seed(8)
    layers = [nn.Conv3d(1, 4, 3, padding=1), nn.BatchNorm3d(4), nn.ReLU(inplace=True), nn.MaxPool3d(2)]
    layers += [nn.Conv3d(4, 4, 3), nn.ReLU(), nn.AvgPool3d(2), flat, nn.Linear(4 * 3 * 4 * 5, 2)]
    net = nn.Sequential(*layers)
    net(torch.rand(8, 1, 16, 20, 24))  # statistics for the batch normalisation
    return net.eval()


DEEP = (16, 20, 24)


@pytest.mark.parametrize("engine", ["openvino", "onnx", "channels_last"])
@pytest.mark.parametrize("batch", [1, 3, "dynamic"])
def test_engines_run_pt2_files(tmp_path, engine, batch):
    net = deep(nn.Flatten())
    path = pt2_of(tmp_path / "net.pt2", net, DEEP, batch)
    glas = GLAS(from_pt2(path, "softmax", device="cpu"), sigma_light=2, sigma_shadow=2, engine=engine, batch_size=4)
    e = glas.explain(volume(DEEP), 1, Grid(2))
    assert e.settings["engine"] == engine
    own = glas.replace(predict=Predictor(net, "softmax", device="cpu"), engine="eager").explain(
        volume(DEEP), 1, Grid(2)
    )
    assert np.ptp(own.light) > 1e-3
    for name in ("light", "drop"):
        np.testing.assert_allclose(getattr(e, name), getattr(own, name), rtol=0, atol=1e-5)


@pytest.mark.parametrize("batch", [1, 2, "dynamic"])
@pytest.mark.parametrize("flat", [nn.Flatten(), Flat()], ids=["flatten", "view"])
def test_only_what_a_mask_changes_is_recomputed_in_a_pt2_file(tmp_path, flat, batch, recwarn):
    net = deep(flat)
    path = pt2_of(tmp_path / "net.pt2", net, DEEP, batch)
    predict = from_pt2(path, "softmax", device="cpu", transform=lambda x: 2 * x - 1)
    glas = GLAS(predict, sigma_light=0.6, sigma_shadow=0.8, engine="eager", cut=5, cut_always=True)
    recwarn.clear()
    e = glas.explain(volume(DEEP), 1, Grid(3))
    fixed = isinstance(flat, Flat) and batch != "dynamic"
    assert e.settings["recomputed"]["recomputed"] is not fixed
    assert [str(w.message) for w in recwarn] == [
        "cut=5 saves nothing, every input is evaluated in full: the exported file fixes the batch"
    ] * fixed
    if not fixed:
        assert e.settings["recomputed"]["whole_from"] in ("flatten.using_ints", "view.default")
    full = glas.replace(cut=None).explain(volume(DEEP), 1, Grid(3))
    assert np.ptp(full.drop) > 1e-4
    for name in ("light", "drop"):
        np.testing.assert_allclose(getattr(e, name), getattr(full, name), rtol=0, atol=1e-6)


class Several(nn.Module):
    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x), x.mean()


def test_the_first_output_is_used(tmp_path):
    net, shape = network(2), SHAPES[2]
    original = Predictor(net, "softmax", device="cpu")
    assert_same_scores(Predictor(FirstOutput(Several(net)), "softmax", device="cpu"), original, shape)
    assert_same_scores(from_pt2(pt2(tmp_path / "a.pt2", Several(net), shape), "softmax"), original, shape)


def test_an_exported_model_may_state_its_grid_and_classes(tmp_path):
    path = pt2(tmp_path / "net.pt2", network(3), SHAPES[3])
    grid = VoxelGrid(SHAPES[3], AFFINE)
    predict = from_pt2(path, "softmax", classes=("NC", "AD"), grid=grid, value_range=(0, 1), device="cpu")
    scan = nib.Nifti1Image(
        np.random.default_rng(0).random((14, 16, 18), dtype="float32"), AFFINE @ np.diag([0.5] * 3 + [1])
    )
    result = explain_img(scan, predict, "AD", Grid(2), assume_space="MNI")
    assert result.saliency_img.shape == scan.shape
    assert {"name": "net.pt2", "sha256": predict.info.sha256}.items() <= result.provenance["Model"].items()
    with pytest.raises(GlasError, match=r"net.pt2 takes scans of \(7, 8, 9\) voxels, the grid given has \(9, 8, 7\)"):
        from_pt2(path, "softmax", grid=VoxelGrid((9, 8, 7), AFFINE))
    for value_range in ((1, 0), ("0", 1)):
        with pytest.raises(GlasError, match="value_range must be the lowest and the highest intensity"):
            from_pt2(path, "softmax", value_range=value_range)


@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_a_scan_that_does_not_fit_the_file_is_refused(tmp_path, kind):
    make = pt2 if kind == "pt2" else onnx_file
    predict = load_model(make(tmp_path / f"net.{kind}", network(3), SHAPES[3], 1), activation="softmax")
    message = rf"net.{kind} takes inputs of \(channels, \*spatial\) \(1, 7, 8, 9\), got \(1, 9, 8, 7\)"
    with pytest.raises(GlasError, match=message):
        predict(torch.rand(2, 1, 9, 8, 7))
    with pytest.raises(GlasError, match=r"got \(1, 12, 10\)"):
        explained(predict, SHAPES[2])


@pytest.mark.parametrize("suffix", ["pt2", "onnx"])
def test_broken_missing_and_undeclared_files_are_refused(tmp_path, suffix):
    path = tmp_path / f"net.{suffix}"
    with pytest.raises(GlasError, match=f"no such file: {path}"):
        load_model(path)
    for content in (b"", b"noise" * 100):
        path.write_bytes(content)
        with pytest.raises(GlasError, match=f"{path} cannot be loaded as an? ") as caught:
            load_model(path, activation="softmax")
        assert "\n" not in str(caught.value)
    with pytest.raises(GlasError, match="states no activation: give softmax, sigmoid or none"):
        load_model(path)


def test_a_damaged_pt2_file_is_refused_in_one_sentence(tmp_path, capfd):
    path = pt2(tmp_path / "net.pt2", network(2), SHAPES[2])
    whole = path.read_bytes()
    at = whole.index(b"graph_module")
    path.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
    with pytest.raises(GlasError, match=r"net.pt2 cannot be loaded as a torch\.export file: "):
        from_pt2(path, "softmax")
    assert capfd.readouterr() == ("", "")


def test_another_archive_is_no_pt2_file(tmp_path):
    torch.save(network(2).state_dict(), tmp_path / "net.pt2")
    with pytest.raises(GlasError, match=r"file of torch\.export\.save, .*net.pt2 is another archive"):
        load_model(tmp_path / "net.pt2", activation="softmax")


class Code:
    def __reduce__(self):
        return (pytest.fail, ("the file ran code",))


@pytest.mark.parametrize(
    "member", ["sample_inputs/model.pt", "model_weights_config.json", "opaque_obj_0", "aotinductor/a"]
)
def test_a_pt2_file_that_can_run_code_is_not_opened(tmp_path, member):
    good, bad = pt2(tmp_path / "good.pt2", network(2), SHAPES[2]), tmp_path / "bad.pt2"
    torch.save(Code(), tmp_path / "code.pt")
    with zipfile.ZipFile(good) as old, zipfile.ZipFile(bad, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name.endswith(member) and name.endswith(".pt"):
                content = (tmp_path / "code.pt").read_bytes()
            elif name.endswith(member):
                config = json.loads(content)
                next(iter(config["config"].values()))["use_pickle"] = True
                content = json.dumps(config).encode()
            new.writestr(name, content)
        if not any(name.endswith(member) for name in old.namelist()):
            new.writestr(f"good/data/{member}", b"")
    with pytest.raises(GlasError, match=f"bad.pt2 holds more than tensors, .*{member}: it can run any code"):
        from_pt2(bad, "softmax")


@pytest.mark.parametrize("layer", [nn.BatchNorm2d(1), nn.Dropout(0.5)])
def test_a_pt2_file_in_training_mode_is_refused(tmp_path, layer):
    path = pt2(tmp_path / "net.pt2", nn.Sequential(layer, network(2)).train(), SHAPES[2])
    with pytest.raises(GlasError, match=r"exported in training mode: call eval\(\)"):
        from_pt2(path, "softmax")


class Sum(nn.Module):
    def forward(self, x, y):
        return (x + y).flatten(1)


def test_a_model_of_several_inputs_is_refused(tmp_path):
    program = torch.export.export(Sum(), (torch.rand(2, 1, 3), torch.rand(2, 1, 3)))
    torch.export.save(program, tmp_path / "net.pt2")
    with pytest.raises(GlasError, match=r"must take one tensor, .*net.pt2 takes 2 inputs"):
        from_pt2(tmp_path / "net.pt2", "softmax")
    path = onnx_file(tmp_path / "net.onnx", network(2), SHAPES[2], 1, inputs=2)
    with pytest.raises(GlasError, match=r"one float32 input, tensor\(float\), .* has x0 tensor\(float\), x1 tensor"):
        from_onnx(path, "softmax")
    ends = (value(name, [1, 12], TensorProto.DOUBLE) for name in "xy")
    path = onnx_graph(
        path, helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "net", [next(ends)], [next(ends)])
    )
    with pytest.raises(GlasError, match=r"one float32 input, tensor\(float\), .* has x tensor\(double\)"):
        from_onnx(path, "softmax")


def test_without_onnxruntime_the_message_says_what_to_install(tmp_path, monkeypatch):
    path = onnx_file(tmp_path / "net.onnx", network(2), SHAPES[2], 1)
    with pytest.raises(GlasError, match=r"device must be auto, cpu or, where ONNX Runtime has it, cuda for .*'tpu'"):
        from_onnx(path, "softmax", device="tpu")
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(GlasError, match=r'onnxruntime, which is missing: pip install "glas3d\[onnx\]"'):
        load_model(path, activation="softmax")


def test_the_command_takes_an_exported_file_with_its_activation(tmp_path, capsys):
    scan, path = tmp_path / "scan.nii.gz", pt2(tmp_path / "net.pt2", network(3), SHAPES[3])
    nib.save(nib.Nifti1Image(volume(SHAPES[3])[0].numpy(), AFFINE), scan)
    words = ["explain", str(scan), "--model", str(path), "--target", "1", "--grid", "2", "--out", str(tmp_path / "out")]
    assert run(words) == 2
    assert "states no activation" in capsys.readouterr().err
    with contextlib.suppress(SystemExit):
        run([*words, "--activation", "softmax"])
    assert (tmp_path / "out" / "scan_desc-grid_regions.tsv").is_file()


# MONAI's networks


class Swin(nn.Module):
    """MONAI's Swin transformer (the encoder of its Swin UNETR) with a classification head."""

    def __init__(self, ndim):
        super().__init__()
        self.encoder = SwinTransformer(1, 6, (2,) * ndim, (2,) * ndim, (1,) * 4, (3,) * 4, spatial_dims=ndim)
        self.head = nn.Linear(6 * 16, 2)

    def forward(self, x):
        return self.head(self.encoder(x)[-1].flatten(2).mean(2))


def monai(name, ndim, shape):
    torch.manual_seed(0)
    if name == "DenseNet":
        return DenseNet(ndim, 1, 2, init_features=4, growth_rate=4, block_config=(2, 2))
    if name == "Swin":
        return Swin(ndim)
    sizes = {"hidden_size": 24, "mlp_dim": 32, "num_layers": 2, "num_heads": 4}
    return FirstOutput(
        ViT(1, shape, (8,) * ndim, classification=True, spatial_dims=ndim, post_activation=None, **sizes)
    )


@pytest.mark.parametrize("name", ["DenseNet", "ViT", "Swin"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_networks_of_monai_are_explained_without_hooks(name, ndim):
    shape = (16, 32, 24)[:ndim]
    net = monai(name, ndim, shape)
    before = [m.training for m in net.modules()]
    e = explained(Predictor(net, "softmax", device="cpu"), shape)
    assert [m.training for m in net.modules()] == before
    assert not any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks for m in net.modules())
    with torch.inference_mode():
        intact = net.eval()(volume(shape)[None]).softmax(1)[0, 1]
    assert e.probability == pytest.approx(float(intact), abs=1e-6)
    assert np.ptp(e.light) > 1e-5
    assert np.ptp(e.drop) > 1e-5


@pytest.mark.parametrize("name", ["DenseNet", "ViT", pytest.param("Swin", marks=pytest.mark.slow)])
def test_networks_of_monai_give_the_same_scores_once_exported(name, tmp_path):
    shape = (16, 32, 24)
    net = monai(name, 3, shape).eval()
    exported = from_pt2(pt2(tmp_path / "net.pt2", net, shape), "softmax", device="cpu")
    # untrained, their outputs hardly depend on the position: compare more closely
    assert_same_scores(exported, Predictor(net, "softmax", device="cpu"), shape, least=1e-5, atol=1e-6)


def test_a_file_whose_first_output_is_a_label_is_refused(tmp_path):
    """As scikit-learn's converters write them: the label, then the probabilities."""
    flat = helper.make_node("Flatten", ["input"], ["flat"])
    label = helper.make_node("ArgMax", ["flat"], ["label"], axis=1, keepdims=0)
    scores = helper.make_node("Softmax", ["flat"], ["scores"], axis=1)
    outputs = [value("label", [1], TensorProto.INT64), value("scores", [1, 12])]
    graph = helper.make_graph([flat, label, scores], "g", [value("input", [1, 1, 3, 4])], outputs)
    onnx_graph(tmp_path / "labels.onnx", graph)
    message = (
        r"first output of an ONNX model must be the class scores, floats, .*labels.onnx gives label tensor\(int64\), s"
    )
    with pytest.raises(GlasError, match=message):
        from_onnx(tmp_path / "labels.onnx", "none")
