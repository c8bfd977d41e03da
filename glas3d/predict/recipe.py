"""The settings by which a network is trained."""

from __future__ import annotations

from dataclasses import dataclass

from glas3d.errors import GlasError


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings by which a network is trained.

    Parameters
    ----------
    epochs
        Passes over the training scans, at most.
    pretraining
        Passes of the autoencoder before them; 0: no pre-training.
    batch_size
        Scans in each step, at least 2.
    learning_rate, weight_decay
        Settings of AdamW; the rate falls to 0 along a cosine.
    dropout
        Share of the inputs of the dense layers that is dropped.
    label_smoothing
        Share of each label that is spread over all classes, from 0 to below 1 (Szegedy et al. 2016). It bounds the
        log-odds of a network that is certain, at 3.7 between two classes for 0.05, so that no output saturates.
    augmented
        Share of scans that are lit or shaded by random Gaussians towards the reference, so that perturbed scans
        are familiar to the network (documentation: "What darkness does to a network").
    ramp
        Share of the epochs over which augmentation grows from none to all of it. A network that is augmented fully from
        the start may see too little of the disease to begin learning, and keep giving all classes the same
        probability.
    lit
        Share of the augmented scans that are lit; the others are shaded.
    max_gaussians
        Largest number of Gaussians for each scan. One to this many are joined, so that any of the places of the
        disease may be all that is left to see.
    sigma
        Smallest and largest standard deviation of the Gaussians, in voxels.
    patience
        The classifier stops after so many epochs without a better loss of the validation scans, if there are any;
        0: it does not stop early. The weights of the best epoch are kept in either case.
    seed
        Seed of weights, order and augmentation.

    Raises
    ------
    GlasError
        A value that is not possible.
    """

    epochs: int = 60
    pretraining: int = 1
    batch_size: int = 4
    learning_rate: float = 2e-3
    weight_decay: float = 1e-4
    dropout: float = 0.0
    label_smoothing: float = 0.0
    augmented: float = 0.9
    ramp: float = 0.4
    lit: float = 0.7
    max_gaussians: int = 5
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
        if not 0 <= self.label_smoothing < 1:
            raise GlasError(f"label_smoothing must be a share from 0 to below 1, got {self.label_smoothing}")
