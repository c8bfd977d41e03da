"""A participant with a lost block of tissue, a detector of it, and references that do and do not mislead."""

from dataclasses import dataclass

import numpy as np
import torch

from glas3d import GLAS
from glas3d.core.reference import references
from tests.core.cases import CELLS, WIDE, blocks


class Atrophy:
    """A detector that compares one block with the rest, against the controls' mean, as a standardised network does."""

    def __init__(self, planted, mean):
        self.mean = torch.as_tensor(mean)
        self.weight = torch.as_tensor(planted / planted.sum() - ~planted / (~planted).sum()).float()

    def __call__(self, batch):
        less = ((self.mean - batch) * self.weight).flatten(1).sum(dim=1)
        p = torch.sigmoid(12 * less - 2)
        return torch.stack([1 - p, p], dim=1)


@dataclass(frozen=True, eq=False)
class ShrunkParticipant:
    """The explainers and explanations by reference ("zero" misleads), and the row of the block that shrank."""

    explainers: dict
    volume: np.ndarray
    explanations: dict
    planted: int


def shrunk_participant(ndim):
    shape, labels = WIDE[ndim], blocks(WIDE[ndim], CELLS[ndim])
    random = np.random.default_rng(3)
    label = np.unique(labels)[5]
    planted = labels == label
    mean = random.uniform(0.8, 1.2, (1, *shape)).astype(np.float32)
    patient, donor = (mean + random.normal(0, 0.02, mean.shape).astype(np.float32) for _ in range(2))
    patient[0][planted] -= 0.3
    glas = GLAS(Atrophy(planted, mean), sigma_light=2, sigma_shadow=2)
    explainers = references(glas, {"zero": 0.0, "mean": mean, "donor": donor})
    explanations = {name: explainer.explain(patient, 1, labels) for name, explainer in explainers.items()}
    row = int(np.flatnonzero(explanations["zero"].segments.index == label)[0])
    return ShrunkParticipant(explainers, patient, explanations, row)
