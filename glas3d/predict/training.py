"""Train the paper's network: autoencoder first, then the classifier, with light and shadow as augmentation."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from glas3d.core.gaussian import spots
from glas3d.core.perturb import blend
from glas3d.errors import GlasError
from glas3d.predict.networks import Autoencoder, PaperNet
from glas3d.predict.transform import Standardisation


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """How a network is trained.

    Parameters
    ----------
    epochs
        Passes over the training scans.
    pretraining
        Passes of the autoencoder before that; 0: none.
    batch_size
        Scans a step.
    learning_rate, weight_decay
        Of AdamW; the rate falls to 0 along a cosine.
    dropout
        Of the dense inputs.
    augmented
        Share of scans lit or shaded by a random Gaussians towards the reference, so that perturbed scans
        are familiar to the network (docs/darkness.md tells why).
    lit
        Share of those that are lit; the others are shaded.
    spots
        Most Gaussians a scan; one to this many are joined, so that any of the disease's places may be all
        that is left to see.
    sigma
        Smallest and largest standard deviation of the Gaussians, in voxels.
    seed
        Of weights, order and augmentation.
    """

    epochs: int = 60
    pretraining: int = 1
    batch_size: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    dropout: float = 0.0
    augmented: float = 0.9
    lit: float = 0.7
    spots: int = 5
    sigma: tuple[float, float] = (1.5, 5.0)
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.pretraining < 0 or self.batch_size < 2:
            raise GlasError("a recipe needs at least 1 epoch, 0 of pre-training, and 2 scans a batch")


Report = Callable[[str, int, float], None]


def train(
    scaled: torch.Tensor,
    labels: torch.Tensor,
    reference: torch.Tensor,
    recipe: Recipe,
    report: Report = lambda stage, epoch, loss: None,
) -> tuple[PaperNet, Standardisation]:
    """Train the paper's network with batch norm on scaled scans.

    Parameters
    ----------
    scaled
        ``(n, c, *spatial)``, each scan divided by its `intensity_scale`.
    labels
        ``(n,)`` class indices.
    reference
        ``(c, *spatial)`` control mean on the same scale.
    report
        Called with stage, epoch and mean loss after every epoch.

    Returns
    -------
    The network in eval mode, and the standardisation its inputs need.
    """
    generator = torch.Generator().manual_seed(recipe.seed)
    standardisation = Standardisation.of(scaled)
    classes = int(labels.max()) + 1
    weight = len(labels) / (classes * torch.bincount(labels, minlength=classes).clamp_min(1).float())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        net = PaperNet(scaled.shape[2:], scaled.shape[1], classes, batch_norm=True, dropout=recipe.dropout)
        if recipe.pretraining:
            autoencoder = Autoencoder(scaled.shape[1], batch_norm=True)

            def reconstruct(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
                return nn.functional.mse_loss(autoencoder(x), x)

            _descend(
                "autoencoder", autoencoder, reconstruct, recipe.pretraining,
                scaled, labels, standardisation, None, recipe, generator, report,
            )  # fmt: skip
            net.encoder.load_state_dict(autoencoder.encoder.state_dict())

        def classify(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(net(x), y, weight=weight)

        _descend(
            "classifier", net, classify, recipe.epochs,
            scaled, labels, standardisation, reference, recipe, generator, report,
        )  # fmt: skip
    net.eval().to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return net, standardisation


def _descend(
    stage: str,
    module: nn.Module,
    loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
    epochs: int,
    scaled: torch.Tensor,
    labels: torch.Tensor,
    standardisation: Standardisation,
    reference: torch.Tensor | None,
    recipe: Recipe,
    generator: torch.Generator,
    report: Report,
) -> None:
    # channels last: the convolutions of few filters are a third faster for it
    module.train().to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
    optimiser = torch.optim.AdamW(module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
    steps = max(1, len(scaled) // recipe.batch_size)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, max_lr=recipe.learning_rate, total_steps=epochs * steps, pct_start=0.15
    )
    for epoch in range(epochs):
        order = torch.randperm(len(scaled), generator=generator)
        total = 0.0
        for step in range(steps):
            chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
            batch = scaled[chosen]
            if reference is not None:
                batch = light_or_shade(batch, reference, recipe, generator)
            standardised = (batch - standardisation.mean) / standardisation.std
            loss = loss_of(standardised.contiguous(memory_format=torch.channels_last_3d), labels[chosen])
            optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            schedule.step()
            total += float(loss.detach())
        report(stage, epoch + 1, total / steps)


def light_or_shade(
    batch: torch.Tensor, reference: torch.Tensor, recipe: Recipe, generator: torch.Generator
) -> torch.Tensor:
    """Light or shade a random spot of some scans towards the reference.

    Parameters
    ----------
    batch
        ``(n, c, *spatial)`` scaled scans.
    reference
        ``(c, *spatial)``; the spots lie where it is bright.

    Returns
    -------
    A new batch of the same shape.
    """
    inside = torch.nonzero(reference[0] > 0.1)
    shape = batch.shape[2:]
    low, high = recipe.sigma
    out = batch.clone()
    for row in range(len(batch)):
        chance, kind, size = torch.rand(3, generator=generator).tolist()
        if chance >= recipe.augmented:
            continue
        count = 1 + int(torch.randint(recipe.spots, (1,), generator=generator))
        at = inside[torch.randint(len(inside), (count,), generator=generator)]
        sigma = low * (high / low) ** size
        masks = spots(at.numpy(), shape, [sigma] * len(shape)).masks(0, torch.empty((count, *shape)))
        mask = 1 - (1 - masks).prod(dim=0, keepdim=True)
        lit = kind < recipe.lit
        below, above = (reference, batch[row]) if lit else (batch[row], reference)
        blend(below, above, mask, out=out[row : row + 1])
    return out
