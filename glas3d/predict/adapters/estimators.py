"""Classifiers of scikit-learn and decoders of nilearn as predictors."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nibabel.spatialimages import SpatialImage

from glas3d.errors import GlasError, reason
from glas3d.imaging.space import VoxelGrid
from glas3d.predict.interface import Activation, ModelInfo
from glas3d.predict.model_output import model_errors, rows
from glas3d.predict.predictor import Predictor

# Settings of a masker by which the features of one image depend on the other images of the call.
_MIXING = ("detrend", "low_pass", "high_pass", "high_variance_confounds")
_ZSCORES: dict[Any, int] = {True: 1, "zscore_sample": 1, "zscore": 0}  # with their degrees of freedom


def from_estimator(
    estimator: Any,
    masker: Any = None,
    activation: Activation | None = None,
    *,
    images: Any = None,
    classes: Sequence[str] | None = None,
    name: str | None = None,
) -> Predictor:
    """Return a predictor of a fitted scikit-learn classifier or pipeline, and of the masker that made its features.

    Parameters
    ----------
    estimator
        The fitted classifier. A pipeline (or a search over one) may begin with the masker.
    masker
        Fitted nilearn masker of volumes; scans are resampled to its grid. Without one, the features are the values
        of a scan, flattened.
    activation
        None: probabilities come from ``predict_proba``. Otherwise they come from ``decision_function``, whose
        outputs this activation turns into probabilities (``"sigmoid"`` for the one value of two classes).
    images
        The images that the masker saw in training. They are needed when the masker standardises features over the
        images of one call: their mean and standard deviation are then used for every scan.
    classes
        Names of the outputs; None: the estimator's ``classes_``.
    name
        Name of the model, for messages and sidecars; None: the name of the estimator's class.

    Raises
    ------
    GlasError
        The estimator is not fitted, the masker's features of one scan depend on other scans, or the estimator lacks
        the method that is needed.
    """
    estimator = getattr(estimator, "best_estimator_", estimator)
    steps = getattr(estimator, "steps", None)
    if masker is None and steps and hasattr(steps[0][1], "mask_img"):
        masker, estimator = steps[0][1], estimator[1:]
    name = name or type(steps[-1][1] if steps else estimator).__name__
    method = "predict_proba" if activation is None else "decision_function"
    try:
        labels = [str(label) for label in estimator.classes_]
    except AttributeError:
        raise GlasError(f"a model must be a fitted classifier, {name} has no classes_") from None
    score = getattr(estimator, method, None)
    if score is None:
        advice = "give an activation, so that decision_function is used" if activation is None else "give no activation"
        raise GlasError(f"the model {name} has no {method}: {advice}")
    if method == "decision_function" and len(labels) > 2 and _decides_between_pairs(estimator):
        raise GlasError(
            f"the decision_function of {name} gives one column for each pair of its {len(labels)} classes: use "
            'decision_function_shape="ovr"'
        )
    if activation == "none" and len(labels) == 2:
        labels = labels[1:]  # the raw decision between two classes is one value, about the second
    features = _MaskerFeatures(masker, name, images) if masker is not None else _flatten

    def evaluate(batch: torch.Tensor) -> torch.Tensor:
        with model_errors(name, batch):
            table = rows(score(features(batch)), batch, name)
        came = table.shape[1] if table.ndim == 2 else 1
        if came > 1 and came != len(labels):
            raise GlasError(
                f"the {method} of {name} gives {came} columns for {len(labels)} classes, such as one for each pair of "
                'them: use decision_function_shape="ovr"'
            )
        return table

    grid = features.grid if isinstance(features, _MaskerFeatures) else None
    info = ModelInfo(name=name, channels=None if grid is None else 1, grid=grid)
    return Predictor(evaluate, activation or "none", classes=labels if classes is None else classes, info=info)


def from_decoder(decoder: Any, activation: Activation = "sigmoid", *, images: Any = None) -> Predictor:
    """Return a predictor of a fitted nilearn ``Decoder`` or ``FREMClassifier``.

    Parameters
    ----------
    decoder
        The fitted decoder. Two classes give one logit; more are decided one against the rest, each with a logit.
    activation
        See `Predictor`.
    images
        The images that the decoder was fitted on; needed unless it was made with ``standardize=None``. A decoder
        standardises over the images of one call, so that its output for a scan depends on the other scans; here the
        mean and standard deviation of the training images are used.

    Raises
    ------
    GlasError
        The decoder is not fitted or no classifier, or ``images`` is missing.
    """
    masker = getattr(decoder, "masker_", None)
    if masker is None or not hasattr(decoder, "decision_function"):
        raise GlasError(f"a decoder must be a fitted classifier of nilearn, got {type(decoder).__name__}")
    return from_estimator(decoder, masker, activation, images=images)


def _decides_between_pairs(estimator: Any) -> bool:
    """Return whether a classifier of several classes decides one against one, and says so by a column for each pair.

    Three classes have three pairs, so that their number alone does not tell.
    """
    steps = getattr(estimator, "steps", None)
    last = steps[-1][1] if steps else estimator
    if getattr(last, "decision_function_shape", None) == "ovo":
        return True
    # an ensemble averages what its members decide; what makes several classes of two-class members does not
    members: Any = getattr(last, "estimators_", None) if hasattr(last, "estimators_features_") else None
    return bool(members) and _decides_between_pairs(members[0])


class _MaskerFeatures:
    """The features of a masker, those of each scan independent of other scans.

    The masker's own ``standardize`` works over the images of one call, which here are perturbed copies of one scan;
    it is switched off, and the values of the training images are used instead.
    """

    def __init__(self, masker: Any, name: str, images: Any) -> None:
        self.grid = _grid_of(masker)
        standardize = getattr(masker, "standardize", None) or None
        mixing = [setting for setting in _MIXING if getattr(masker, setting, None)]
        if standardize is not None and standardize not in _ZSCORES:
            mixing.append(f"standardize={standardize}")
        if mixing:
            raise GlasError(f"a scan's features must not depend on other scans, the masker of {name} has {mixing[0]}")
        if standardize is not None and images is None:
            raise GlasError(
                f"the masker of {name} standardises over the images of one call: give the training images as images, "
                "so that their mean and standard deviation can be used"
            )
        self.masker = copy.copy(masker)
        self.masker.standardize = None
        self.mean: np.ndarray | float = 0.0
        self.deviation: np.ndarray | float = 1.0
        if standardize is not None:
            self._standardise_by(images, name, _ZSCORES[standardize])

    def _standardise_by(self, images: Any, name: str, degrees_of_freedom: int) -> None:
        try:
            features = self.masker.transform(images)
        except Exception as error:  # nilearn's own, of every kind
            raise GlasError(f"the masker of {name} does not take the training images: {reason(error)}") from error
        table = np.vstack([np.atleast_2d(row) for row in features]).astype(np.float64)
        deviation = table.std(axis=0, ddof=degrees_of_freedom)
        self.mean, self.deviation = table.mean(axis=0), np.where(deviation > np.finfo(float).eps, deviation, 1.0)

    def __call__(self, batch: torch.Tensor) -> np.ndarray:
        if batch.shape[1:] != (1, *self.grid.shape):
            raise GlasError(f"the masker takes scans of {(1, *self.grid.shape)}, got {tuple(batch.shape[1:])}")
        images = nib.Nifti1Image(batch[:, 0].movedim(0, -1).cpu().numpy(), self.grid.affine)
        features = np.asarray(self.masker.transform(images)).reshape(len(batch), -1)
        return np.asarray((features - self.mean) / self.deviation)


def _grid_of(masker: Any) -> VoxelGrid:
    """Return the voxel grid of a fitted masker of volumes."""
    images = (getattr(masker, f"{kind}_img_", None) for kind in ("labels", "maps", "mask"))
    img = next((img for img in images if img is not None), None)
    if not isinstance(img, SpatialImage):
        raise GlasError(f"a masker must be a fitted nilearn masker of volumes, got {type(masker).__name__}")
    return VoxelGrid(tuple(int(n) for n in img.shape[:3]), np.asarray(img.affine, dtype=np.float64))


def _flatten(batch: torch.Tensor) -> np.ndarray:
    return batch.flatten(1).cpu().numpy()
