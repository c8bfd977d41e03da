"""Ask the model, and turn its answers into a score a point."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from glas3d.core.model import EngineModel, Fittable, Predict, Recomputable, RunsOnEngine, classes_of, device_of
from glas3d.core.perturb import Perturbations
from glas3d.core.settings import Fusion
from glas3d.core.threads import torch_threads
from glas3d.errors import GlasError

Target = int | str
Probabilities = tuple[np.ndarray, np.ndarray, np.ndarray]


def bind(predict: Predict, volume: torch.Tensor) -> tuple[Predict, torch.device]:
    """A model as it answers about one volume, its normalisation fitted to it, and where it is."""
    return predict.fit(volume) if isinstance(predict, Fittable) else predict, device_of(predict)


class FrozenModel:
    """A predictor whose normalisation stays that of the intact volume: it offers no ``fit``."""

    def __init__(self, predict: Predict, intact: torch.Tensor) -> None:
        self._predict, self.device = bind(predict, intact)
        self.classes = classes_of(predict)
        # None where the predictor does not offer it
        self.recompute = self._predict.recompute if isinstance(self._predict, Recomputable) else None
        self.with_engine = self._predict.with_engine if isinstance(self._predict, RunsOnEngine) else None

    def __call__(self, batch: torch.Tensor) -> Any:
        """As the predictor it was made of."""
        return self._predict(batch)


def with_engine(predict: Predict, engine: str, batches: int) -> Predict:
    """A model asked by an engine, where it knows of any; a plain callable is asked as it is.

    Parameters
    ----------
    batches
        How many it will be asked, which decides what pays.

    Raises
    ------
    GlasError
        An engine for what knows of none.
    """
    if not isinstance(predict, RunsOnEngine):
        if engine not in ("auto", "eager"):
            raise GlasError(f"engine={engine!r} needs a Predictor of a torch module, got {type(predict).__name__}")
        return predict
    return predict.with_engine(engine, batches)


def engine_record(predict: Predict) -> dict[str, Any]:
    """Which engine answered, for the record."""
    if not isinstance(predict, EngineModel):
        return {"engine": "eager", "engine_version": None, "engine_threads": torch.get_num_threads()}
    record = {
        "engine": predict.engine,
        "engine_version": predict.version,
        "engine_threads": predict.engine_threads,
    }
    notes = list(predict.notes)
    return record | ({"engine_notes": notes} if notes else {})


def evaluate(predict: Predict, batch: torch.Tensor, *beside: torch.Tensor) -> np.ndarray:
    """One forward: ``(n, c, *spatial)``, and covariates ``(n, q)`` beside it, to ``(n, k)`` float64, checked.

    Raises
    ------
    GlasError
        The answer is no array of one row an input, or holds NaN or infinity.
    """
    return read(_answered(predict, batch, *beside))


def _answered(predict: Predict, batch: torch.Tensor, *beside: torch.Tensor) -> torch.Tensor:
    """As `evaluate`, in memory of its own; a GPU's stays there, perhaps still to be computed: its shape is checked."""
    answer = predict(batch, *beside)
    try:
        probabilities = answer.detach() if isinstance(answer, torch.Tensor) else torch.as_tensor(np.asarray(answer))
        device = probabilities.device if probabilities.is_cuda else "cpu"
        probabilities = probabilities.to(device=device, dtype=torch.float64, copy=True)
    except (TypeError, ValueError, RuntimeError):
        raise GlasError(
            f"a model must answer with one array of probabilities, (n, classes), got {type(answer).__name__}"
        ) from None
    if probabilities.ndim == 1:
        probabilities = probabilities.unsqueeze(1)
    if probabilities.ndim != 2 or len(probabilities) != len(batch) or probabilities.shape[1] == 0:
        raise GlasError(
            f"a model must answer with one row of probabilities an input, ({len(batch)}, classes) "
            f"for a batch of {tuple(batch.shape)}, got {tuple(probabilities.shape)}"
        )
    return probabilities


def read(probabilities: torch.Tensor) -> np.ndarray:
    """Answers as an array, waiting for the device that has them.

    Raises
    ------
    GlasError
        NaN or infinity among them.
    """
    found = probabilities.cpu()
    if not torch.isfinite(found).all():
        raise GlasError(f"a model must answer with finite probabilities, got {found.flatten().tolist()[:4]} ...")
    return found.numpy()


def evaluate_all(
    predict: Predict,
    perturbations: Perturbations,
    check: Callable[[int], None] = lambda classes: None,
    tick: Callable[[int, int], None] = lambda done, total: None,
    beside: Callable[[list[int], int], torch.Tensor] | None = None,
) -> Probabilities:
    """Every answer to one explanation's inputs.

    Parameters
    ----------
    check
        Called with the number of classes after the first batch, before the rest is asked.
    tick
        Called with the forwards done and their total after every batch.
    beside
        Gives the covariates of a batch, from its numbers and its size; None: the model takes none.

    Returns
    -------
    The intact volume's ``(k,)``, light's ``(m, k)`` and shadow's ``(m, k)`` probabilities, float64.
    """
    answers = torch.empty(0)
    asked: list[int] = []
    with torch_threads(torch.get_num_threads()):  # given back at the end
        for batch, numbers in perturbations.batches():
            try:
                part = _answered(predict, batch, *(() if beside is None else (beside(numbers, len(batch)),)))
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                perturbations.halve()
                continue
            first = not asked
            if first:
                check(part.shape[1])
                # one piece: small ones, kept between large ones that come and go, leave holes that no input fits into
                answers = part.new_empty((len(perturbations), part.shape[1]))
                if isinstance(predict, EngineModel):
                    torch.set_num_threads(predict.torch_threads)
            if part.shape[1] != answers.shape[1]:
                raise GlasError(f"a model must answer with {answers.shape[1]} classes each time, got {part.shape[1]}")
            # a GPU is given the next batch before it has done this one; what it says first is looked at in time
            if first or not part.is_cuda:
                read(part)
            answers[len(asked) : len(asked) + len(numbers)] = part[: len(numbers)]
            asked += numbers
            tick(len(asked), len(perturbations))
    found = read(answers)[np.argsort(asked)]
    return found[0], found[1::2], found[2::2]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a smaller batch may do."""
    said = str(error)
    return isinstance(error, MemoryError) or "out of memory" in said or "allocate memory" in said


def fuse(light: np.ndarray, shadow: np.ndarray, fusion: Fusion) -> np.ndarray:
    """The score of each point from ``f_l`` and ``f_s``: their product (the paper), or one of them (its ablations)."""
    if fusion == "light":
        return light.copy()
    return shadow.copy() if fusion == "shadow" else np.asarray(light * shadow)


def targets_of(target: Target | Sequence[Target]) -> tuple[list[Any], bool]:
    """One target or several as a list, and whether it was one."""
    single = isinstance(target, str | int | float | np.generic) or target is None
    return [target] if single else list(target), single  # type: ignore[arg-type]


def check_single(target: object, what: str) -> None:
    """Refuse several targets where one is followed, such as by ``what="a recursion"``."""
    if not isinstance(target, str | int | np.integer):
        raise GlasError(f"{what} follows one target, a class index or name, got {target!r}")


def class_index(target: Target, classes: Sequence[str] | None, n_classes: int | None) -> int:
    """The column a target means.

    Raises
    ------
    GlasError
        A name the model does not have, or an index beyond its outputs.
    """
    if isinstance(target, str):
        if classes is None:
            raise GlasError(f"target {target!r} is a name, but this model names no classes: give an index")
        if target not in classes:
            raise GlasError(f"target must be one of {', '.join(map(repr, classes))}, got {target!r}")
        target = list(classes).index(target)
    if isinstance(target, bool) or not isinstance(target, int | np.integer):
        raise GlasError(f"target must be a class index or name, got {target!r}")
    if n_classes is not None and not 0 <= target < n_classes:
        raise GlasError(f"target must be a class index from 0 to {n_classes - 1}, got {int(target)}")
    return int(target)
