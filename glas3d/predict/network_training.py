"""Train the paper's network: autoencoder first, then the classifier, with light and shadow as augmentation."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeGuard

import torch
from torch import nn

from glas3d.core.foreign_code import failures_of
from glas3d.errors import GlasError, GlasWarning
from glas3d.predict.augmentation import light_or_shade
from glas3d.predict.intensity import Intensities, Standardisation
from glas3d.predict.interface import Transform
from glas3d.predict.networks import Autoencoder, PaperNet
from glas3d.predict.recipe import Recipe
from glas3d.predict.scaled_scans import ScaledScans, in_parts, standardisation_of

Report = Callable[[str, int, float], None]
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Augment = Callable[[torch.Tensor, float], tuple[torch.Tensor, torch.Tensor]]
LabelsUnderMasks = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Labels = torch.Tensor | LabelsUnderMasks
Labelled = tuple[ScaledScans, Labels]


def train(
    scaled: ScaledScans,
    labels: Labels,
    reference: torch.Tensor,
    recipe: Recipe,
    report: Report = lambda stage, epoch, loss: None,
    *,
    validation: Labelled | None = None,
    network: Callable[[], nn.Module] | None = None,
    transform: Transform | None = None,
    device: str | torch.device = "cpu",
    intensities: Intensities = "relative",
) -> tuple[nn.Module, Standardisation]:
    """Train the paper's network with batch normalisation, or another network, on scaled scans.

    Parameters
    ----------
    scaled
        ``(n, c, *spatial)``, each scan divided by its `intensity_scale`, or as it is if intensities are absolute.
    labels
        ``(n,)`` class indices; every class counts the same, however many scans it has. Or ``(n, classes)``
        probabilities of the classes, which the network learns to return (soft labels). Or a function that returns
        those of some scans, ``(b, classes)``, from their row numbers ``(b,)`` and from the share of each voxel that
        light and shadow keep, ``(b, 1, *spatial)``: where the disease of each region is known, what a mask removes
        need not stay in the label, as in CutMix (Yun et al. 2019, doi:10.1109/ICCV.2019.00612).
    reference
        ``(c, *spatial)``, the mean of the control group on the same scale.
    recipe
        The settings of the training.
    report
        Called with stage (``autoencoder``, ``classifier``, ``validation``), epoch and mean loss after every epoch.
    validation
        Other scans and labels that decide which epoch is best, and when to stop; they have no other influence.
    network
        Makes the network, ``(n, c, *spatial)`` to ``(n, classes)`` logits; None: the paper's. Only a network whose
        ``encoder`` is the paper's is pre-trained.
    transform
        Applied to each training scan ``(c, *spatial)`` before light and shadow, such as one of MONAI's
        transforms; a random one is seeded when it has ``set_random_state`` or draws from torch.
    device
        Where the network is trained; scans are perturbed on the CPU.
    intensities
        ``"absolute"`` if the scans were not scaled, so that those to come are not either.

    Returns
    -------
    The network in eval mode, and the standardisation that its inputs need, both on the CPU.

    Raises
    ------
    GlasError
        Fewer scans than a batch needs, labels that are neither class indices nor probabilities, or a network that does
        not return one logit for each class.

    Warns
    -----
    GlasWarning
        Pre-training was wanted and the network cannot take it.
    """
    if len(scaled) < 2:
        raise GlasError(f"training needs at least 2 scans, got {len(scaled)}")
    device = torch.device(device)
    training = _Training(
        scaled=scaled,
        labels=labels,
        n_classes=_number_of_classes(labels, scaled),
        standardisation=replace(standardisation_of(scaled), intensities=intensities),
        recipe=recipe,
        generator=torch.Generator().manual_seed(recipe.seed),
        report=report,
        device=device,
    )
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        torch.manual_seed(recipe.seed)
        net = training.paper_network() if network is None else training.checked(network)
        if transform is not None and hasattr(transform, "set_random_state"):
            transform.set_random_state(seed=recipe.seed)
        if recipe.pretraining:
            training.pretrain(net)
        training.fit_classifier(net, reference, transform, validation)
    net.eval().to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return net, training.standardisation


@dataclass(frozen=True, kw_only=True, eq=False)
class _Training:
    """The training scans, and the two stages in which a network is trained on them."""

    scaled: ScaledScans
    labels: Labels
    n_classes: int
    standardisation: Standardisation
    recipe: Recipe
    generator: torch.Generator
    report: Report
    device: torch.device

    def paper_network(self) -> nn.Module:
        _, channels, *spatial = self.scaled.shape
        return PaperNet(spatial, channels, self.n_classes, batch_norm=True, dropout=self.recipe.dropout)

    def checked(self, network: Callable[[], object]) -> nn.Module:
        """Make a network and evaluate it once, so that one that cannot be trained is refused in words."""
        with failures_of("the network cannot be made"):
            net = network()
        if not isinstance(net, nn.Module):
            raise GlasError(f"a network to train must be a torch module, got {type(net).__name__}")
        shape = (2, *self.scaled.shape[1:])
        # in inference mode, lazy layers would make weights that cannot be trained
        with failures_of(f"the network does not take a batch of {shape}"), torch.no_grad():
            output = net.eval()(torch.zeros(shape))
        came = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        if came != (2, self.n_classes):
            raise GlasError(f"a network to train must return (2, {self.n_classes}) logits for a batch of 2, got {came}")
        return net

    def pretrain(self, net: nn.Module) -> None:
        """Train an autoencoder, and give its encoder's weights to the network if they fit."""
        autoencoder = Autoencoder(self.scaled.shape[1], batch_norm=True)
        encoder = getattr(net, "encoder", None)
        if not isinstance(encoder, nn.Module) or not _same_shapes(encoder, autoencoder.encoder):
            message = f"{type(net).__name__} is not pre-trained: its encoder is not that of the paper's network"
            warnings.warn(message, GlasWarning, stacklevel=3)
            return

        def reconstruction_loss(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
            return nn.functional.mse_loss(autoencoder(x), x)

        self._optimise("autoencoder", autoencoder, reconstruction_loss, self.recipe.pretraining)
        encoder.load_state_dict(autoencoder.encoder.state_dict())

    def fit_classifier(
        self, net: nn.Module, reference: torch.Tensor, transform: Transform | None, validation: Labelled | None
    ) -> None:
        """Train the network on augmented scans."""
        weight = torch.ones(self.n_classes)
        if _are_indices(self.labels):
            counts = torch.bincount(self.labels, minlength=self.n_classes).clamp_min(1)
            weight = len(self.labels) / (self.n_classes * counts.float())

        def classification_loss(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(
                net(x), y, weight=weight.to(x.device), label_smoothing=self.recipe.label_smoothing
            )

        def augment(batch: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor]:
            if transform is not None:
                with failures_of(f"the transform does not take a training scan of {tuple(batch.shape[1:])}"):
                    scans = [torch.as_tensor(transform(scan)).as_subclass(torch.Tensor) for scan in batch]
                    batch = torch.stack(scans)
            recipe = replace(self.recipe, augmented=self.recipe.augmented * share)
            return light_or_shade(batch, reference, recipe, self.generator)

        self._optimise("classifier", net, classification_loss, self.recipe.epochs, augment, validation)

    def _optimise(
        self,
        stage: str,
        module: nn.Module,
        loss_of: Loss,
        epochs: int,
        augment: Augment | None = None,
        validation: Labelled | None = None,
    ) -> None:
        """Fit a module; with validation scans its weights are those of the best epoch."""
        recipe, n = self.recipe, len(self.scaled)
        # channels last: convolutions of few filters are a third faster with it
        module.train().to(self.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        optimiser = torch.optim.AdamW(module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        steps = max(1, n // recipe.batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=recipe.learning_rate, total_steps=epochs * steps, pct_start=0.15
        )
        best = _BestEpoch()
        for epoch in range(epochs):
            share = min(1.0, (epoch + 1) / (recipe.ramp * epochs)) if recipe.ramp else 1.0
            order = torch.randperm(n, generator=self.generator)
            total = 0.0
            for step in range(steps):
                rows = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
                batch = self.scaled[rows]
                batch, kept = (batch, _all_kept(batch)) if augment is None else augment(batch, share)
                with failures_of(f"the network cannot be trained on a batch of {tuple(batch.shape)}"):
                    loss = loss_of(self._standardised(batch), _labels_of(self.labels, rows, kept).to(self.device))
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
                total += float(loss.detach())
            self.report(stage, epoch + 1, total / steps)
            if validation is None:
                continue
            validation_loss = self._mean_loss(module, loss_of, *validation)
            self.report("validation", epoch + 1, validation_loss)
            best.update(validation_loss, module)
            if recipe.patience and best.epochs_since >= recipe.patience:
                break
        best.restore(module)

    def _standardised(self, batch: torch.Tensor) -> torch.Tensor:
        batch = (batch - self.standardisation.mean) / self.standardisation.std
        return batch.to(self.device).contiguous(memory_format=torch.channels_last_3d)

    def _mean_loss(self, module: nn.Module, loss_of: Loss, scaled: ScaledScans, labels: Labels) -> float:
        """Return the mean loss over scans, in eval mode."""
        module.eval()
        total = 0.0
        with torch.no_grad():  # not inference mode: what a module keeps of its input could not be trained with
            for rows in in_parts(torch.arange(len(scaled))):
                batch = scaled[rows]
                truth = _labels_of(labels, rows, _all_kept(batch)).to(self.device)
                total += float(loss_of(self._standardised(batch), truth)) * len(rows)
        module.train()
        return total / len(scaled)


@dataclass
class _BestEpoch:
    """The epoch with the smallest validation loss so far."""

    loss: float = float("inf")
    epochs_since: int = 0
    state: dict[str, Any] = field(default_factory=dict)

    def update(self, loss: float, module: nn.Module) -> None:
        """Note the loss of the next epoch, and keep the weights if it is the smallest."""
        self.epochs_since += 1
        if loss < self.loss:
            self.loss, self.epochs_since, self.state = loss, 0, copy.deepcopy(module.state_dict())

    def restore(self, module: nn.Module) -> None:
        """Give a module the weights of the best epoch, if there is one."""
        if self.state:
            module.load_state_dict(self.state)


def _are_indices(labels: Labels) -> TypeGuard[torch.Tensor]:
    """Return whether labels are class indices, and not probabilities or what computes them."""
    return isinstance(labels, torch.Tensor) and labels.ndim == 1


def _labels_of(labels: Labels, rows: torch.Tensor, kept: torch.Tensor) -> torch.Tensor:
    """Return the labels of some scans, of which masks keep a share."""
    truth = labels[rows] if isinstance(labels, torch.Tensor) else labels(rows, kept)
    return truth.float() if truth.is_floating_point() else truth


def _all_kept(batch: torch.Tensor) -> torch.Tensor:
    """Return the share of each voxel that is kept of scans that are neither lit nor shaded."""
    return batch.new_ones((len(batch), 1, *batch.shape[2:]))


def _number_of_classes(labels: Labels, scaled: ScaledScans) -> int:
    """Return how many classes labels have, after a check that they are labels of the scans."""
    if isinstance(labels, torch.Tensor) and len(labels) != len(scaled):
        raise GlasError(f"training needs a label for each of {len(scaled)} scans, got {len(labels)}")
    if _are_indices(labels):
        return int(labels.max()) + 1
    rows = torch.arange(2)
    truth = labels if isinstance(labels, torch.Tensor) else labels(rows, _all_kept(scaled[rows]))
    if truth.ndim != 2 or not (truth >= 0).all() or (truth.sum(dim=1) - 1).abs().max() > 1e-4:
        raise GlasError(
            "labels must be class indices (n,) or probabilities (n, classes) that sum to 1, got a tensor of shape "
            f"{tuple(truth.shape)} whose rows do not"
        )
    return int(truth.shape[1])


def _same_shapes(module: nn.Module, other: nn.Module) -> bool:
    """Return whether the weights of one module fit another."""
    shapes, other_shapes = ({key: value.shape for key, value in m.state_dict().items()} for m in (module, other))
    return shapes == other_shapes
