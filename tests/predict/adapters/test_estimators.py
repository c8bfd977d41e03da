"""Classifiers of scikit-learn and nilearn give the scores of their torch original, or one clear message."""

import nibabel as nib
import numpy as np
import pytest
import torch
from nilearn.decoding import Decoder, DecoderRegressor
from nilearn.maskers import NiftiLabelsMasker, NiftiMasker
from sklearn.ensemble import BaggingClassifier, RandomForestClassifier
from sklearn.linear_model import LogisticRegression, RidgeClassifier
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from torch import nn

from glas3d import GlasError, Grid, Predictor, explain_img
from glas3d.imaging.space import VoxelGrid
from glas3d.predict import from_decoder, from_estimator
from tests.predict.cases import AFFINE, SHAPES, assert_same_scores, explained


@pytest.fixture(scope="module")
def cohort():
    """Images of three kinds, each bright in another region, and their mask."""
    rng = np.random.default_rng(0)
    kind = np.arange(30) % 3
    values = rng.normal(0.5, 0.3, (30, *SHAPES[3])).astype(np.float32)
    values[kind == 1, 1:4, 2:5, 2:5] += 0.6
    values[kind == 2, 3:6, 3:6, 4:8] -= 0.6
    mask = np.zeros(SHAPES[3], dtype=np.uint8)
    mask[1:6, 1:7, 1:8] = 1
    images = [nib.Nifti1Image(v, AFFINE) for v in values]
    return images, np.array(["NC", "AD", "MCI"])[kind], nib.Nifti1Image(mask, AFFINE)


class Linear(nn.Module):
    """The torch original: one weight for each voxel, from a linear classifier in its masker's space."""

    def __init__(self, mask, coef, intercept, mean=0.0, deviation=1.0):
        super().__init__()
        coef = np.atleast_2d(coef).astype(np.float64)
        inside = torch.as_tensor(np.asarray(mask.dataobj) > 0)
        weights = torch.zeros(len(coef), *mask.shape, dtype=torch.float64)
        weights[:, inside] = torch.as_tensor(coef / deviation)
        self.linear = nn.Linear(inside.numel(), len(coef), dtype=torch.float64)
        with torch.no_grad():
            self.linear.weight.copy_(weights.flatten(1))
            self.linear.bias.copy_(torch.as_tensor(intercept - (coef * mean / deviation).sum(axis=1)))

    def forward(self, x):
        return self.linear(x.flatten(1).double())


def masked(cohort):
    images, kinds, mask = cohort
    masker = NiftiMasker(mask_img=mask, standardize=None).fit()
    return masker, masker.transform(images), kinds


@pytest.mark.parametrize("classes", [2, 3])
def test_a_classifier_behind_a_masker_gives_the_scores_of_the_torch_original(cohort, classes):
    masker, features, kinds = masked(cohort)
    chosen = np.isin(kinds, ["NC", "AD", "MCI"][:classes])
    clf = LogisticRegression(C=0.01).fit(features[chosen], kinds[chosen])
    linear = Linear(cohort[2], clf.coef_, clf.intercept_)
    original = Predictor(linear, "sigmoid" if classes == 2 else "softmax", device="cpu")
    by_probability = from_estimator(clf, masker)
    by_decision = from_estimator(clf, masker, original.activation)
    for predict in (by_probability, by_decision):
        assert_same_scores(predict, original, SHAPES[3])
        assert predict.classes == tuple(sorted({*kinds[chosen]}))
        assert predict.info.grid.same_as(VoxelGrid(SHAPES[3], AFFINE))
    ad = explained(by_probability, SHAPES[3], target="AD")
    assert ad.target == by_probability.classes.index("AD")


def test_a_pipeline_may_begin_with_its_masker(cohort):
    images, kinds, mask = cohort
    pipeline = make_pipeline(NiftiMasker(mask_img=mask, standardize=None), StandardScaler(), RidgeClassifier(alpha=1e3))
    pipeline.fit(images, kinds == "AD")
    scaler, ridge = pipeline[1], pipeline[2]
    linear = Linear(mask, ridge.coef_, ridge.intercept_, scaler.mean_, scaler.scale_)
    predict = from_estimator(pipeline, activation="sigmoid")
    assert_same_scores(predict, Predictor(linear, "sigmoid", device="cpu"), SHAPES[3])
    assert (predict.info.name, predict.classes) == ("RidgeClassifier", ("False", "True"))
    raw = from_estimator(pipeline, activation="none")
    assert_same_scores(raw, Predictor(linear, "none", device="cpu"), SHAPES[3], target=0)
    assert raw.classes == ("True",)
    with pytest.raises(GlasError, match="RidgeClassifier has no predict_proba: give an activation"):
        from_estimator(pipeline)


def test_a_labels_masker_brings_the_grid_of_its_atlas(cohort):
    images, kinds, mask = cohort
    labels = np.asarray(mask.dataobj, dtype=np.int16)
    labels[3:] *= 2
    atlas = nib.Nifti1Image(labels, AFFINE)
    masker = NiftiLabelsMasker(atlas, standardize=None).fit()
    clf = LogisticRegression().fit(masker.transform(nib.concat_images(images)), kinds == "AD")
    means = np.stack([(labels[labels > 0] == i) / (labels == i).sum() for i in (1, 2)])
    linear = Linear(mask, clf.coef_ @ means, clf.intercept_)
    assert_same_scores(
        from_estimator(clf, masker), Predictor(linear, "sigmoid", device="cpu"), SHAPES[3], least=1e-4, atol=1e-6
    )


def test_a_classifier_of_pixels_needs_no_masker():
    shape = SHAPES[2]
    rng = np.random.default_rng(0)
    pixels = rng.random((20, *shape))
    pixels[::2, 2:5, 3:6] += 1
    clf = LogisticRegression().fit(pixels.reshape(20, -1), np.arange(20) % 2)
    linear = Linear(nib.Nifti1Image(np.ones(shape, np.uint8), np.eye(4)), clf.coef_, clf.intercept_)
    predict = from_estimator(clf)
    assert_same_scores(predict, Predictor(linear, "sigmoid", device="cpu"), shape)
    assert predict.info.grid is None
    message = r"LogisticRegression does not take a batch of \(2, 1, 7, 8, 9\): ValueError: X has 504 features"
    with pytest.raises(GlasError, match=message):
        predict(torch.rand(2, 1, *SHAPES[3]))


def test_a_scan_is_resampled_to_the_masker_s_grid(cohort):
    masker, features, kinds = masked(cohort)
    predict = from_estimator(LogisticRegression(C=0.01).fit(features, kinds), masker)
    finer = AFFINE @ np.diag([0.5, 0.5, 0.5, 1])
    scan = nib.Nifti1Image(np.random.default_rng(0).random((15, 17, 19), dtype=np.float32), finer)
    result = explain_img(scan, predict, "AD", Grid(2), assume_space="MNI")
    assert result.provenance["Grid"]["shape"] == list(SHAPES[3])
    assert result.saliency_img.shape == scan.shape


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("standardize", [None, "zscore_sample"])
def test_a_decoder_gives_the_scores_of_the_torch_original(cohort, classes, standardize):
    images, kinds, mask = cohort
    chosen = np.isin(kinds, ["NC", "AD", "MCI"][:classes])
    images, kinds = [img for img, wanted in zip(images, chosen, strict=True) if wanted], kinds[chosen]
    decoder = Decoder("svc", mask, cv=2, screening_percentile=100, standardize=standardize).fit(images, kinds)
    values = np.stack([np.asarray(img.dataobj) for img in images])
    seen = values[:, np.asarray(mask.dataobj) > 0].astype(np.float64)
    frozen = (seen.mean(axis=0), seen.std(axis=0, ddof=1)) if standardize else ()
    original = Predictor(Linear(mask, decoder.coef_, decoder.intercept_, *frozen), "sigmoid", device="cpu")
    predict = from_decoder(decoder, images=images)
    assert_same_scores(predict, original, SHAPES[3])
    assert predict.classes == tuple(sorted({*kinds}))
    # over all the training images at once the decoder itself uses the same mean and deviation
    z = decoder.decision_function(images).reshape(len(images), -1)
    outputs = predict(torch.as_tensor(values[:, None]))
    torch.testing.assert_close(outputs[:, -z.shape[1] :].double(), torch.as_tensor(z).sigmoid(), atol=1e-4, rtol=0)
    if standardize:
        with pytest.raises(GlasError, match="masker of Decoder standardises over the images of one call: give the"):
            from_decoder(decoder)
        with pytest.raises(GlasError, match="masker of Decoder does not take the training images: "):
            from_decoder(decoder, images="nowhere.nii.gz")


def test_what_is_no_fitted_classifier_or_masker_is_refused(cohort):
    masker, features, kinds = masked(cohort)
    clf = LogisticRegression(C=0.01).fit(features, kinds)
    with pytest.raises(GlasError, match="must be a fitted classifier, LogisticRegression has no classes_"):
        from_estimator(LogisticRegression(), masker)
    with pytest.raises(GlasError, match="fitted nilearn masker of volumes, got StandardScaler"):
        from_estimator(clf, StandardScaler())
    with pytest.raises(GlasError, match="fitted nilearn masker of volumes, got NiftiMasker"):
        from_estimator(clf, NiftiMasker())
    detrending = NiftiMasker(mask_img=cohort[2], detrend=True, standardize=None).fit()
    with pytest.raises(GlasError, match=r"must not depend on other scans, the masker of .* has detrend"):
        from_estimator(clf, detrending)
    percent = NiftiMasker(mask_img=cohort[2], standardize="psc").fit()
    with pytest.raises(GlasError, match="the masker of LogisticRegression has standardize=psc"):
        from_estimator(clf, percent, images=cohort[0])
    with pytest.raises(GlasError, match=r"takes scans of \(1, 7, 8, 9\), got \(2, 7, 8, 9\)"):
        from_estimator(clf, masker)(torch.rand(2, 2, *SHAPES[3]))
    for decoder in (Decoder(), DecoderRegressor(), clf):
        with pytest.raises(GlasError, match=f"fitted classifier of nilearn, got {type(decoder).__name__}"):
            from_decoder(decoder)


def test_one_against_one_has_no_column_for_each_class():
    x = np.random.default_rng(0).normal(size=(40, 12)) + np.repeat(np.arange(4), 10)[:, None]
    for k in (3, 4):  # three classes have three pairs
        y = np.repeat(list("abcd"), 10)[: 10 * k]
        pairs = SVC(decision_function_shape="ovo")
        for made in (pairs, make_pipeline(StandardScaler(), pairs), BaggingClassifier(pairs, n_estimators=2)):
            with pytest.raises(GlasError, match=f"gives one column for each pair of its {k} classes"):
                from_estimator(made.fit(x[: 10 * k], y), activation="softmax")
        for made in (SVC(decision_function_shape="ovr"), OneVsRestClassifier(pairs)):
            rest = from_estimator(made.fit(x[: 10 * k], y), activation="softmax")
            assert rest(torch.rand(2, 1, 3, 4)).shape == (2, k)


@pytest.mark.parametrize("made", [MultiOutputClassifier(LogisticRegression()), RandomForestClassifier(3)])
def test_a_classifier_of_several_outputs_is_refused(made):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(40, 12)), np.stack([np.repeat(["NC", "AD"], 20), np.tile(["f", "m", "x", "y"], 10)], axis=1)
    with pytest.raises(GlasError, match="must return numbers, one row for each input, got list"):
        from_estimator(made.fit(x, y))(torch.rand(2, 1, 3, 4))


def test_names_are_as_many_as_the_columns():
    x, y = np.random.default_rng(0).normal(size=(30, 12)), np.repeat(list("abc"), 10)
    with pytest.raises(GlasError, match="2 classes are named, the model gives 3"):
        from_estimator(LogisticRegression().fit(x, y), classes=("NC", "AD"))(torch.rand(2, 1, 3, 4))
