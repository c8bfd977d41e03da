"""Perturb one volume by the light and shadow of many points, a batch at a time (Eq. 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from glas3d.core.gaussian import Masks
from glas3d.errors import GlasError


def blend(background: torch.Tensor, volume: torch.Tensor, masks: torch.Tensor, out: torch.Tensor) -> torch.Tensor:
    """Keep the volume where the mask is 1 and the background where it is 0.

    ``out = volume * G + background * (1 - G)``: with the volume first this is light (Eq. 1), with the
    two exchanged it is shadow (Eq. 2).

    Parameters
    ----------
    background, volume
        ``(c, *spatial)``, float32 on one device.
    masks
        ``(b, *spatial)``.
    out
        ``(b, c, *spatial)``; overwritten and returned.
    """
    # lerp is exact where the mask is 0 or 1
    return torch.lerp(background, volume, masks.unsqueeze(1), out=out)


@dataclass(frozen=True, eq=False)
class LightAndShadow:
    """One volume, the background that replaces it, and the masks of the points that are lit and shaded.

    Attributes
    ----------
    volume, background
        ``(c, *spatial)``, float32 on the model's device.
    light, shadow
        The masks of the same ``m`` points for the two kinds of perturbation; None: a kind that is not evaluated.
    channel
        The only channel that is lit and shaded: light keeps nothing of the other channels, shadow leaves them as they
        are. None: all channels together.
    bare
        Whether the background itself, with nothing of the volume, is an input too: the light of an empty mask.
    """

    volume: torch.Tensor
    background: torch.Tensor
    light: Masks | None
    shadow: Masks | None
    channel: int | None = None
    bare: bool = False

    @property
    def ends(self) -> tuple[Masks | None, Masks | None]:
        """The masks of light and of shadow, in the order of their numbers in `Perturbations`."""
        return self.light, self.shadow

    @property
    def m(self) -> int:
        """The number of points."""
        return next(len(masks) for masks in self.ends if masks is not None)

    @property
    def numbers(self) -> list[int]:
        """The numbers of all inputs in `Perturbations`, ascending."""
        kinds = [kind for kind, masks in enumerate(self.ends) if masks is not None]
        of_points = [1 + kind + 2 * point for point in range(self.m) for kind in kinds]
        return [0, *of_points, *([2 * self.m + 1] if self.bare else [])]

    @property
    def channels(self) -> slice:
        """The channels that are lit and shaded."""
        return slice(None) if self.channel is None else slice(self.channel, self.channel + 1)

    def perturbed(self, number: int) -> torch.Tensor:
        """Return one input ``(c, *spatial)`` in memory of its own, by its number in `Perturbations`."""
        volume, background = self.volume, self.background
        if number == 0:
            return volume.clone()
        masks, below, above = (self.light, background, volume) if number % 2 else (self.shadow, volume, background)
        mask = masks_from(masks, (number - 1) // 2, torch.empty_like(volume[:1]))
        row = below.clone(memory_format=torch.contiguous_format).unsqueeze(0)
        blend(below[self.channels], above[self.channels], mask, out=row[:, self.channels])
        return row[0]


def masks_from(masks: Masks | None, start: int, out: torch.Tensor) -> torch.Tensor:
    """Write the masks of points ``start, start + 1, ...`` into ``out``; those beyond the last point are empty."""
    n = 0 if masks is None else min(len(out), max(0, len(masks) - start))
    if masks is not None and n:
        masks.masks(start, out[:n])
    out[n:] = 0.0
    return out


class Perturbations:
    """All inputs of one explanation: the intact volume, then light and shadow of every point, then the background.

    They are numbered ``0`` (intact), ``1, 3, 5, ...`` (light), ``2, 4, 6, ...`` (shadow), and ``2m + 1`` (background),
    so that a batch holds both kinds, and every batch is written into the same buffers. A kind that is not evaluated
    leaves its numbers out.

    Parameters
    ----------
    inputs
        The volume, its background and the masks.
    batch_size
        Inputs in a batch.
    """

    def __init__(self, inputs: LightAndShadow, batch_size: int) -> None:
        volume, background = inputs.volume, inputs.background
        level = background.flatten()[:1]
        if bool((background == level).all()):  # one number is read faster than a volume of it
            background = level.view([1] * background.ndim).expand_as(background)
        self.inputs = inputs
        self.numbers = inputs.numbers
        self._repeat = False
        self._background = background
        self.batch_size = min(batch_size, len(self))
        self._batch = volume.unsqueeze(0).repeat(self.batch_size, *([1] * volume.ndim))
        self._masks = torch.empty((self._most(), *volume.shape[1:]), dtype=volume.dtype, device=volume.device)

    def __len__(self) -> int:
        return len(self.numbers)

    def batches(self) -> Iterator[tuple[torch.Tensor, list[int]]]:
        """Yield each batch ``(batch_size, c, *spatial)`` with the numbers of the inputs in its first rows.

        The last batch is as large as the others, so that a model sees one shape only and equal settings give equal
        bits; its spare rows hold the intact volume and have no number. A batch is valid until the next one is taken,
        and may be written over: every row of the next one is made anew.
        When a batch was too large and `halve` was called, or `repeat`, its inputs come again.
        """
        volume, background = self.inputs.volume, self._background
        start = 0
        while start < len(self):
            size = self.batch_size
            numbers = self.numbers[start : start + size]
            lights = [n for n in numbers if n % 2 == 1]
            shadows = [n for n in numbers if n % 2 == 0 and n > 0]
            row = 0
            if start == 0:
                self._batch[0].copy_(volume)
                row = 1
            for kind, masks_of_kind, below, above in (
                (lights, self.inputs.light, background, volume),
                (shadows, self.inputs.shadow, volume, background),
            ):
                if kind:
                    masks = masks_from(masks_of_kind, (kind[0] - 1) // 2, self._masks[: len(kind)])
                    self._blend(below, above, masks, self._batch[row : row + len(kind)])
                    row += len(kind)
            self._batch[row:].copy_(volume)  # no row is empty in any batch but the last
            yield self._batch, [0] * (start == 0) + lights + shadows
            if self.batch_size == size and not self._repeat:
                start += size
            self._repeat = False

    def _most(self) -> int:
        """Return the most masks of one kind that a batch needs."""
        both = None not in self.inputs.ends
        # the last batch may hold one light more: the background
        return min(self.batch_size, (self.batch_size + 1) // 2 + self.inputs.bare) if both else self.batch_size

    def repeat(self) -> None:
        """Let the inputs of this batch come again."""
        self._repeat = True

    def halve(self) -> None:
        """Halve the size of the batches to come.

        Raises
        ------
        GlasError
            The batches are single inputs already.
        """
        volume = self.inputs.volume
        if self.batch_size == 1:
            raise GlasError(f"one input of {tuple(volume.shape)} at a time does not fit into memory")
        self.batch_size //= 2
        self._batch = self._batch[: self.batch_size].clone()
        self._masks = self._masks[: self._most()].clone()
        if volume.is_cuda:
            torch.cuda.empty_cache()

    def _blend(self, below: torch.Tensor, above: torch.Tensor, masks: torch.Tensor, rows: torch.Tensor) -> None:
        if self.inputs.channel is None:
            blend(below, above, masks, out=rows)
        else:
            channels = self.inputs.channels
            rows.copy_(below.expand_as(rows))
            blend(below[channels], above[channels], masks, out=rows[:, channels])
