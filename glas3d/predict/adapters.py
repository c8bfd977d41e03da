"""Models that are no torch module: scikit-learn, nilearn's decoders, and any callable, near or far."""

from __future__ import annotations

import copy
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import nibabel as nib
import numpy as np
import torch
from nibabel.spatialimages import SpatialImage
from torch import nn

from glas3d.checks import whole_number
from glas3d.core.score import is_out_of_memory
from glas3d.errors import GlasError, reason
from glas3d.imaging.space import VoxelGrid
from glas3d.predict.predictor import Activation, FittedTransform, ModelInfo, Predictor, Transform

_log = logging.getLogger(__name__)

_MIXING = ("detrend", "low_pass", "high_pass", "high_variance_confounds")
_ZSCORES: dict[Any, int] = {True: 1, "zscore_sample": 1, "zscore": 0}  # and their degrees of freedom


class FirstOutput(nn.Module):
    """A network that answers with several tensors, the class logits first, such as MONAI's ``ViT``.

    Parameters
    ----------
    net
        Any module that returns a sequence.
    """

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """The first of the network's answers."""
        first: torch.Tensor = self.net(x)[0]
        return first


def from_estimator(
    estimator: Any,
    masker: Any = None,
    activation: Activation | None = None,
    *,
    images: Any = None,
    classes: Sequence[str] | None = None,
    name: str | None = None,
) -> Predictor:
    """A fitted scikit-learn classifier or pipeline, through the nilearn masker that made its features.

    Parameters
    ----------
    estimator
        Fitted. A pipeline (or a search over one) may begin with the masker.
    masker
        Fitted nilearn masker of volumes; scans are resampled to its grid. Without one the features are a
        batch's own values, flattened.
    activation
        None: ask ``predict_proba``. Otherwise ask ``decision_function``, and this makes its answers
        probabilities (``"sigmoid"`` for the one value of two classes).
    images
        The images the masker saw in training; needed when it standardises features over the images it is
        given, which is then done with the mean and standard deviation of these, frozen.
    classes
        Names of the outputs; None: the estimator's ``classes_``.
    name
        For messages and sidecars.

    Raises
    ------
    GlasError
        Not fitted, a masker whose features of one scan depend on the others, or no method to ask.
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
    ask = getattr(estimator, method, None)
    if ask is None:
        other = "state an activation, which asks decision_function" if activation is None else "leave activation out"
        raise GlasError(f"the model {name} has no {method}: {other}")
    if activation == "none" and len(labels) == 2:
        labels = labels[1:]  # the raw decision of two classes is one value, about the second
    features = _Masked(masker, name, images) if masker is not None else _flatten

    def run(batch: torch.Tensor) -> torch.Tensor:
        with asking(name, batch):
            return rows(ask(features(batch)), batch, name)

    grid = features.grid if isinstance(features, _Masked) else None
    info = ModelInfo(name=name, channels=None if grid is None else 1, grid=grid)
    return Predictor(run, activation or "none", classes=labels if classes is None else classes, info=info)


def from_decoder(decoder: Any, activation: Activation = "sigmoid", *, images: Any = None) -> Predictor:
    """A fitted nilearn ``Decoder`` or ``FREMClassifier``, through its own masker and decision function.

    Parameters
    ----------
    decoder
        Fitted. Two classes give one logit; more are decided one against the rest, each with a logit.
    activation
        See `Predictor`.
    images
        The images it was fitted on; needed unless it was made with ``standardize=None``: a decoder
        standardises over the images of one call, so its answer to a scan depends on its neighbours. Here
        mean and standard deviation of the training images are frozen.

    Raises
    ------
    GlasError
        Not fitted, no classifier, or ``images`` is missing.
    """
    masker = getattr(decoder, "masker_", None)
    if masker is None or not hasattr(decoder, "decision_function"):
        raise GlasError(f"a decoder must be a fitted classifier of nilearn, got {type(decoder).__name__}")
    return from_estimator(decoder, masker, activation, images=images)


def from_callable(
    call: Callable[[Any], Any],
    activation: Activation,
    *,
    name: str | None = None,
    retries: int = 0,
    wait: float = 1.0,
    on: type[Exception] | tuple[type[Exception], ...] = Exception,
    as_numpy: bool = False,
    transform: Transform | FittedTransform | None = None,
    classes: Sequence[str] | None = None,
    grid: VoxelGrid | None = None,
) -> Predictor:
    """Anything that answers a batch, here or behind a network, as a `Predictor`.

    Parameters
    ----------
    call
        ``(n, c, *spatial)`` float32 to ``(n, k)`` or ``(n,)``: a tensor, an array or nested lists.
    name, retries, wait, on
        See `Retrying`.
    as_numpy
        Give NumPy arrays to ``call`` instead of tensors.
    activation, transform, classes
        See `Predictor`.
    grid
        The grid its scans must be on, when it is known; scans are resampled to it.

    Raises
    ------
    GlasError
        A setting that cannot be; while asking: what `Retrying` says.

    Examples
    --------
    >>> service = lambda batch: batch.mean(axis=(1, 2, 3)).tolist()
    >>> from_callable(service, "sigmoid", as_numpy=True)(torch.zeros(2, 1, 3, 3))
    tensor([[0.5000, 0.5000],
            [0.5000, 0.5000]])
    """
    asked = call if not as_numpy else lambda batch: call(batch.cpu().numpy())
    name = name or str(getattr(call, "__name__", type(call).__name__))
    remote = Retrying(asked, name=name, retries=retries, wait=wait, on=on)
    return Predictor(remote, activation, transform, classes=classes, info=ModelInfo(name=name, grid=grid))


class Retrying:
    """A batch callable whose failures are tried again and then told in one sentence.

    Parameters
    ----------
    call
        Answers a batch with one row an input. How long it may take is its own affair: give it a timeout.
    name
        For messages.
    retries
        How often a batch that failed is asked again.
    wait
        Seconds before the first retry, doubled each time.
    on
        Errors worth another try. Others end it at once, as does a wrong number of rows.

    Raises
    ------
    GlasError
        When called: it failed every time, or answered with something else than one row of numbers an input.
    """

    def __init__(
        self,
        call: Callable[[Any], Any],
        *,
        name: str,
        retries: int = 2,
        wait: float = 1.0,
        on: type[Exception] | tuple[type[Exception], ...] = Exception,
    ) -> None:
        if not callable(call):
            raise GlasError(f"a model must be callable, got {type(call).__name__}")
        retries = whole_number("retries", retries, least=0)
        if not 0 <= wait < float("inf"):
            raise GlasError(f"wait must be 0 or a positive number of seconds, got {wait!r}")
        self.call, self.name, self.retries, self.wait, self.on = call, name, retries, wait, on

    def __call__(self, batch: torch.Tensor) -> torch.Tensor:
        """Ask, and ask again."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return rows(self.call(batch), batch, self.name)
            except GlasError:
                raise
            except Exception as error:
                if is_out_of_memory(error):
                    raise
                if attempt > self.retries or not isinstance(error, self.on):
                    times = "once" if attempt == 1 else f"{attempt} times"
                    raise GlasError(
                        f"the model {self.name} was asked {times} for a batch of {tuple(batch.shape)} and failed: "
                        f"{type(error).__name__}: {reason(error)}"
                    ) from error
                _log.warning("%s failed (attempt %d): %s: %s", self.name, attempt, type(error).__name__, error)
            time.sleep(self.wait * 2 ** (attempt - 1))


class _Masked:
    """Batches to a masker's features, each scan's independent of the others.

    The masker's own ``standardize`` works over the images of one call, here over perturbed copies of one
    scan; it is taken out and done with the training images' values instead.
    """

    def __init__(self, masker: Any, name: str, images: Any) -> None:
        places = (getattr(masker, f"{kind}_img_", None) for kind in ("labels", "maps", "mask"))
        place = next((img for img in places if img is not None), None)
        if not isinstance(place, SpatialImage):
            raise GlasError(f"a masker must be a fitted nilearn masker of volumes, got {type(masker).__name__}")
        self.grid = VoxelGrid(tuple(int(n) for n in place.shape[:3]), np.asarray(place.affine, dtype=np.float64))
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
            try:
                found = self.masker.transform(images)
            except Exception as error:  # nilearn's own, of every kind
                raise GlasError(f"the masker of {name} does not take the training images: {reason(error)}") from error
            seen = np.vstack([np.atleast_2d(one) for one in found]).astype(np.float64)
            deviation = seen.std(axis=0, ddof=_ZSCORES[standardize])
            self.mean, self.deviation = seen.mean(axis=0), np.where(deviation > np.finfo(float).eps, deviation, 1.0)

    def __call__(self, batch: torch.Tensor) -> np.ndarray:
        if batch.shape[1:] != (1, *self.grid.shape):
            raise GlasError(f"the masker takes scans of {(1, *self.grid.shape)}, got {tuple(batch.shape[1:])}")
        images = nib.Nifti1Image(batch[:, 0].movedim(0, -1).cpu().numpy(), self.grid.affine)
        features = np.asarray(self.masker.transform(images)).reshape(len(batch), -1)
        return np.asarray((features - self.mean) / self.deviation)


def _flatten(batch: torch.Tensor) -> np.ndarray:
    return batch.flatten(1).cpu().numpy()


def rows(answer: Any, batch: torch.Tensor, name: str) -> torch.Tensor:
    """An answer as a tensor with one row an input of the batch.

    Raises
    ------
    GlasError
        It holds no numbers, or another number of rows.
    """
    tensor: torch.Tensor
    if isinstance(answer, torch.Tensor):
        tensor = answer
    else:
        try:
            tensor = torch.from_numpy(np.array([] if answer is None else answer, dtype=np.float32))
        except (TypeError, ValueError):
            came = type(answer).__name__
            raise GlasError(f"the model {name} must answer with numbers, one row an input, got {came}") from None
    if tensor.ndim == 0 or len(tensor) != len(batch):
        raise GlasError(
            f"the model {name} must answer a batch of {len(batch)} with {len(batch)} rows, "
            f"got {len(tensor) if tensor.ndim else 'a single number'}"
        )
    return tensor


@contextmanager
def asking(name: str, batch: torch.Tensor) -> Iterator[None]:
    """Whatever another library raises over a batch, in one sentence."""
    try:
        yield
    except GlasError:
        raise
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise GlasError(f"the model {name} does not take a batch of {tuple(batch.shape)}: {reason(error)}") from error
