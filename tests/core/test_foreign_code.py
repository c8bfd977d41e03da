"""Whatever a model raises becomes one sentence: which error, from which line, with the original as its cause."""

import json

import numpy as np
import pytest
import torch

from glas3d import GLAS, RGLAS, GlasError, GlasWarning, Grid
from glas3d.core.foreign_code import failures_of
from glas3d.core.model import CannotRecompute

VOLUME = torch.rand(1, 5, 6, 7, generator=torch.Generator().manual_seed(0))


class Own(Exception):
    """An error of somebody's own."""


class Speechless(Exception):
    """An error that fails to say what it is."""

    def __str__(self):
        raise ValueError("no words")


ERRORS = {
    "ValueError: bad value": ValueError("bad value\nand a second line"),
    "KeyError: 'weights'": KeyError("weights"),
    "IndexError": IndexError(),
    "NotImplementedError": NotImplementedError(),
    "AssertionError: only 2D": AssertionError("only 2D"),
    "RuntimeError: shapes": RuntimeError("shapes"),
    "StopIteration": StopIteration(),
    "RecursionError: too deep": RecursionError("too deep"),
    "FileNotFoundError: [Errno 2] No such file: 'x.npy'": FileNotFoundError(2, "No such file", "x.npy"),
    "UserWarning: strange": UserWarning("strange"),
    "Own: mine": Own("mine"),
    "Speechless": Speechless(),
}


def explained(model):
    return GLAS(model, sigma_light=1, sigma_shadow=1).explain(VOLUME, 0, Grid(2))


@pytest.mark.parametrize(("text", "error"), ERRORS.items(), ids=ERRORS)
def test_an_error_of_a_callable_is_named_with_its_line(text, error):
    def model(batch):
        raise error

    with pytest.raises(GlasError) as caught:
        explained(model)
    line = model.__code__.co_firstlineno + 1
    place = f"(test_foreign_code.py, line {line}, in model)"
    assert str(caught.value) == f"the model does not take a batch of (1, 1, 5, 6, 7): {text} {place}"
    assert caught.value.__cause__ is error


def test_an_error_within_a_library_is_placed_where_the_library_was_called():
    def model(batch):
        json.loads("{")
        return torch.ones(len(batch), 2)

    def model_in_torch(batch):
        return torch.nn.functional.linear(batch.flatten(1), torch.ones(2, 3))

    with pytest.raises(GlasError, match=r"JSONDecodeError: .* \(decoder\.py, line \d+, in raw_decode\)$"):
        explained(model)
    line = model_in_torch.__code__.co_firstlineno + 1
    with pytest.raises(
        GlasError, match=rf"RuntimeError: .* \(test_foreign_code\.py, line {line}, in model_in_torch\)$"
    ):
        explained(model_in_torch)


def test_an_error_in_the_middle_of_an_explanation():
    def model(batch):
        if len(seen) > 3:
            raise Own("the service is gone")
        seen.append(len(batch))
        return batch.flatten(1)[:, :2]

    seen = []
    for explain in (GLAS.explain, lambda glas, *inputs: RGLAS(glas).explain(*inputs)):
        seen.clear()
        with pytest.raises(GlasError, match="Own: the service is gone") as caught:
            explain(GLAS(model, sigma_light=1, sigma_shadow=1, batch_size=2), VOLUME, 0, Grid(3))
        assert isinstance(caught.value.__cause__, Own)
        assert len(seen) == 4


def test_an_error_while_fitting():
    class Model:
        def fit(self, volume):
            raise Own("constant scan")

        def __call__(self, batch):
            return torch.ones(len(batch), 2)

    with pytest.raises(GlasError, match=r"cannot be fitted to a scan of \(1, 5, 6, 7\): Own: constant scan \(test_"):
        explained(Model())


@pytest.mark.parametrize(
    "error", [GlasError("ours"), GlasWarning("ours"), CannotRecompute("ours"), KeyboardInterrupt()]
)
def test_our_own_errors_and_interruptions_pass(error):
    with pytest.raises(type(error)) as caught, failures_of("a task"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("CUDA out of memory"), Own("cannot allocate memory")])
def test_a_lack_of_memory_passes_so_that_batches_become_smaller(error):
    with pytest.raises(type(error)) as caught, failures_of("a task"):
        raise error
    assert caught.value is error


@pytest.mark.parametrize(
    ("output", "kind"),
    [
        (lambda n: torch.ones(n, 2).to_sparse(), r"a sparse tensor \(torch.sparse_coo\)"),
        (lambda n: torch.ones(n, 2, device="meta"), "a tensor on the meta device, where it has no values"),
        (lambda n: torch.ones(n, 2, dtype=torch.complex64), "numbers of torch.complex64"),
        (lambda n: np.ones((n, 2), dtype=np.complex128), "ndarray"),
        (lambda n: torch.nested.nested_tensor([torch.ones(2)] * n), "a nested tensor"),
        (lambda n: [object()] * n, "list"),
        (lambda n: None, "NoneType"),
    ],
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_outputs_that_are_no_array_of_probabilities_are_refused(output, kind):
    with pytest.raises(GlasError, match=rf"must return one array of probabilities, \(n, classes\), got {kind}$"):
        explained(lambda batch: output(len(batch)))


class Leaves(BaseException):
    """An end that is no error, of somebody's own."""


@pytest.mark.parametrize("end", [SystemExit(0), SystemExit("bye"), GeneratorExit(), Leaves()])
def test_a_model_that_ends_the_program_has_failed(end):
    def model(batch):
        raise end

    with pytest.raises(GlasError, match=rf"does not take a batch of \(1, 1, 5, 6, 7\): {type(end).__name__}") as caught:
        explained(model)
    assert "\n" not in str(caught.value)


def test_ctrl_c_in_a_model_stays_ctrl_c():
    def model(batch):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        explained(model)
