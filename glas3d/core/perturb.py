"""Perturb one volume by the light and shadow of many points, a batch at a time (Eq. 1 and 2).

A batch is a description first, `PerturbedBatch`. Whoever needs the perturbed volumes writes them into memory; an engine
that blends inside its own graph is given the few tensors that they are made of.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch

from glas3d.core.gaussian import BoxedMasks, Masks, SeparableMasks
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

    @cached_property
    def factors(self) -> tuple[tuple[torch.Tensor, ...] | None, ...] | None:
        """The factors of the masks of light and of shadow (`SeparableMasks`), None for a kind that is not evaluated.

        None altogether where the masks are no products of one factor for each axis.
        """
        factors = tuple(masks.factors() if isinstance(masks, SeparableMasks) else None for masks in self.ends)
        evaluated = [masks is not None for masks in self.ends]
        return factors if [of_end is not None for of_end in factors] == evaluated else None

    @cached_property
    def blended_of(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The volume, and what leads from it to the background, both contiguous."""
        volume = self.volume.contiguous()
        return volume, (self.background - volume).contiguous()

    @cached_property
    def replacing(self) -> torch.Tensor:
        """The background; where it is one number everywhere, that number in the background's shape."""
        level = self.background.flatten()[:1]
        if bool((self.background == level).all()):  # one number is read faster than a volume of it
            return level.view([1] * self.background.ndim).expand_as(self.background)
        return self.background


class Buffers:
    """Memory for a batch of perturbed volumes and for their masks, written over by the next batch."""

    def __init__(self) -> None:
        self._kept: dict[str, torch.Tensor] = {}
        self._boxes: dict[str, list[Any]] = {}  # what of each row is not 0, of buffers that hold masks
        self._used: set[str] = set()

    def get(self, name: str, like: torch.Tensor, *shape: int) -> torch.Tensor:
        """Return a buffer of some shape and of the kind of another tensor; what it holds is of no meaning."""
        self._used.add(name)
        kept = self._kept.get(name)
        if kept is None or len(kept) < shape[0]:
            kept = self._kept[name] = torch.empty(shape, dtype=like.dtype, device=like.device)
            self._boxes[name] = [...] * len(kept)
        return kept[: shape[0]]

    def masks(self, name: str, like: torch.Tensor, rows: slice, masks: Masks | None, start: int) -> torch.Tensor:
        """Write the masks of points ``start, start + 1, ...`` into rows of a buffer, and return these.

        Those beyond the last point, and of a kind that has no masks, are empty. Masks that lie in boxes are written
        into them alone.
        """
        out = self.get(name, like, rows.stop, *like.shape[1:])[rows]
        boxes = self._boxes[name]
        n = 0 if masks is None else min(len(out), max(0, len(masks) - start))
        boxed: BoxedMasks | None = masks if isinstance(masks, BoxedMasks) else None
        if masks is not None and boxed is None and n:
            masks.masks(start, out[:n])
            boxes[rows.start : rows.start + n] = [...] * n
        for row in range(0 if boxed is not None else n, len(out)):
            number, mask = rows.start + row, out[row]
            mask[boxes[number]] = 0.0
            boxes[number] = boxed.write(start + row, mask) if boxed is not None and row < n else slice(0)
        return out

    def release_unused(self) -> None:
        """Let go of the buffers that were not needed since the last call."""
        self._kept = {name: kept for name, kept in self._kept.items() if name in self._used}
        self._used.clear()


class PerturbedBatch:
    """A batch of perturbed volumes, by their numbers in `Perturbations`; nothing of it is computed until it is needed.

    Parameters
    ----------
    inputs
        The volume, its background and the masks.
    numbers
        The ``n`` inputs of the batch. They may come in any order, and more than once.
    buffers
        Where the batch is written; None: into memory of its own.
    """

    def __init__(self, inputs: LightAndShadow, numbers: Sequence[int], buffers: Buffers | None = None) -> None:
        self.inputs, self.numbers = inputs, numbers
        self._buffers = Buffers() if buffers is None else buffers

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def shape(self) -> torch.Size:
        """``(n, c, *spatial)``, as the batch is written."""
        return torch.Size((len(self), *self.inputs.volume.shape))

    @property
    def device(self) -> torch.device:
        """The device of the volume."""
        return self.inputs.volume.device

    @property
    def layout(self) -> tuple[int | str, ...]:
        """What batches have in common whose `tensors` have the same number and shapes."""
        channels = "all channels" if self.inputs.channel is None else "a single channel"
        masks = "whole masks" if self.inputs.factors is None else "factors"
        return (*self.shape, channels, masks)

    @cached_property
    def tensors(self) -> tuple[torch.Tensor, ...]:
        """The tensors that the batch is blended of.

        ``volume`` and ``difference`` ``(c, *spatial)``, the same for all batches of one explanation; ``offset``
        ``(n, 1, 1, ...)``; and factors, each of a shape that is broadcast to ``(n, c, *spatial)``. The batch is
        ``volume + difference * (offset + the product of the factors)``: light has offset 1 and the negative mask as the
        product, shadow has offset 0 and the mask. Those for whole masks are valid until the next batch is taken.
        """
        inputs, volume = self.inputs, self.inputs.volume
        n, axes = len(self), volume.shape[1:]
        ones = [1] * len(axes)
        offset = volume.new_zeros((n, 1, *ones))
        sign = volume.new_zeros((n, 1 if inputs.channel is None else len(volume), *ones))
        for rows, kind, _ in self._runs():
            if kind is not None:
                offset[rows] = 1.0 - kind
                sign[rows, inputs.channels] = 2.0 * kind - 1.0
        if inputs.factors is None:
            return *inputs.blended_of, offset, sign, self._whole_masks()
        factors = [
            volume.new_zeros((n, 1, *(m if i == axis else 1 for i in range(len(axes))))) for axis, m in enumerate(axes)
        ]
        for rows, kind, point in self._runs():
            terms = None if kind is None else inputs.factors[kind]
            for factor, term in zip(factors, terms or (), strict=False):
                some = term[point : point + rows.stop - rows.start]  # those beyond the last point are empty
                factor[rows.start : rows.start + len(some)] = some.view(len(some), *factor.shape[1:])
        return *inputs.blended_of, offset, factors[0] * sign, *factors[1:]

    def _whole_masks(self) -> torch.Tensor:
        """Return the masks ``(n, 1, *spatial)``."""
        volume = self.inputs.volume
        out = self._buffers.get("whole masks", volume, len(self), *volume.shape[1:])
        for rows, kind, point in self._runs():
            masks = None if kind is None else self.inputs.ends[kind]
            self._buffers.masks("whole masks", volume, rows, masks, point)
        return out.unsqueeze(1)

    def written(self) -> torch.Tensor:
        """Return the perturbed volumes ``(n, c, *spatial)``.

        They may be written over: each call makes all of them anew, in the same memory.
        """
        inputs = self.inputs
        volume, background, channels = inputs.volume, inputs.replacing, inputs.channels
        out = self._buffers.get("batch", volume, *self.shape)
        for rows, kind, point in self._runs():
            if kind is None:
                out[rows] = volume
                continue
            below, above = (background, volume) if kind == 0 else (volume, background)
            masks = self._buffers.masks("masks", volume, slice(0, rows.stop - rows.start), inputs.ends[kind], point)
            if inputs.channel is not None:
                out[rows] = below
            blend(below[channels], above[channels], masks, out=out[rows, channels])
        return out

    def scaled(self, factor: float) -> PerturbedBatch:
        """Return the same batch at another brightness, of the volume and of the background."""
        inputs = self.inputs
        scaled = replace(inputs, volume=inputs.volume * factor, background=inputs.background * factor)
        return PerturbedBatch(scaled, self.numbers)

    def _runs(self) -> Iterator[tuple[slice, int | None, int]]:
        """Yield rows of one kind whose points follow one another: the kind (0 light, 1 shadow) and the first point.

        The intact volume has no kind.
        """
        numbers, start = self.numbers, 0
        while start < len(numbers):
            stop, step = start + 1, 2 if numbers[start] else 0
            while stop < len(numbers) and numbers[stop] == numbers[stop - 1] + step:
                stop += 1
            point, kind = divmod(numbers[start] - 1, 2)
            yield slice(start, stop), kind if numbers[start] else None, point
            start = stop


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
        self.inputs = inputs
        self.numbers = inputs.numbers
        self.batch_size = min(batch_size, len(self))
        self._repeat = False
        self._buffers = Buffers()

    def __len__(self) -> int:
        return len(self.numbers)

    def batches(self) -> Iterator[tuple[PerturbedBatch, list[int]]]:
        """Yield each batch with the numbers of the inputs in its first rows.

        The last batch is as large as the others, so that a model sees one shape only and equal settings give equal
        bits; its spare rows hold the intact volume and have no number. A batch is valid until the next one is taken.
        When a batch was too large and `halve` was called, or `repeat`, its inputs come again.
        """
        start = 0
        while start < len(self):
            size = self.batch_size
            numbers = self.numbers[start : start + size]
            intact = [0] * (start == 0)
            lights = [n for n in numbers if n % 2 == 1]
            shadows = [n for n in numbers if n % 2 == 0 and n > 0]
            numbers = intact + lights + shadows
            yield PerturbedBatch(self.inputs, numbers + [0] * (size - len(numbers)), self._buffers), numbers
            self._buffers.release_unused()
            if self.batch_size == size and not self._repeat:
                start += size
            self._repeat = False

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
        self._buffers = Buffers()
        if volume.is_cuda:
            torch.cuda.empty_cache()
