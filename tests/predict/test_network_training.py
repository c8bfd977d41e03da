from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import torch

from glas3d import GlasError, Predictor
from glas3d.errors import GlasWarning
from glas3d.predict import Recipe, Standardisation, train
from glas3d.predict.scaled_scans import mean_scan
from tests.predict.lessons import SHAPE, lesson, reference

QUICK = Recipe(epochs=8, pretraining=1, batch_size=8, learning_rate=3e-3, sigma=(1.5, 3.0), max_gaussians=1)


@cache
def trained(recipe=QUICK):
    return train(*lesson(), reference(), recipe)


def short(**changed):
    return replace(QUICK, **{"epochs": 1} | changed)


def states(recipe):
    net, standardisation = train(*lesson(), reference(), recipe)
    return {**net.state_dict(), "mean": standardisation.mean, "std": standardisation.std}


def same(state, other):
    return all(torch.equal(state[key], other[key]) for key in state.keys() | other.keys())


def test_an_obvious_difference_is_learned():
    net, standardisation = trained()
    volumes, labels = lesson(40, seed=9)
    p = Predictor(net, "softmax", lambda batch: (batch - standardisation.mean) / standardisation.std, "cpu")(volumes)
    assert (p.argmax(dim=1) == labels).float().mean() > 0.95
    assert not net.training
    assert {p.device.type for p in net.parameters()} == {"cpu"}
    assert all(p.is_contiguous() for p in net.parameters())


def test_the_standardisation_is_that_of_the_intact_training_scans():
    _, standardisation = trained()
    expected = Standardisation.of(lesson()[0])
    assert torch.equal(standardisation.mean, expected.mean)
    assert torch.equal(standardisation.std, expected.std)


def test_one_seed_gives_one_network_bit_for_bit():
    assert torch.get_num_threads() == 1
    torch.manual_seed(1)
    first = states(short())
    torch.manual_seed(2)
    assert same(first, states(short()))


@pytest.mark.parametrize(
    "changed", [{"seed": 1}, {"augmented": 0.0}, {"pretraining": 0}, {"sigma": (3.0, 6.0)}], ids=str
)
def test_other_recipes_give_other_networks(changed):
    assert not same(states(short()), states(short(**changed)))


def test_the_global_generator_is_not_disturbed():
    torch.manual_seed(7)
    expected = torch.rand(4)
    torch.manual_seed(7)
    before = torch.get_rng_state()
    train(*lesson(), reference(), short())
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(torch.rand(4), expected)


def test_what_it_is_given_is_left_alone():
    volumes, labels = (t.clone() for t in lesson())
    control = reference()
    train(volumes, labels, control, short(augmented=1.0))
    assert torch.equal(volumes, lesson()[0])
    assert torch.equal(labels, lesson()[1])
    assert torch.equal(control, reference())


def test_every_epoch_is_reported():
    reports = []
    train(*lesson(), reference(), replace(QUICK, epochs=3, pretraining=2), lambda *report: reports.append(report))
    assert [r[:2] for r in reports] == [("autoencoder", i) for i in (1, 2)] + [("classifier", i) for i in (1, 2, 3)]
    losses = [loss for _, _, loss in reports]
    assert np.isfinite(losses).all()
    assert losses[1] < losses[0]
    assert losses[4] < losses[2]


@pytest.mark.parametrize("classes", [2, 3])
def test_one_output_a_class(classes):
    volumes, labels = lesson(12)
    net, _ = train(volumes, labels if classes == 2 else torch.arange(12) % 3, reference(), short(pretraining=0))
    assert net.classifier[-1].out_features == classes


def test_a_rare_class_counts_as_much():
    """Where there is nothing to learn, both classes are as likely, not as likely as they are frequent."""
    rare = torch.arange(48) % 6 == 0
    controls = torch.cat([lesson(48, seed)[0][::2] for seed in (0, 1)])
    net, s = train(controls, rare.long(), controls.mean(dim=0), replace(QUICK, epochs=2, pretraining=0, augmented=0.0))
    unseen = lesson(40, seed=9)[0][::2]
    p = Predictor(net, "softmax", lambda batch: (batch - s.mean) / s.std, "cpu")(unseen)
    assert 0.35 < p[:, 1].mean() < 0.65


def soft(labels, certain):
    """Probabilities of two classes, ``certain`` for the one of each label."""
    return torch.where(torch.nn.functional.one_hot(labels, 2) == 1, certain, 1 - certain)


def log_odds(net, standardisation, volumes):
    with torch.no_grad():
        logits = net((volumes - standardisation.mean) / standardisation.std)
    return (logits[:, 1] - logits[:, 0]).double().numpy()


def test_probabilities_of_the_classes_are_learned_as_they_are():
    """Also where one class is rare: the cross-entropy of the training scans is least at the labels' own log-odds."""
    volumes, labels = lesson()
    rows = torch.cat([torch.nonzero(labels == 0)[:, 0], torch.nonzero(labels == 1)[:4, 0]])
    truth = soft(labels, 0.8).double()
    recipe = replace(QUICK, epochs=24, augmented=0.0)
    net, standardisation = train(volumes[rows], truth[rows], reference(), recipe)
    found = log_odds(net, standardisation, volumes[rows])
    for group, expected in enumerate((-np.log(4), np.log(4))):
        assert np.median(found[labels[rows] == group]) == pytest.approx(expected, abs=0.25)


def test_class_indices_are_probabilities_of_0_and_1():
    volumes, labels = lesson()
    assert (torch.bincount(labels) == len(labels) // 2).all()
    hard, certain = (train(volumes, y, reference(), short())[0].state_dict() for y in (labels, soft(labels, 1.0)))
    for key, value in hard.items():
        torch.testing.assert_close(certain[key], value, rtol=1e-3, atol=1e-5)


def test_labels_can_follow_what_masks_keep():
    """A function of labels is given the rows of a batch and the share of those scans that the network then sees."""
    volumes, labels = lesson()
    given, inputs = [], []

    class Recording(torch.nn.Sequential):
        def forward(self, batch):
            if self.training:
                inputs.append(batch.clone())
            return super().forward(batch)

    def truth(rows, kept):
        given.append((rows, kept))
        return soft(labels[rows], 0.9)

    def network():
        return Recording(torch.nn.Flatten(), torch.nn.Linear(int(np.prod(SHAPE)), 2))

    _, s = train(volumes, truth, reference(), short(pretraining=0), network=network)
    batches = given[1:]  # the first call counts the classes
    assert len(batches) == len(inputs) > 2
    assert sorted(torch.cat([rows for rows, _ in batches]).tolist()) == list(range(len(volumes)))
    for (rows, kept), seen in zip(batches, inputs, strict=True):
        assert kept.shape == (len(rows), 1, *SHAPE)
        expected = kept * volumes[rows] + (1 - kept) * reference()
        torch.testing.assert_close(seen * s.std + s.mean, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    "bad",
    [torch.full((48, 2), 0.6), torch.tensor([[1.5, -0.5]] * 48), torch.full((48, 1, 1), 1.0), torch.ones(48, 0)],
    ids=["sum", "negative", "3 axes", "no class"],
)
def test_labels_that_are_none_are_refused(bad):
    for labels in (bad, lambda rows, kept: bad[rows]):
        with pytest.raises(GlasError, match=r"labels must be class indices \(n,\) or probabilities \(n, classes\)"):
            train(lesson()[0], labels, reference(), short())


def test_every_scan_has_a_label():
    with pytest.raises(GlasError, match="a label for each of 48 scans, got 47"):
        train(lesson()[0], lesson()[1][:-1], reference(), short())


class Stored:
    """Scans that are indexed like a tensor and are none."""

    def __init__(self, volumes):
        self.volumes, self.shape, self.most = volumes, tuple(volumes.shape), 0

    def __len__(self):
        return len(self.volumes)

    def __getitem__(self, rows):
        self.most = max(self.most, len(rows))
        return self.volumes[rows]


def test_scans_need_not_be_in_memory():
    volumes, labels = lesson()
    stored = Stored(volumes)
    assert torch.equal(mean_scan(stored), volumes.double().mean(dim=0).float())
    some = torch.tensor([3, 5, 40])
    torch.testing.assert_close(mean_scan(stored, some), volumes[some].mean(dim=0))
    expected = Standardisation.of(volumes)
    net, standardisation = train(stored, labels, reference(), short())
    torch.testing.assert_close(standardisation.mean, expected.mean)
    torch.testing.assert_close(standardisation.std, expected.std)
    assert standardisation.std.min() == expected.std.min()
    assert stored.most < len(volumes) / 2
    assert not net.training


def validated(validation, recipe=None):
    reports = []
    net, _ = train(
        *lesson(), reference(), recipe or short(epochs=4), lambda *report: reports.append(report), validation=validation
    )
    return net, reports


def test_validation_scans_choose_the_epoch_and_nothing_else():
    volumes, labels = lesson(16, seed=5)
    recipe = replace(QUICK, epochs=4)
    net, reports = validated((volumes, labels), recipe)
    losses = [loss for stage, _, loss in reports if stage == "validation"]
    assert [epoch for stage, epoch, _ in reports if stage == "validation"] == [1, 2, 3, 4]
    assert [report for report in reports if report[0] != "validation"] == validated(None, recipe)[1]

    def logits(scans):
        s = Standardisation.of(lesson()[0])
        with torch.inference_mode():
            return net((scans - s.mean) / s.std)

    loss = torch.nn.functional.cross_entropy(logits(volumes), labels)
    assert float(loss) == pytest.approx(min(losses), abs=1e-5)
    assert len(set(losses)) == 4


def test_a_validation_part_that_knows_better_keeps_an_earlier_epoch():
    """Labels turned round: the longer the training, the worse it is for them."""
    volumes, labels = lesson(16, seed=5)
    recipe = replace(QUICK, epochs=6)
    net, reports = validated((volumes, 1 - labels), recipe)
    losses = [loss for stage, _, loss in reports if stage == "validation"]
    assert losses.index(min(losses)) < 5
    last, _ = validated(None, recipe)
    assert not same(net.state_dict(), last.state_dict())


def test_patience_ends_the_training():
    volumes, labels = lesson(16, seed=5)
    recipe = replace(QUICK, epochs=8)
    _, every = validated((volumes, 1 - labels), recipe)
    losses = [loss for stage, _, loss in every if stage == "validation"]
    _, reports = validated((volumes, 1 - labels), replace(recipe, patience=2))
    best, at, end = float("inf"), 0, 8
    for i, loss in enumerate(losses):
        best, at = (loss, i) if loss < best else (best, at)
        if i - at == 2:
            end = i + 1
            break
    assert end < 8
    assert [loss for stage, _, loss in reports if stage == "validation"] == losses[:end]


def test_another_network():
    networks = []

    def network():
        networks.append(torch.nn.Sequential(torch.nn.AvgPool3d(4), torch.nn.Flatten(), torch.nn.LazyLinear(2)))
        return networks[-1]

    net, _ = train(*lesson(), reference(), short(pretraining=0), network=network)
    assert net is networks[0]
    assert not net.training
    with pytest.warns(GlasWarning, match="Sequential is not pre-trained"):
        train(*lesson(), reference(), short(), network=network)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (lambda: 3, "a network to train must be a torch module, got int"),
        (lambda: torch.nn.Flatten(), r"\(2, 2\) logits for a batch of 2, got \(2, 5760\)"),
        (lambda: torch.nn.Linear(3, 2), r"does not take a batch of \(2, 1, 16, 18, 20\): "),
    ],
)
def test_networks_that_cannot_be_trained(network, message):
    with pytest.raises(GlasError, match=message):
        train(*lesson(), reference(), short(), network=network)


class Leaves(torch.nn.Module):
    """Ends the program by an exception, when it is trained or evaluated."""

    def __init__(self, end, in_training):
        super().__init__()
        self.end, self.in_training = end, in_training
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def forward(self, batch):
        if self.training is self.in_training:
            raise self.end
        return torch.zeros(len(batch), 2)


def leave(end):
    raise end


@pytest.mark.parametrize(
    "end", [SystemExit(0), GeneratorExit(), ZeroDivisionError()], ids=lambda end: type(end).__name__
)
@pytest.mark.parametrize(
    ("given", "message"),
    [
        (lambda end: {"network": lambda: leave(end)}, "the network cannot be made: "),
        (lambda end: {"network": lambda: Leaves(end, False)}, r"the network does not take a batch of \(2, 1, 16, "),
        (
            lambda end: {"network": lambda: Leaves(end, True)},
            r"the network cannot be trained on a batch of \(\d+, 1, ",
        ),
        (lambda end: {"transform": lambda _: leave(end)}, r"the transform does not take a training scan of \(1, 16, "),
    ],
)
def test_code_of_others_that_fails_or_leaves_is_an_error(end, given, message):
    with pytest.raises(GlasError, match=f"{message}.*{type(end).__name__}"):
        train(*lesson(), reference(), short(pretraining=0), **given(end))


def test_training_scans_alone_are_changed():
    seen = []

    def change(volume):
        seen.append(volume.shape)
        return volume * 0.5

    recipe = short(pretraining=1, augmented=0.0)
    validation = lesson(16, seed=5)
    net, _ = train(*lesson(), reference(), recipe, validation=validation, transform=change)
    assert seen == [(1, *SHAPE)] * 48  # an epoch of the classifier
    plain, _ = train(*lesson(), reference(), recipe, validation=validation)
    assert not same(net.state_dict(), plain.state_dict())


def test_a_random_change_is_seeded():
    class Noise:
        def set_random_state(self, seed):
            self.rng = np.random.default_rng(seed)

        def __call__(self, volume):
            return volume + torch.as_tensor(self.rng.normal(0, 0.1, volume.shape), dtype=torch.float32)

    noise = Noise()
    first, second = (train(*lesson(), reference(), short(), transform=noise)[0] for _ in range(2))
    assert same(first.state_dict(), second.state_dict())
    torchs = [train(*lesson(), reference(), short(), transform=lambda v: v + torch.randn(v.shape))[0] for _ in range(2)]
    assert same(torchs[0].state_dict(), torchs[1].state_dict())


def test_one_scan_is_no_training():
    with pytest.raises(GlasError, match="training needs at least 2 scans, got 1"):
        train(lesson()[0][:1], lesson()[1][:1], reference(), QUICK)


def test_patience_below_0_is_refused():
    with pytest.raises(GlasError, match="patience must be 0 or more epochs, got -1"):
        Recipe(patience=-1)


@pytest.mark.parametrize("bad", [{"ramp": -0.1}, {"ramp": 1.1}], ids=str)
def test_impossible_ramps_are_refused(bad):
    with pytest.raises(GlasError, match="ramp must be a share of the epochs from 0 to 1"):
        Recipe(**bad)


@pytest.mark.parametrize(
    ("ramp", "expected"), [(0.0, [0.8] * 4), (0.5, [0.4, 0.8, 0.8, 0.8]), (1.0, [0.2, 0.4, 0.6, 0.8])], ids=str
)
def test_light_and_shadow_come_in_over_the_first_epochs(monkeypatch, ramp, expected):
    shares = []

    def watch(batch, towards, recipe, generator):
        shares.append(recipe.augmented)
        return batch, torch.ones_like(batch)

    monkeypatch.setattr("glas3d.predict.network_training.light_or_shade", watch)
    train(*lesson(), reference(), short(epochs=4, augmented=0.8, ramp=ramp))
    steps = len(shares) // 4
    np.testing.assert_allclose(shares[::steps], expected)
    assert len(set(zip(shares, [i // steps for i in range(len(shares))], strict=True))) == 4


def test_label_smoothing_bounds_the_log_odds():
    """The least loss of two classes smoothed by 0.2 is at log-odds of log(0.9 / 0.1)."""
    volumes = lesson(40, seed=9)[0]
    sizes = {}
    for smoothing in (0.0, 0.2):
        net, standardisation = trained(replace(QUICK, epochs=16, augmented=0.0, label_smoothing=smoothing))
        with torch.no_grad():
            logits = net((volumes - standardisation.mean) / standardisation.std)
        sizes[smoothing] = float((logits[:, 1] - logits[:, 0]).abs().median())
    assert 0.6 * np.log(9) < sizes[0.2] < 1.3 * np.log(9) < sizes[0.0]


@pytest.mark.parametrize("share", [-0.1, 1.0, float("nan")])
def test_a_label_is_smoothed_by_a_share(share):
    with pytest.raises(GlasError, match="label_smoothing must be a share from 0 to below 1, got"):
        Recipe(label_smoothing=share)


@pytest.mark.parametrize("bad", [{"epochs": 0}, {"pretraining": -1}, {"batch_size": 1}], ids=str)
def test_impossible_recipes_are_refused(bad):
    with pytest.raises(GlasError, match="at least 1 epoch, 0 of pre-training, and 2 scans a batch"):
        Recipe(**bad)
