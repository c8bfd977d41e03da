"""A network from a file that does not state which intensities it takes is noted, once, in terminal and sidecar."""

import json
import warnings

import numpy as np
import pytest
import torch

from glas3d import GlasError, GlasWarning, Grid, Predictor, explain_image, explain_img, load_model
from glas3d.cli import run
from glas3d.explain.notes import note_on_intensities
from glas3d.imaging import load_scan
from glas3d.predict import Standardisation, from_onnx, from_pt2
from glas3d.study import explain_cohort
from tests import zoo
from tests.predict.adapters.test_exported import onnx_file, pt2
from tests.predict.cases import SHAPES, network
from tests.study import folders, studies

UNKNOWN = "does not state which intensities it takes: it gets those of the scan, from 0 to "
SETTINGS = {"search": Grid(1), "assume_space": "MNI", "sigma_light": 5.0, "sigma_shadow": 7.0}


@pytest.fixture
def scan(tmp_path):
    return zoo.scan(tmp_path / "sub-01_T1w.nii.gz")


def notes(scan, predict):
    """Return the warnings and the notes of the record, which must be the same."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", GlasWarning)
        result = explain_img(scan, predict, **SETTINGS)
    recorded = result.provenance.get("Notes", [])
    assert [str(w.message) for w in caught if "intensities" in str(w.message)] == [n for n in recorded if "intens" in n]
    return [note for note in recorded if "intensities" in note]


def exported(kind, path):
    return (pt2 if kind == "pt2" else onnx_file)(path / f"net.{kind}", network(3), zoo.SHAPE, 1)


def by_own_spread(batch, eps=0.0):
    axes = tuple(range(1, batch.ndim))
    return (batch - batch.mean(axes, keepdim=True)) / (batch.std(axes, keepdim=True) + eps)


def of_own_maximum(batch):
    return batch / batch.amax(tuple(range(1, batch.ndim)), keepdim=True)


class Fitted:
    def fit(self, volume):
        mean, spread = volume.mean(), volume.std()
        return lambda batch: (batch - mean) / spread


OF_THE_INPUT = "the transform takes numbers from each input"


@pytest.mark.parametrize(
    ("transform", "noted"),
    [
        (by_own_spread, True),
        (lambda batch: by_own_spread(batch, 1e-6), True),
        (of_own_maximum, True),
        (lambda batch: batch / batch.mean(), True),
        (lambda batch: batch / 3 - 1, False),
        (torch.log1p, False),
        (lambda batch: torch.nn.functional.avg_pool3d(batch, 3, 1, 1), False),
        (lambda batch: torch.nn.functional.pad(batch.flip(2)[..., 1:-1], (3, 3, 1, 0, 0, 2)), False),
        (lambda batch: torch.nn.functional.interpolate(batch, (5, 6, 9)), False),
        (Fitted(), False),
        (lambda batch: batch[:, :7], False),  # not what it takes: left to the first evaluation
    ],
)
def test_a_transform_that_depends_on_each_input_is_noted(transform, noted):
    data = np.random.default_rng(0).uniform(1, 2, (1, 11, 12, 17)).astype(np.float32)
    predict = Predictor(lambda batch: batch.mean((2, 3, 4)), "none", transform=transform, device="cpu")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = note_on_intensities(predict, predict.info, data)
    assert [note.text.startswith(OF_THE_INPUT) and note.warns for note in found] == [True] * noted
    assert [str(each.message) for each in caught] == [note.text for note in found]


def test_the_note_on_a_transform_is_recorded_and_warned_of(scan):
    predict = Predictor(network(3), "softmax", transform=lambda batch: by_own_spread(batch, 1e-3), device="cpu")
    with pytest.warns(GlasWarning, match=OF_THE_INPUT):
        result = explain_img(scan, predict, **SETTINGS)
    assert [note.startswith(OF_THE_INPUT) for note in result.provenance["Notes"]].count(True) == 1


@pytest.mark.parametrize("kind", ["pt2", "onnx"])
def test_an_exported_network_without_a_statement_is_noted(tmp_path, scan, kind):
    read, path = from_pt2 if kind == "pt2" else from_onnx, exported(kind, tmp_path)
    assert [UNKNOWN in note for note in notes(scan, load_model(path, activation="softmax"))] == [True]
    assert notes(scan, read(path, "softmax", transform=lambda batch: batch / 1000)) == []
    assert notes(scan, read(path, "softmax", value_range=(0, 1e5))) == []
    stated = notes(scan, read(path, "softmax", value_range=(0, 1)))
    assert len(stated) == 1
    assert "net" in stated[0]
    assert "states that it takes intensities from 0 to 1: it gets those of the scan, from 0 to" in stated[0]


@pytest.mark.parametrize(
    ("transforms", "value_range", "expected"),
    [
        (None, None, UNKNOWN),
        (None, [], UNKNOWN),
        (None, [0, 1], "states that it takes intensities from 0 to 1: "),
        (None, [0, 100000], None),
        ([zoo.step("ScaleIntensityd")], None, None),
        ([zoo.step("ScaleIntensityd")], [0, 255], None),
        ([zoo.step("Orientationd", axcodes="RAS")], None, None),
    ],
)
def test_a_bundle_states_its_intensities_by_its_preprocessing_or_its_range(
    tmp_path, scan, transforms, value_range, expected
):
    image = {"num_channels": 1, "value_range": value_range}
    formats = {"inputs": {"image": image}, "outputs": {"pred": {"num_channels": 2}}}
    bundle = zoo.write(tmp_path / "bundle", transforms, metadata={"network_data_format": formats})
    found = notes(scan, load_model(bundle, activation="softmax"))
    assert len(found) == (expected is not None)
    assert expected is None or expected in found[0]


def test_a_network_of_python_is_taken_at_its_word(scan):
    assert notes(scan, Predictor(zoo.network(), "softmax", device="cpu")) == []


def test_the_command_says_it_once_and_writes_it_to_the_sidecars(tmp_path, scan, capsys):
    words = [
        "explain",
        str(scan),
        "--model",
        str(exported("onnx", tmp_path)),
        "--activation",
        "softmax",
        "--target",
        "1",
    ]
    words += ["--grid", "2", "--assume-space", "MNI", "--out", str(tmp_path / "out")]
    assert run(words) == 0
    assert capsys.readouterr().err.count(UNKNOWN) == 1
    sidecars = [*(tmp_path / "out").glob("*_statmap.json"), *(tmp_path / "out").glob("*_regions.json")]
    assert len(sidecars) == 5
    for path in sidecars:
        assert sum(UNKNOWN in note for note in json.loads(path.read_text())["Notes"]) == 1


@pytest.mark.parametrize(("value_range", "status"), [(("0", "100000"), 0), (("-1", "1.5"), 0), (("1", "0"), 2)])
def test_the_range_of_a_file_is_given_on_the_command_line(tmp_path, scan, capsys, value_range, status):
    words = ["explain", str(scan), "--model", str(exported("pt2", tmp_path)), "--activation", "softmax"]
    words += ["--value-range", *value_range, "--target", "1", "--grid", "2", "--assume-space", "MNI"]
    assert run([*words, "--out", str(tmp_path / "out")]) == status
    errors = capsys.readouterr().err
    assert UNKNOWN not in errors
    assert ("states that it takes intensities from -1 to 1.5" in errors) == (value_range[0] == "-1")
    assert ("--value-range must be the lowest and the highest intensity" in errors) == (status == 2)


def test_the_range_of_a_bundle_is_given_where_it_states_none(tmp_path, scan):
    silent = load_model(zoo.write(tmp_path / "silent"), activation="softmax", value_range=(0, 1))
    assert silent.info.value_range == (0, 1)
    bundle = zoo.write(tmp_path / "scaled", [zoo.step("ScaleIntensityd")])
    with pytest.raises(GlasError, match=r"value_range .* is for files of models that do not state which"):
        load_model(bundle, activation="softmax", value_range=(0, 1))
    stated = zoo.write(tmp_path / "stated", postprocessing=zoo.SOFTMAX)
    with pytest.raises(GlasError, match=r"activation='sigmoid' is for models that state none, .*stated states softmax"):
        load_model(stated, activation="sigmoid")


@pytest.mark.filterwarnings("ignore:The training participants of the model", "ignore:.* is flat")
def test_a_study_takes_what_a_file_does_not_state(tmp_path):
    cohort = studies.cohort(studies.bids(tmp_path / "data", 2))
    model = pt2(tmp_path / "net.pt2", network(3), folders.SHAPE, 1)
    options = {"target": 1, "search": (1, 1, 1), "assume_space": "MNI", "engine": "eager"}
    with pytest.raises(GlasError, match="states no activation"):
        explain_cohort(cohort, tmp_path / "out", model, **options)
    given = {"activation": "softmax", "value_range": [0, 1e6]}
    for status in ("explained", "kept"):
        assert explain_cohort(cohort, tmp_path / "out", model, **options, **given).count(status) == 2
    study = json.loads((tmp_path / "out" / "study.json").read_text())
    assert (study["Activation"], study["ValueRange"]) == ("softmax", [0, 1e6])
    other = pytest.raises(GlasError, match="made with other models")
    with other, pytest.warns(GlasWarning, match="has no logits"):
        explain_cohort(cohort, tmp_path / "out", model, **options, activation="none", value_range=(0, 2e6))


def test_an_image_is_noted_too(tmp_path):
    path = pt2(tmp_path / "net.pt2", network(2), SHAPES[2])
    image = torch.rand(SHAPES[2]).numpy()
    with pytest.warns(GlasWarning, match="net.pt2 does not state which intensities it takes"):
        result = explain_image(image, load_model(path, activation="softmax"), 1, Grid(2))
    assert any("net.pt2" in note for note in result.provenance["Notes"])


def test_a_model_of_scans_that_resamples_takes_no_image(tmp_path):
    bundle = zoo.write(tmp_path / "bundle", [zoo.step("Orientationd", axcodes="RAS")])
    predict = load_model(bundle, activation="softmax")
    with pytest.raises(ValueError, match=r"the model zoo takes scans, which it resamples: Orientation\(axcodes=RAS\)"):
        explain_image(torch.rand(16, 18).numpy(), predict, 1, Grid(2))


def test_a_scan_of_another_unit_is_noted_by_a_model_of_absolute_intensities(scan):
    data = load_scan(scan).data
    for level, noted in ((float(data.max()), False), (1.0, True)):
        mean = torch.full((1, *data.shape), level)
        for intensities in ("absolute", "relative"):
            transform = Standardisation(mean, torch.ones_like(mean), intensities)
            found = notes(scan, Predictor(network(3), "softmax", transform, "cpu"))
            if noted and intensities == "absolute":
                assert len(found) == 1
                assert "of another unit, in the mean up to 1: it gets those of the scan, from 0 to" in found[0]
            else:
                assert found == []
