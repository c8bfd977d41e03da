"""Whether a model's output for an input depends on that input alone, tried before the work starts.

The scores compare the output for the intact scan with those under light and shadow. They mean something only when none
of these depends on the other inputs of a batch, on what was evaluated before, or on chance. A model that knows its
state is tried with the first scan, and again when its state has changed. An engine is compared with the model then, and
for every further scan, unless the model is known to make the same steps for all of them.
"""

from __future__ import annotations

import random
import warnings
import weakref
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from glas3d.core.agreement import allowed_difference, differ
from glas3d.core.foreign_code import is_out_of_memory
from glas3d.core.model import EngineModel, Predict, State, TakesPerturbedBatches
from glas3d.core.perturb import LightAndShadow, PerturbedBatch
from glas3d.core.score import CheckClasses, CovariatesOf, covariate_tensors, evaluate
from glas3d.errors import GlasError, GlasWarning


@dataclass(frozen=True, eq=False)
class Probe:
    """The intact scan and one light and shadow of it, as the model itself evaluates them.

    Attributes
    ----------
    predict, inputs, covariates
        The model bound to the volume, on no engine; see `LightAndShadow` and `score.evaluate_all`.
    numbers
        The inputs of the trial, in the numbers of `Perturbations`: a light, the intact scan, a shadow. Where one end
        alone is evaluated, a light or shadow and the intact scan.
    expected
        ``(3, k)`` or ``(2, k)`` float64, the outputs; of the scan with which the model was tried.
    one_by_one
        Why inputs have to be evaluated one at a time; empty: batches may have any size.
    known
        Whether the model was tried with another scan, and has not changed since.
    """

    predict: Predict
    inputs: LightAndShadow
    covariates: CovariatesOf | None
    numbers: tuple[int, ...]
    expected: np.ndarray
    one_by_one: str = ""
    known: bool = False

    @classmethod
    def of(
        cls,
        predict: Predict,
        inputs: LightAndShadow,
        points: np.ndarray,
        batch_size: int,
        *,
        check: CheckClasses = lambda n_classes: None,
        covariates: CovariatesOf | None = None,
        state: State | None = None,
    ) -> Probe:
        """Evaluate the intact scan alone, then inside a second batch, and compare; unless the model was tried before.

        Parameters
        ----------
        predict
            The model bound to the volume, on no engine.
        inputs, covariates
            See `Probe`.
        points
            ``(m, ndim)``; the light and shadow of the one with the largest contrast to the background are used.
        batch_size
            Inputs in a batch of the explanation.
        check
            Called with the number of classes after the first evaluation; it may raise.
        state
            What decides the model's outputs; None: it is tried with every scan.

        Raises
        ------
        GlasError
            The model gives one scan different outputs: by chance, or because it keeps something from before.

        Warns
        -----
        GlasWarning
            The output depends on the other inputs of a batch, so that inputs are evaluated one at a time.
        """
        point = _point_of_contrast(inputs, points)
        first, *second = (1 + kind + 2 * point for kind, masks in enumerate(inputs.ends) if masks is not None)
        numbers = (first, 0, *second)
        tried = _Tried(state, (batch_size, tuple(inputs.volume.shape), covariates is None))
        if (before := tried.outputs()) is not None:
            check(before.shape[1])
            return cls(predict, inputs, covariates, numbers, before, known=True)
        alone = _evaluate(predict, inputs, [0], covariates, 1)
        check(alone.shape[1])
        together = _evaluate(predict, inputs, numbers, covariates, min(batch_size, len(numbers)))
        if together.shape[1] != alone.shape[1]:
            raise GlasError(f"a model must return {alone.shape[1]} classes each time, got {together.shape[1]}")
        allowed = allowed_difference(together)
        if not differ(together[1], alone[0], allowed):
            tried.remember(together)
            return cls(predict, inputs, covariates, numbers, together)
        again = _evaluate(predict, inputs, [0], covariates, 1)
        if differ(again, alone, allowed):
            change = np.abs(again - alone).max()
            raise GlasError(f"{_SAME_OUTPUT} by {change:.2g}: {_cause(predict, inputs, covariates, allowed)}")
        expected = _evaluate(predict, inputs, numbers, covariates, 1)
        if differ(expected[1], alone[0], allowed):
            raise GlasError(f"{_SAME_OUTPUT} by {np.abs(expected[1] - alone[0]).max():.2g}: {_KEEPS}")
        change = np.abs(together[1] - alone[0]).max()
        note = (
            f"the output for a scan depends on the other inputs of its batch (it changed by {change:.2g}), such as by "
            "a normalisation over the batch: inputs are evaluated one at a time"
        )
        warnings.warn(note, GlasWarning, stacklevel=5)
        return cls(predict, inputs, covariates, numbers, expected, note)

    def check_engine(self, predict: Predict, inputs: LightAndShadow, batch_size: int, output: torch.Tensor) -> bool:
        """Compare the engine of a model with the model itself.

        Parameters
        ----------
        predict
            The model on its engine, after its first batch; any other agrees with itself.
        inputs
            The inputs as this model takes them: where its transform was applied to them already, after it.
        batch_size
            Inputs in a batch of the explanation, which the engine is built for.
        output
            ``(n, k)``, what the model gave for that batch; the first row is the intact scan's.

        Returns
        -------
        Whether they agree. If not, the engine was built anew, or another one is used: what it gave is of no use.

        Raises
        ------
        GlasError
            An engine that was chosen by name differs from the network, also when it was built anew.
        """
        if not isinstance(predict, EngineModel) or predict.engine == "eager":
            return True
        numbers, expected = self.numbers, self.expected
        intact: torch.Tensor | None = None
        if self.known:
            if not predict.may_differ():
                return True
            # the engine has evaluated the intact scan already; effects, by which differences are measured, are those
            # that another scan had
            numbers, intact = (0,), output[:1]
            expected = np.vstack([_evaluate(self.predict, self.inputs, numbers, self.covariates, 1), expected])
        agrees = self._agrees(predict, inputs, batch_size, numbers, expected, intact)
        if not agrees:
            self._agrees(predict, inputs, batch_size, numbers, expected)  # what was built anew, on all inputs
        return agrees

    def _agrees(
        self,
        predict: EngineModel,
        inputs: LightAndShadow,
        batch_size: int,
        numbers: tuple[int, ...],
        expected: np.ndarray,
        output: torch.Tensor | None = None,
    ) -> bool:
        """Return whether the engine agrees for some inputs, whose outputs are the first rows of those expected.

        What it gave for the first of them may be known.
        """
        agrees, n, own = True, len(numbers), torch.from_numpy(expected)
        for first in range(0, n, batch_size):
            rows = [(first + row) % n for row in range(batch_size)]
            batch = PerturbedBatch(inputs, [numbers[row] for row in rows])
            covariates = covariate_tensors(self.covariates, batch)
            as_taken = batch if isinstance(predict, TakesPerturbedBatches) else batch.written()
            agrees = predict.check(own, torch.tensor(rows), as_taken, *covariates, output=output) and agrees
        return agrees


# What models were tried with, by what the state of each belongs to.
_tried: weakref.WeakKeyDictionary[Any, dict[Hashable, tuple[tuple[Any, ...], np.ndarray]]] = weakref.WeakKeyDictionary()
_MOST_TRIED = 64  # states of one model; each is a few numbers


class _Tried:
    """What is known of a model by its state, for batches of one shape.

    Parameters
    ----------
    state
        The state; None: nothing is known, or remembered.
    shape
        Identifies the batches.
    """

    def __init__(self, state: State | None, shape: Hashable) -> None:
        self._state, self._key = state, None if state is None else (state.key, shape)

    def outputs(self) -> np.ndarray | None:
        """Return the outputs of the trial with another scan; None: there was none."""
        if self._state is None:
            return None
        kept, outputs = _tried.get(self._state.owner, {}).get(self._key, ((), None))
        same = len(kept) == len(self._state.kept) and all(
            ref() is item for ref, item in zip(kept, self._state.kept, strict=True)
        )
        return outputs if same else None

    def remember(self, outputs: np.ndarray) -> None:
        """Remember the outputs of a trial that has shown no fault."""
        if self._state is None:
            return
        try:  # identities are used again, when their objects are gone
            kept = tuple(weakref.ref(item) for item in self._state.kept)
            of_owner = _tried.setdefault(self._state.owner, {})
        except TypeError:  # an object that cannot be referred to in this way
            return
        if len(of_owner) >= _MOST_TRIED:
            of_owner.clear()
        of_owner[self._key] = kept, outputs


_SAME_OUTPUT = "a model must give the same scan the same output each time, this model's changed"
_KEEPS = "it keeps something from one evaluation to the next"


def _cause(predict: Predict, inputs: LightAndShadow, covariates: CovariatesOf | None, allowed: np.ndarray) -> str:
    """Return why the output for one scan changes: chance, if it repeats after the same seed."""
    outputs = []
    for _ in range(2):
        with _seeded():
            outputs.append(_evaluate(predict, inputs, [0], covariates, 1))
    random_output = not differ(outputs[0], outputs[1], allowed)
    return "it is random, such as by dropout that is always on" if random_output else _KEEPS


@contextmanager
def _seeded() -> Iterator[None]:
    """Seed the generators of torch, NumPy and Python, and leave them as they were."""
    in_python, in_numpy = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            np.random.seed(0)
            random.seed(0)
            yield
    finally:
        random.setstate(in_python)
        np.random.set_state(in_numpy)


def _evaluate(
    predict: Predict,
    inputs: LightAndShadow,
    numbers: list[int] | tuple[int, ...],
    covariates: CovariatesOf | None,
    n: int,
) -> np.ndarray:
    """Return the model's outputs for some inputs, ``n`` in a batch, or one where so many do not fit into memory."""
    parts: list[np.ndarray] = []
    done = 0
    while done < len(numbers):
        batch = PerturbedBatch(inputs, numbers[done : done + n])
        try:
            parts.append(evaluate(predict, batch.written(), *covariate_tensors(covariates, batch)))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if n == 1:
                shape = tuple(inputs.volume.shape)
                raise GlasError(f"one input of {shape} at a time does not fit into memory") from error
            n = 1
            continue
        done += n
    if len({part.shape[1] for part in parts}) > 1:
        classes = [part.shape[1] for part in parts]
        raise GlasError(f"a model must return {classes[0]} classes each time, got {classes[-1]}")
    return np.concatenate(parts)


def _point_of_contrast(inputs: LightAndShadow, points: np.ndarray) -> int:
    """Return the point around which the volume differs most from its background."""
    contrast = (inputs.volume[inputs.channels] - inputs.background[inputs.channels]).abs().sum(dim=0)
    voxels = np.clip(np.rint(points), 0, np.asarray(contrast.shape) - 1).astype(np.int64)
    return int(contrast[tuple(torch.from_numpy(voxels.T))].argmax())
