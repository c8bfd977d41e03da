"""Light and shade one volume at many points, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator

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
        ``(b, c, *spatial)``; overwritten.
    """
    # lerp is exact where the mask is 0 or 1
    return torch.lerp(background, volume, masks.unsqueeze(1), out=out)


class Perturbations:
    """All inputs of one explanation: the intact volume, then light and shadow of every point.

    They are numbered ``0`` (intact), ``1, 3, 5, ...`` (light), ``2, 4, 6, ...`` (shadow), so that a batch
    holds both kinds, and every batch is written into the same buffers.

    Parameters
    ----------
    volume, background
        ``(c, *spatial)``, float32 on the model's device.
    light, shadow
        The spots of the same points for the two kinds.
    batch_size
        Inputs a batch.
    channel
        Light and shade this channel alone: light leaves nothing of the others, shadow leaves them whole.
        None: all channels together.
    """

    def __init__(
        self,
        volume: torch.Tensor,
        background: torch.Tensor,
        light: Masks,
        shadow: Masks,
        batch_size: int,
        channel: int | None = None,
    ) -> None:
        level = background.flatten()[:1]
        if bool((background == level).all()):  # one number is read faster than a volume of it
            background = level.view([1] * background.ndim).expand_as(background)
        self._volume, self._background = volume, background
        self._light, self._shadow = light, shadow
        self._channel = channel
        self.batch_size = min(batch_size, len(self))
        self._batch = volume.unsqueeze(0).repeat(self.batch_size, *([1] * volume.ndim))
        rows = (self.batch_size + 1) // 2
        self._masks = torch.empty((rows, *volume.shape[1:]), dtype=volume.dtype, device=volume.device)

    def __len__(self) -> int:
        return 2 * len(self._light) + 1

    def batches(self) -> Iterator[tuple[torch.Tensor, list[int]]]:
        """Yield each batch ``(batch_size, c, *spatial)`` with the numbers its first rows hold.

        The last batch is as large as the others, so that a model sees one shape only and equal settings
        give equal bits; its spare rows hold what was there before and have no number. A batch is valid
        until the next one is asked for. When it was too large and `halve` was called, what it held comes again.
        """
        start = 0
        while start < len(self):
            size = self.batch_size
            numbers = range(start, min(start + size, len(self)))
            lights = [n for n in numbers if n % 2 == 1]
            shadows = [n for n in numbers if n % 2 == 0 and n > 0]
            row = 0
            if start == 0:
                self._batch[0].copy_(self._volume)
                row = 1
            for kind, spots, below, above in (
                (lights, self._light, self._background, self._volume),
                (shadows, self._shadow, self._volume, self._background),
            ):
                if kind:
                    masks = spots.masks((kind[0] - 1) // 2, self._masks[: len(kind)])
                    self._blend(below, above, masks, self._batch[row : row + len(kind)])
                    row += len(kind)
            yield self._batch, [0] * (start == 0) + lights + shadows
            if self.batch_size == size:
                start += size

    def halve(self) -> None:
        """Go on in batches of half the size.

        Raises
        ------
        GlasError
            They are single inputs already.
        """
        if self.batch_size == 1:
            raise GlasError(f"one input of {tuple(self._volume.shape)} at a time does not fit into memory")
        self.batch_size //= 2
        self._batch = self._batch[: self.batch_size].clone()
        self._masks = self._masks[: (self.batch_size + 1) // 2].clone()
        if self._volume.is_cuda:
            torch.cuda.empty_cache()

    def _blend(self, below: torch.Tensor, above: torch.Tensor, masks: torch.Tensor, rows: torch.Tensor) -> None:
        if self._channel is None:
            blend(below, above, masks, out=rows)
        else:
            only = slice(self._channel, self._channel + 1)
            rows.copy_(below.expand_as(rows))
            blend(below[only], above[only], masks, out=rows[:, only])
