"""Evaluate the model on an explanation's inputs, and make scores of its probabilities (Eq. 1 and 2)."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from glas3d.core.agreement import allowed_difference, differ
from glas3d.core.foreign_code import failures_of, is_out_of_memory
from glas3d.core.model import EngineModel, Fittable, Predict, RunsOnEngine, TakesPerturbedBatches, device_of
from glas3d.core.perturb import LightAndShadow, Perturbations, PerturbedBatch
from glas3d.core.settings import Fusion, Link
from glas3d.core.threads import torch_threads
from glas3d.errors import GlasError

Target = int | str
# called after a batch: with the number of classes; with the model evaluations done and in all
CheckClasses = Callable[[int], None]
ReportProgress = Callable[[int, int], None]
# called after the first batch: with the model on its engine, the batch size and the output, whose first row is of the
# intact volume; returns whether the output may be used
CheckEngine = Callable[[Predict, int, torch.Tensor], bool]
# gives a batch's covariates (size, q), from the numbers of its inputs and its size
CovariatesOf = Callable[[list[int], int], np.ndarray]


class Outputs(NamedTuple):
    """A model's outputs for all inputs of one explanation, float64; NaN for an input that was not evaluated.

    Attributes
    ----------
    intact
        ``(k,)``, of the intact volume.
    light, shaded
        ``(m, k)``, under light and under shadow of each point.
    bare
        ``(k,)``, of the background alone.
    """

    intact: np.ndarray
    light: np.ndarray
    shaded: np.ndarray
    bare: np.ndarray

    @classmethod
    def of(cls, inputs: LightAndShadow, numbers: Sequence[int], values: np.ndarray) -> Outputs:
        """Return outputs ``(n, k)``, given in the order of their numbers in `Perturbations`."""
        all_numbers = np.full((2 * inputs.m + 2, values.shape[1]), np.nan)
        all_numbers[list(numbers)] = values
        return cls(all_numbers[0], all_numbers[1:-1:2], all_numbers[2::2], all_numbers[-1])


def bind(predict: Predict, volume: torch.Tensor) -> tuple[Predict, torch.device]:
    """Return the model with its preprocessing fitted to a copy of one volume, and the model's device."""
    if not isinstance(predict, Fittable):
        return predict, device_of(predict)
    with failures_of(f"the model cannot be fitted to a scan of {tuple(volume.shape)}"):
        return predict.fit(volume.clone()), device_of(predict)


def with_engine(predict: Predict, engine: str, n_batches: int) -> Predict:
    """Return the model as it runs on an engine; a plain callable runs as it is.

    Parameters
    ----------
    predict
        The model, bound to a volume.
    engine
        The engine's name, ``"auto"`` or ``"eager"``.
    n_batches
        How many batches will be evaluated, by which ``"auto"`` decides what pays.

    Raises
    ------
    GlasError
        An engine is named for a model that runs on none.
    """
    if not isinstance(predict, RunsOnEngine):
        if engine not in ("auto", "eager"):
            raise GlasError(f"engine={engine!r} needs a Predictor of a torch module, got {type(predict).__name__}")
        return predict
    return predict.with_engine(engine, n_batches)


def engine_record(predict: Predict) -> dict[str, Any]:
    """Return which engine ran the model, its version and threads, for the record of an explanation."""
    if not isinstance(predict, EngineModel):
        return {"engine": "eager", "engine_version": None, "engine_threads": torch.get_num_threads()}
    record = {
        "engine": predict.engine,
        "engine_version": predict.version,
        "engine_threads": predict.engine_threads,
    }
    notes = list(predict.notes)
    return record | ({"engine_notes": notes} if notes else {})


def evaluate(predict: Predict, batch: torch.Tensor, *covariates: torch.Tensor) -> np.ndarray:
    """Evaluate the model on one batch and check its output.

    Parameters
    ----------
    predict
        The model.
    batch
        ``(n, c, *spatial)``; the model may write over it.
    *covariates
        ``(n, q)``, where the model takes covariates.

    Returns
    -------
    ``(n, k)`` float64.

    Raises
    ------
    GlasError
        The output is not an array of one row for each input, or holds NaN or infinity.
    """
    return finite(evaluate_on_device(predict, batch, *covariates))


def evaluate_on_device(
    predict: Predict, batch: torch.Tensor | PerturbedBatch, *covariates: torch.Tensor
) -> torch.Tensor:
    """Evaluate the model as `evaluate` does, but leave the result on a GPU, where it may not be computed yet.

    The result has memory of its own, and only its shape is checked. A batch that is not written yet is written for a
    model that does not take it as it is.
    """
    with failures_of(f"the model does not take a batch of {tuple(batch.shape)}"):
        if not isinstance(batch, PerturbedBatch):
            output = predict(batch, *covariates)
        elif isinstance(predict, TakesPerturbedBatches):
            output = predict.perturbed(batch, *covariates)
        else:
            output = predict(batch.written(), *covariates)
    try:
        probabilities = output.detach() if isinstance(output, torch.Tensor) else torch.as_tensor(np.asarray(output))
        if unusual_kind(probabilities):
            raise TypeError
        device = probabilities.device if probabilities.is_cuda else "cpu"
        probabilities = probabilities.to(device=device, dtype=torch.float64, copy=True)
    except (Exception, SystemExit) as error:  # an output may be of any kind, and fail in any way
        if is_out_of_memory(error):
            raise
        unusual = unusual_kind(output) if isinstance(output, torch.Tensor) else ""
        raise GlasError(
            f"a model must return one array of probabilities, (n, classes), got {unusual or type(output).__name__}"
        ) from None
    if probabilities.ndim == 1:
        probabilities = probabilities.unsqueeze(1)
    if probabilities.ndim != 2 or len(probabilities) != len(batch) or probabilities.shape[1] == 0:
        raise GlasError(
            f"a model must return one row of probabilities for each input, ({len(batch)}, classes) "
            f"for a batch of {tuple(batch.shape)}, got {tuple(probabilities.shape)}"
        )
    return probabilities


def unusual_kind(tensor: torch.Tensor) -> str:
    """Return why a tensor cannot hold probabilities, in words for a message: it has no values, or none one by one."""
    kinds = {
        "a tensor on the meta device, where it has no values": tensor.is_meta,
        "a nested tensor": tensor.is_nested,
        f"a sparse tensor ({tensor.layout})": tensor.layout not in (torch.strided, torch.jagged),
        f"numbers of {tensor.dtype}": tensor.is_complex() or tensor.is_quantized,
    }
    return next((words for words, holds in kinds.items() if holds), "")


def finite(probabilities: torch.Tensor) -> np.ndarray:
    """Return probabilities as an array, waiting for the device that computes them.

    Raises
    ------
    GlasError
        NaN or infinity among them.
    """
    array = probabilities.cpu()
    if not torch.isfinite(array).all():
        bad = ~torch.isfinite(array).all(dim=1)
        raise GlasError(
            f"a model must return finite probabilities, got {array[bad][0].tolist()[:4]} for {int(bad.sum())} of "
            f"{len(array)} inputs; a usual cause is a transform that divides by the spread of each input, which is 0 "
            "where that is empty: one with a method fit takes it from the intact scan"
        )
    return array.numpy()


def accept_engine(predict: Predict, batch_size: int, output: torch.Tensor) -> bool:
    """Return True: the output of the first batch may be used, whatever engine gave it."""
    return True


def evaluate_all(
    predict: Predict,
    perturbations: Perturbations,
    check: CheckClasses = lambda n_classes: None,
    progress: ReportProgress = lambda done, total: None,
    covariates: CovariatesOf | None = None,
    check_engine: CheckEngine = accept_engine,
) -> Outputs:
    """Evaluate the model on all inputs of one explanation.

    Parameters
    ----------
    predict
        The model, bound to the volume and on its engine.
    perturbations
        The inputs.
    check
        Called with the number of classes after the first batch, before the others are evaluated; it may raise.
    progress
        Called after every batch with the model evaluations done and in all.
    covariates
        Gives the covariates of a batch; None: the model takes none.
    check_engine
        Called after the first batch with the model, whose engine is chosen then, the batch size and the output; where
        it returns False the batch is evaluated again.

    Returns
    -------
    The `Outputs`, each input's for all classes.

    Raises
    ------
    GlasError
        The output of a batch is not one row of finite numbers for each input, or has another number of classes than
        the first; or the intact volume, which fills the last batch, has another output there than in the first.
    """
    probabilities = torch.empty(0)
    intact_again: torch.Tensor | None = None
    evaluated: list[int] = []
    with torch_threads(torch.get_num_threads()):  # restored at the end
        for batch, numbers in perturbations.batches():
            try:
                part = evaluate_on_device(predict, batch, *covariate_tensors(covariates, batch))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                perturbations.halve()
                continue
            first = not evaluated
            if first:
                check(part.shape[1])
                if not check_engine(predict, perturbations.batch_size, part):
                    perturbations.repeat()
                    check_engine = accept_engine
                    continue
                # one block of memory: small ones, kept between large ones that come and go, leave holes too small
                # for any input
                probabilities = part.new_empty((len(perturbations), part.shape[1]))
                if isinstance(predict, EngineModel):
                    torch.set_num_threads(predict.torch_threads)
            if part.shape[1] != probabilities.shape[1]:
                raise GlasError(f"a model must return {probabilities.shape[1]} classes each time, got {part.shape[1]}")
            # a GPU gets the next batch before it has finished this one; its first output is checked at once
            if first or not part.is_cuda:
                finite(part)
            if not first and len(numbers) < len(part):
                intact_again = part[-1:]
            probabilities[len(evaluated) : len(evaluated) + len(numbers)] = part[: len(numbers)]
            evaluated += numbers
            progress(len(evaluated), len(perturbations))
    in_order = finite(probabilities)[np.argsort(evaluated)]
    if intact_again is not None and differ(finite(intact_again)[0], in_order[0], allowed_difference(in_order)):
        change = np.abs(finite(intact_again)[0] - in_order[0]).max()
        raise GlasError(
            "a model must give the same scan the same output each time, this model's differs by "
            f"{change:.2g} between the first batch and the last"
        )
    return Outputs.of(perturbations.inputs, perturbations.numbers, in_order)


def covariate_tensors(covariates: CovariatesOf | None, batch: PerturbedBatch) -> tuple[torch.Tensor, ...]:
    """Return the covariates of a batch ``(n, q)`` in a tuple, which is empty where the model takes none."""
    if covariates is None:
        return ()
    return (torch.as_tensor(covariates(list(batch.numbers), len(batch)), dtype=torch.float32, device=batch.device),)


def fuse(
    fusion: Fusion,
    light: np.ndarray,
    drop: np.ndarray,
    bare: np.ndarray | float = np.nan,
    *,
    link: Link = "probability",
    gamma: float = 0.0,
    light_sum: np.ndarray | float = 1.0,
    shadow_sum: np.ndarray | float = 1.0,
) -> np.ndarray:
    """Return the score of each point.

    The product of ``f_l`` and ``f_s = |drop| + gamma`` (the paper), one of them alone, or the mean of both ends: what a
    point adds when it comes first, ``light - bare``, and when it comes last, ``drop``, with its sign.

    Parameters
    ----------
    fusion
        How light and shadow become a score.
    light, drop
        ``(m, ...)``; an end that the fusion does not need is not read.
    bare
        The output for the background alone, which ``"mean"`` needs, and light alone in log-odds.
    link
        What the outputs are. Light alone is a probability (Eq. 1), or in log-odds, whose zero says nothing of a point,
        how far they are above those of the background.
    gamma
        Added to the shadow (Eq. 2).
    light_sum, shadow_sum
        The sums of each point's masks over voxels, ``(m, ...)``: each end is divided by that of its own mask, the
        product by that of shadow, which makes the score a density. 1: it is none.
    """
    if fusion == "light":
        return np.asarray((light - bare if link == "logit" else light) / light_sum)
    if fusion == "mean":
        return np.asarray(((light - bare) / light_sum + drop / shadow_sum) / 2)
    shadow = (np.abs(drop) + gamma) / shadow_sum
    return np.asarray(shadow if fusion == "shadow" else light * shadow)


def targets_of(target: Target | Sequence[Target]) -> tuple[list[Any], bool]:
    """Return one target or several as a list, and whether a single one was given."""
    single = isinstance(target, str | int | float | np.generic) or target is None
    return [target] if single else list(target), single  # type: ignore[arg-type]


def class_index(target: Target, classes: Sequence[str] | None, n_classes: int | None, option: str = "target") -> int:
    """Return the output column of a target.

    Parameters
    ----------
    target
        Index or name of a class.
    classes
        The model's class names, where it has some.
    n_classes
        How many columns the model's output has; None: not known yet.
    option
        Name of the argument that holds the target, for messages.

    Raises
    ------
    GlasError
        A name that the model does not have, or an index beyond its outputs.
    """
    if isinstance(target, str):
        if classes is None:
            raise GlasError(f"{option} {target!r} is a name, but this model names no classes: give an index")
        if target not in classes:
            numbered = ", ".join(f"{name} ({index})" for index, name in enumerate(classes))
            near = [name for name in classes if name.casefold() == target.casefold()]
            near = near or difflib.get_close_matches(target, classes, 1, 0.75)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise GlasError(f"{option} must be one of {numbered}, got {target!r}{hint}")
        target = list(classes).index(target)
    if isinstance(target, bool) or not isinstance(target, int | np.integer):
        raise GlasError(f"{option} must be a class index or name, got {target!r}")
    if n_classes is not None and not 0 <= target < n_classes:
        raise GlasError(f"{option} must be a class index from 0 to {n_classes - 1}, got {int(target)}")
    return int(target)
