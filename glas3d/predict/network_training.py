"""Train the paper's network: autoencoder first, then the classifier, with light and shadow as augmentation."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import nn

from glas3d.core.gaussian import gaussian_masks
from glas3d.core.perturb import blend
from glas3d.errors import GlasError, GlasWarning, reason
from glas3d.predict.intensity import SMALLEST_DEVIATION, Standardisation
from glas3d.predict.networks import Autoencoder, PaperNet

_CHUNK = 16  # scans in memory at once, when they are not there already


class Scans(Protocol):
    """Scaled scans: a tensor ``(n, c, *spatial)``, or what is indexed like one and reads from disk."""

    @property
    def shape(self) -> Any:
        """``(n, c, *spatial)``."""

    def __len__(self) -> int: ...

    def __getitem__(self, rows: Any, /) -> torch.Tensor: ...


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
    ramp
        Share of the epochs over which augmentation comes in, from none to all of it. A network that meets it at once
        may see too little of the disease to begin learning, and stays at an even answer.
    lit
        Share of those that are lit; the others are shaded.
    spots
        Most Gaussians a scan; one to this many are joined, so that any of the disease's places may be all
        that is left to see.
    sigma
        Smallest and largest standard deviation of the Gaussians, in voxels.
    patience
        Epochs without a better loss of the validation scans, where there are any, before the classifier stops;
        0: never. The weights of the best epoch are kept either way.
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
    ramp: float = 0.4
    lit: float = 0.7
    spots: int = 5
    sigma: tuple[float, float] = (1.5, 5.0)
    patience: int = 0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.pretraining < 0 or self.batch_size < 2:
            raise GlasError("a recipe needs at least 1 epoch, 0 of pre-training, and 2 scans a batch")
        if self.patience < 0:
            raise GlasError(f"patience must be 0 or more epochs, got {self.patience}")
        if not 0 <= self.ramp <= 1:
            raise GlasError(f"ramp must be a share of the epochs from 0 to 1, got {self.ramp}")


Report = Callable[[str, int, float], None]
Change = Callable[[torch.Tensor], torch.Tensor]


def train(
    scaled: Scans,
    labels: torch.Tensor,
    reference: torch.Tensor,
    recipe: Recipe,
    report: Report = lambda stage, epoch, loss: None,
    *,
    validation: tuple[Scans, torch.Tensor] | None = None,
    network: Callable[[], nn.Module] | None = None,
    change: Change | None = None,
    device: str | torch.device = "cpu",
) -> tuple[nn.Module, Standardisation]:
    """Train the paper's network with batch norm, or another, on scaled scans.

    Parameters
    ----------
    scaled
        ``(n, c, *spatial)``, each scan divided by its `intensity_scale`.
    labels
        ``(n,)`` class indices.
    reference
        ``(c, *spatial)`` control mean on the same scale.
    report
        Called with stage (``autoencoder``, ``classifier``, ``validation``), epoch and mean loss after every epoch.
    validation
        Other scans and labels that say which epoch is best, and when to stop; nothing else comes from them.
    network
        Makes the network, ``(n, c, *spatial)`` to ``(n, classes)`` logits; None: the paper's. Pre-training is
        for networks whose ``encoder`` is the paper's.
    change
        Applied to each training scan ``(c, *spatial)`` before light and shadow, such as one of MONAI's
        transforms; a random one is seeded when it has ``set_random_state`` or draws from torch.
    device
        Where the network is trained; scans are perturbed on the CPU.

    Returns
    -------
    The network in eval mode, and the standardisation its inputs need, both on the CPU.

    Raises
    ------
    GlasError
        Fewer scans than a batch needs, or a network that does not answer with one logit a class.

    Warns
    -----
    GlasWarning
        Pre-training was asked for and the network cannot take it.
    """
    if len(scaled) < 2:
        raise GlasError(f"training needs at least 2 scans, got {len(scaled)}")
    generator = torch.Generator().manual_seed(recipe.seed)
    standardisation = standardisation_of(scaled)
    classes = int(labels.max()) + 1
    weight = len(labels) / (classes * torch.bincount(labels, minlength=classes).clamp_min(1).float())
    channels = scaled.shape[1]
    on = torch.device(device)
    with torch.random.fork_rng(devices=[on] if on.type == "cuda" else []):
        torch.manual_seed(recipe.seed)
        if network is None:
            net: nn.Module = PaperNet(scaled.shape[2:], channels, classes, batch_norm=True, dropout=recipe.dropout)
        else:
            net = network()
            _try(net, scaled.shape[1:], classes)
        if change is not None and hasattr(change, "set_random_state"):
            change.set_random_state(seed=recipe.seed)
        course = _Course(scaled, labels, standardisation, recipe, generator, report, on)
        if recipe.pretraining:
            autoencoder = Autoencoder(channels, batch_norm=True)

            def reconstruct(x: torch.Tensor, _: torch.Tensor) -> torch.Tensor:
                return nn.functional.mse_loss(autoencoder(x), x)

            if network is not None and not _alike(_encoder(net), autoencoder.encoder):
                message = f"{type(net).__name__} is not pre-trained: its encoder is not that of the paper's network"
                warnings.warn(message, GlasWarning, stacklevel=2)
            else:
                course.descend("autoencoder", autoencoder, reconstruct, recipe.pretraining)
                _encoder(net).load_state_dict(autoencoder.encoder.state_dict())

        def classify(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            return nn.functional.cross_entropy(net(x), y, weight=weight.to(x.device))

        course.reference, course.validation, course.change = reference, validation, change
        course.descend("classifier", net, classify, recipe.epochs)
    net.eval().to("cpu", memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    return net, standardisation


def standardisation_of(scaled: Scans) -> Standardisation:
    """`Standardisation.of` for scans that need not fit in memory."""
    if isinstance(scaled, torch.Tensor):
        return Standardisation.of(scaled)
    mean = mean_of(scaled).double()
    squares = torch.zeros(tuple(scaled.shape[1:]), dtype=torch.float64)
    for rows in _few(torch.arange(len(scaled))):
        squares += (scaled[rows].double() - mean).square().sum(dim=0)
    std = (squares / (len(scaled) - 1)).sqrt().float()
    return Standardisation(mean.float(), std.clamp_min(SMALLEST_DEVIATION))


def mean_of(scaled: Scans, rows: torch.Tensor | None = None) -> torch.Tensor:
    """Mean over all scans or some, ``(c, *spatial)`` float32, a few in memory at a time."""
    rows = torch.arange(len(scaled)) if rows is None else rows
    total = torch.zeros(tuple(scaled.shape[1:]), dtype=torch.float64)
    for some in _few(rows):
        total += scaled[some].double().sum(dim=0)
    return (total / len(rows)).float()


def _few(rows: torch.Tensor) -> Iterator[torch.Tensor]:
    for first in range(0, len(rows), _CHUNK):
        yield rows[first : first + _CHUNK]


@dataclass
class _Course:
    """Training scans and what is done to them, for one stage after another."""

    scaled: Scans
    labels: torch.Tensor
    standardisation: Standardisation
    recipe: Recipe
    generator: torch.Generator
    report: Report
    device: torch.device
    reference: torch.Tensor | None = None
    validation: tuple[Scans, torch.Tensor] | None = None
    change: Change | None = None

    def descend(
        self, stage: str, module: nn.Module, loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], epochs: int
    ) -> None:
        """Fit a module; with validation scans its weights are those of the best epoch."""
        recipe, n = self.recipe, len(self.scaled)
        # channels last: the convolutions of few filters are a third faster for it
        module.train().to(self.device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        optimiser = torch.optim.AdamW(module.parameters(), lr=recipe.learning_rate, weight_decay=recipe.weight_decay)
        steps = max(1, n // recipe.batch_size)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimiser, max_lr=recipe.learning_rate, total_steps=epochs * steps, pct_start=0.15
        )
        best, since, kept = float("inf"), 0, None
        for epoch in range(epochs):
            coming = min(1.0, (epoch + 1) / (recipe.ramp * epochs)) if recipe.ramp else 1.0
            augmentation = replace(recipe, augmented=recipe.augmented * coming)
            order = torch.randperm(n, generator=self.generator)
            total = 0.0
            for step in range(steps):
                chosen = order[step * recipe.batch_size : (step + 1) * recipe.batch_size]
                batch = self.scaled[chosen]
                if self.change is not None:
                    batch = torch.stack([torch.as_tensor(self.change(one)).as_subclass(torch.Tensor) for one in batch])
                if self.reference is not None:
                    batch = light_or_shade(batch, self.reference, augmentation, self.generator)
                loss = loss_of(self._standardised(batch), self.labels[chosen].to(self.device))
                optimiser.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                optimiser.step()
                schedule.step()
                total += float(loss.detach())
            self.report(stage, epoch + 1, total / steps)
            if self.validation is None:
                continue
            unseen = self._unseen(module, loss_of, *self.validation)
            self.report("validation", epoch + 1, unseen)
            since += 1
            if unseen < best:
                best, since, kept = unseen, 0, copy.deepcopy(module.state_dict())
            if recipe.patience and since >= recipe.patience:
                break
        if kept is not None:
            module.load_state_dict(kept)

    def _standardised(self, batch: torch.Tensor) -> torch.Tensor:
        batch = (batch - self.standardisation.mean) / self.standardisation.std
        return batch.to(self.device).contiguous(memory_format=torch.channels_last_3d)

    def _unseen(
        self,
        module: nn.Module,
        loss_of: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
        scaled: Scans,
        labels: torch.Tensor,
    ) -> float:
        """Mean loss of the validation scans."""
        module.eval()
        total = 0.0
        with torch.inference_mode():
            for rows in _few(torch.arange(len(scaled))):
                total += float(loss_of(self._standardised(scaled[rows]), labels[rows].to(self.device))) * len(rows)
        module.train()
        return total / len(scaled)


def _encoder(net: nn.Module) -> nn.Module:
    """The part that can be pre-trained; empty where there is none."""
    found = getattr(net, "encoder", None)
    return found if isinstance(found, nn.Module) else nn.Module()


def _alike(one: nn.Module, other: nn.Module) -> bool:
    """Whether one module's weights fit another."""
    shapes = ({key: value.shape for key, value in each.state_dict().items()} for each in (one, other))
    return next(shapes) == next(shapes)


def _try(net: object, shape: tuple[int, ...], classes: int) -> None:
    """One forward, so that a network that cannot be trained is refused in words."""
    if not isinstance(net, nn.Module):
        raise GlasError(f"a network to train must be a torch module, got {type(net).__name__}")
    try:
        with torch.no_grad():  # in inference mode, lazy layers would make weights that cannot be trained
            answer = net.eval()(torch.zeros((2, *shape)))
    except Exception as error:  # whatever a network raises
        raise GlasError(f"the network does not take a batch of {(2, *shape)}: {reason(error)}") from error
    came = tuple(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
    if came != (2, classes):
        raise GlasError(f"a network to train must answer a batch of 2 with (2, {classes}) logits, got {came}")


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
        masks = gaussian_masks(at.numpy(), shape, [sigma] * len(shape)).masks(0, torch.empty((count, *shape)))
        mask = 1 - (1 - masks).prod(dim=0, keepdim=True)
        lit = kind < recipe.lit
        below, above = (reference, batch[row]) if lit else (batch[row], reference)
        blend(below, above, mask, out=out[row : row + 1])
    return out
