import weakref

import numpy as np
import pytest
import torch

from glas3d.core import score
from glas3d.core.gaussian import gaussian_masks
from glas3d.core.perturb import LightAndShadow, Perturbations
from glas3d.core.score import class_index, evaluate, evaluate_all, fuse
from glas3d.core.threads import torch_threads
from tests.core.cases import POINTS, Linear, Recorder, refused, volume

BATCH = torch.ones(3, 1, 4, 5)


def perturbations(batch_size):
    intact = torch.from_numpy(volume((7, 9)))
    made = gaussian_masks(POINTS[2], (7, 9), (1.5, 1.5))
    return Perturbations(LightAndShadow(intact, torch.zeros_like(intact), made, made), batch_size)


@pytest.mark.parametrize(
    "output",
    [torch.full((3, 2), 0.5), np.full((3, 2), 0.5, dtype=np.float32), [[0.5, 0.5]] * 3],
)
def test_evaluate_takes_tensors_arrays_and_lists(output):
    probabilities = evaluate(lambda batch: output, BATCH)
    assert probabilities.dtype == np.float64
    assert np.array_equal(probabilities, np.full((3, 2), 0.5))


def test_evaluate_reads_one_number_an_input_as_one_column_and_needs_no_gradient():
    output = torch.tensor([0.1, 0.2, 0.3], requires_grad=True)
    assert evaluate(lambda batch: output, BATCH).shape == (3, 1)


@pytest.mark.parametrize(
    ("output", "match"),
    [
        (torch.ones(2, 2), r"one row of probabilities for each input, \(3, classes\) .*got \(2, 2\)"),
        (torch.ones(3, 2, 1), r"got \(3, 2, 1\)"),
        (torch.ones(3, 0), r"got \(3, 0\)"),
        (torch.tensor(0.5), r"got \(\)"),
        (torch.tensor([[0.5, np.nan]] * 3), "finite probabilities, got .*nan.* for 3 of 3 inputs"),
        (
            torch.tensor([[0.5, 0.5]] * 2 + [[0.5, np.nan]]),
            r"finite probabilities, got \[0\.5, nan\] for 1 of 3 inputs",
        ),
        (torch.tensor([[0.5, np.inf]] * 3), "finite probabilities, got .*inf"),
        (None, "got NoneType"),
        ({"logits": torch.ones(3, 2)}, "one array of probabilities.*got dict"),
        ("AD", "got str"),
    ],
)
def test_evaluate_refuses(output, match):
    with refused(match):
        evaluate(lambda batch: output, BATCH)


def test_evaluate_all_keeps_what_a_model_writes_over():
    """Some models return one buffer again and again."""
    buffer = torch.zeros(3, 1, dtype=torch.float64)

    def count(batch):
        return buffer.add_(1)

    intact, light, shadow, bare = evaluate_all(count, perturbations(3))
    assert np.isnan(bare).all()
    assert intact.tolist() == [1]
    assert light[:, 0].tolist() == [1, 2, 2, 3]
    assert shadow[:, 0].tolist() == [1, 2, 3, 3]


@pytest.mark.parametrize("wanted", [1, None])
def test_torch_has_the_threads_that_an_engine_wants_it_to_have(wanted):
    class Plain:
        def __call__(self, batch):
            seen.append(torch.get_num_threads())
            if len(seen) == stop:
                raise ValueError("broken")
            return batch.mean(dim=(1, 2, 3))

    class Engine(Plain):
        engine, version, engine_threads, torch_threads, notes = "fast", "1.0", 2, wanted, ()

        def may_differ(self):
            return False

        def check(self, expected, rows, batch):
            return True

    model = Plain() if wanted is None else Engine()
    with torch_threads(2):
        for stop in (3, None):
            seen = []
            if stop:
                with pytest.raises(ValueError, match="broken"):
                    evaluate_all(model, perturbations(2))
            else:
                evaluate_all(model, perturbations(2))
            assert seen[:3] == ([2, 1, 1] if wanted else [2, 2, 2])
            assert torch.get_num_threads() == 2


@pytest.mark.parametrize("batch_size", [1, 2, 4, 9])
def test_evaluate_all_keeps_probabilities_in_the_order_of_the_inputs(batch_size):
    weights = np.random.default_rng(1).normal(size=(2, 1, 7, 9))
    intact, light, shadow, _ = evaluate_all(Linear(weights), perturbations(batch_size))
    expected = {}
    for batch, numbers in perturbations(1).batches():
        expected[numbers[0]] = (weights * batch.written()[0].numpy().astype(np.float64)).sum(axis=(1, 2, 3))
    np.testing.assert_allclose(intact, expected[0], rtol=1e-12)
    np.testing.assert_allclose(light, [expected[n] for n in (1, 3, 5, 7)], rtol=1e-12)
    np.testing.assert_allclose(shadow, [expected[n] for n in (2, 4, 6, 8)], rtol=1e-12)


def test_evaluate_all_keeps_no_batch_by_itself(monkeypatch):
    # small ones kept between a network's large ones made the heap grow to gigabytes over thousands of forward passes
    made, alive = [], []
    original = score.evaluate_on_device

    def watched(*given):
        alive.append(sum(output() is not None for output in made))
        output = original(*given)
        made.append(weakref.ref(output))
        return output

    monkeypatch.setattr(score, "evaluate_on_device", watched)
    evaluate_all(Linear(np.ones((7, 9))), perturbations(1))
    assert len(alive) == 9
    assert max(alive) <= 1


def test_evaluate_all_checks_once_before_the_second_batch_and_reports_after_each():
    events = []
    predict = Recorder(Linear(np.ones((3, 1, 7, 9))))

    def recorded(batch):
        events.append("evaluated")
        return predict(batch)

    evaluate_all(recorded, perturbations(4), lambda k: events.append(f"{k} classes"), lambda *n: events.append(n))
    assert events == ["evaluated", "3 classes", (4, 9), "evaluated", (8, 9), "evaluated", (9, 9)]


def test_evaluate_all_refuses_another_number_of_classes():
    outputs = iter([torch.ones(4, 2), torch.ones(4, 3)])
    with refused("return 2 classes each time, got 3"):
        evaluate_all(lambda batch: next(outputs), perturbations(4))


def test_fuse():
    light, drop = np.array([0.5, 0.25]), np.array([0.1, -0.4])
    np.testing.assert_allclose(fuse("product", light, drop, gamma=0.1), [0.1, 0.125])
    np.testing.assert_allclose(fuse("mean", light, drop, 0.2, gamma=0.1), [0.2, -0.175])
    for fusion, alone in (("light", light), ("shadow", np.abs(drop))):
        fused = fuse(fusion, light, drop)
        assert np.array_equal(fused, alone)
        assert not np.shares_memory(fused, alone)


def test_class_index_refuses_a_name_the_answer_has_no_column_for():
    with refused("target must be a class index from 0 to 1, got 2"):
        class_index("c", ("a", "b", "c"), 2)


def test_class_index_takes_names_and_indices():
    assert class_index("AD", ("NC", "AD"), 2) == 1
    assert class_index(0, ("NC", "AD"), 2) == 0
    assert class_index(np.int64(1), None, None) == 1
    assert type(class_index(np.int64(1), None, 2)) is int


@pytest.mark.parametrize(
    ("target", "classes", "n", "match"),
    [
        ("MCI", ("NC", "AD"), 2, r"one of NC \(0\), AD \(1\), got 'MCI'"),
        ("AD", None, 2, "'AD' is a name, but this model names no classes"),
        (2, None, 2, "class index from 0 to 1, got 2"),
        (-1, None, 2, "class index from 0 to 1, got -1"),
        (True, None, 2, "class index or name, got True"),
        (np.True_, None, 2, "class index or name"),
        (1.0, None, 2, "class index or name, got 1.0"),
        (None, None, 2, "class index or name, got None"),
    ],
)
def test_class_index_refuses(target, classes, n, match):
    with refused(match):
        class_index(target, classes, n)
