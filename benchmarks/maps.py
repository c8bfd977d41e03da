"""A whole map of a photograph by each method of the paper's table 3, with as many forwards as its authors ask.

Grad-CAM and LIME are Captum's. RISE and MASK are in no kept library that can be installed beside ours: they are written
here as their papers have them, on tensors and in batches.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from benchmarks.contest import compete
from benchmarks.methods import TARGET, quiet, settle
from benchmarks.rows import Row, row
from benchmarks.subjects import DEVICE, Subject, subjects
from benchmarks.witness import NoWork, reached
from glas3d import GLAS, Grid, Predictor
from glas3d.core.glas import default_batch_size


@dataclass(frozen=True)
class Mapper(ABC):
    """A method that makes one map of a photograph.

    Attributes
    ----------
    subject
        A photograph and its net.
    asks
        Inputs that the net is asked in the timed call.
    published
        As many as the authors ask: every one costs the same, so the time is multiplied.
    """

    subject: Subject
    asks: int
    published: int
    name = ""
    batch = 16

    @abstractmethod
    def bind(self, net: nn.Module) -> Callable[[], torch.Tensor]:
        """The call that is timed; its map is `(*spatial)`."""

    @property
    def work(self) -> str:
        """How much is asked, in words."""
        timed = "" if self.asks == self.published else f", {self.asks:,} of them timed"
        return f"{self.published:,} forwards{timed}"


@dataclass(frozen=True)
class Glas(Mapper):
    """Ours, on the paper's grid."""

    name = "glas3d GLAS"
    engine: str = "auto"

    def bind(self, net: nn.Module) -> Callable[[], torch.Tensor]:
        cells = round(((self.asks - 1) / 2) ** 0.5)
        light, shadow = self.subject.sigmas
        predict = Predictor(net, "softmax", device=DEVICE)
        glas = GLAS(predict, sigma_light=light, sigma_shadow=shadow, engine=self.engine)
        return lambda: torch.as_tensor(glas.explain(self.subject.volume, TARGET, Grid(cells)).saliency)  # type: ignore[union-attr]


@dataclass(frozen=True)
class GradCam(Mapper):
    """Captum `LayerGradCam` of the last convolution, interpolated."""

    name = "Captum LayerGradCam"

    def bind(self, net: nn.Module) -> Callable[[], torch.Tensor]:
        with quiet():
            from captum.attr import LayerAttribution, LayerGradCam

        layer = [module for module in net.modules() if isinstance(module, nn.Conv2d)][-1]
        cam = LayerGradCam(net, layer)

        def call() -> torch.Tensor:
            with quiet():
                found = cam.attribute(self.subject.volume.unsqueeze(0), target=TARGET, relu_attributions=True)
                return LayerAttribution.interpolate(found, self.subject.shape, "bilinear")[0, 0].detach()

        return call


@dataclass(frozen=True)
class Lime(Mapper):
    """Captum `Lime` over the superpixels of scikit-image."""

    name = "Captum Lime"

    def bind(self, net: nn.Module) -> Callable[[], torch.Tensor]:
        with quiet():
            from captum.attr import Lime as CaptumLime
            from skimage.segmentation import slic

            picture = self.subject.volume.cpu().numpy()
            lime = CaptumLime(net)

        def call() -> torch.Tensor:
            with quiet():
                features = torch.from_numpy(slic(picture / 255, n_segments=60, channel_axis=0, start_label=0))
                found = lime.attribute(
                    self.subject.volume.unsqueeze(0), baselines=0.0, target=TARGET, n_samples=self.asks,
                    feature_mask=features[None, None].to(DEVICE), perturbations_per_eval=self.batch,
                )  # fmt: skip
                return found[0, 0]

        return call


@dataclass(frozen=True)
class Rise(Mapper):
    """RISE (Petsiuk et al. 2018): random masks of 7 x 7 cells, half of them kept, enlarged and shifted."""

    name = "RISE"
    cells = 7
    kept = 0.5

    def bind(self, net: nn.Module) -> Callable[[], torch.Tensor]:
        return lambda: self._map(net)

    @torch.inference_mode()
    def _map(self, net: nn.Module) -> torch.Tensor:
        volume, shape = self.subject.volume, self.subject.shape
        chance = torch.Generator().manual_seed(0)
        cell = [-(-n // self.cells) for n in shape]
        large = [(self.cells + 1) * n for n in cell]
        saliency = torch.zeros(shape, device=DEVICE)
        for start in range(0, self.asks, self.batch):
            count = min(self.batch, self.asks - start)
            coarse = (torch.rand((count, 1, self.cells, self.cells), generator=chance) < self.kept).float().to(DEVICE)
            smooth = functional.interpolate(coarse, size=large, mode="bilinear")
            masks = torch.empty((count, 1, *shape), device=DEVICE)
            for mask, whole in zip(masks, smooth, strict=True):
                x, y = (int(torch.randint(n, (), generator=chance)) for n in cell)
                mask.copy_(whole[:, x : x + shape[0], y : y + shape[1]])
            answers = net(volume * masks).softmax(dim=1)[:, TARGET]
            saliency += torch.einsum("n,nxy->xy", answers, masks[:, 0])
        return saliency / (self.asks * self.kept)


@dataclass(frozen=True)
class Mask(Mapper):
    """MASK (Fong & Vedaldi 2017): a mask of 28 x 28, learned by gradients to delete as little as lowers the answer."""

    name = "MASK"
    side = 28
    sparse, smooth, beta, rate = 1e-2, 2e-1, 3.0, 0.1

    def bind(self, net: nn.Module) -> Callable[[], torch.Tensor]:
        from scipy.ndimage import gaussian_filter

        picture = self.subject.volume
        blurred = torch.from_numpy(gaussian_filter(picture.cpu().numpy(), (0, 10, 10))).to(DEVICE)

        def call() -> torch.Tensor:
            mask = torch.full((1, 1, self.side, self.side), 0.5, device=DEVICE, requires_grad=True)
            optimiser = torch.optim.Adam([mask], lr=self.rate)
            for _ in range(self.asks):
                large = functional.interpolate(mask, size=self.subject.shape, mode="bilinear")
                answer = net(blurred + (picture - blurred) * large).softmax(dim=1)[0, TARGET]
                edges = sum(mask.diff(dim=axis).abs().pow(self.beta).mean() for axis in (2, 3))
                loss = self.sparse * (1 - mask).abs().mean() + self.smooth * edges + answer
                optimiser.zero_grad()
                loss.backward()
                optimiser.step()
                mask.data.clamp_(0, 1)
            return 1 - large.detach()[0, 0]

        return call


def mappers(subject: Subject, quick: bool) -> list[Mapper]:
    """Ours first."""
    if quick:
        return [
            Glas(subject, 19, 19), Glas(subject, 19, 19, engine="eager"), GradCam(subject, 1, 1),
            Lime(subject, 20, 20), Mask(subject, 3, 300), Rise(subject, 20, 4000),
        ]  # fmt: skip
    return [
        Glas(subject, 451, 451), Glas(subject, 451, 451, engine="eager"), GradCam(subject, 1, 1),
        Lime(subject, 1000, 1000), Mask(subject, 60, 300), Rise(subject, 480, 4000),
    ]  # fmt: skip


def whole_maps(quick: bool, repeats: int) -> Iterator[Row]:
    """Seconds of a whole map, over ours."""
    subject = next(one for one in subjects(quick) if one.mm is None)
    net = subject.build()
    settle(
        net,
        subject.volume.unsqueeze(0).repeat(default_batch_size(subject.volume.numel(), torch.device(DEVICE)), 1, 1, 1),
    )
    entries: dict[str, Any] = {}
    methods = {f"{m.name} by {m.engine}" if isinstance(m, Glas) else m.name: m for m in mappers(subject, quick)}
    for name, method in methods.items():
        entries[name] = method.bind(net)
        inputs, found = reached(entries[name], net)
        if inputs < method.asks and not (isinstance(method, Glas) and method.engine == "auto"):
            raise NoWork(f"{name} must ask {method.asks} inputs, the net saw {inputs}")
        if found.shape != subject.shape or not bool(found.isfinite().all()) or not float(found.std()) > 0:
            raise NoWork(f"{name} made no map: {tuple(found.shape)}, from {float(found.min())} to {float(found.max())}")
    times = compete(entries, repeats)
    share = {name: method.asks / method.published for name, method in methods.items()}
    ours = next(iter(methods))
    for name, method in methods.items():
        if name != ours:
            yield row(
                "maps", subject, name, ours, "higher", times.ratio(name, ours, share[name], share[ours]),
                times.of(name, share[name]).median, unit="s a map", work=method.work,
            )  # fmt: skip
