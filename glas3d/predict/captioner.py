"""Models that write captions: the probability of every word of a caption can be explained (the paper's figure 11)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import nn

from glas3d.checks import whole_number
from glas3d.core.volume import as_volume
from glas3d.errors import GlasError
from glas3d.predict.interface import FittedTransform, ModelInfo, Transform
from glas3d.predict.predictor import Predictor

Step = Callable[[Any, torch.Tensor], torch.Tensor]
WordActivation = Literal["softmax", "none"]


class Captioner:
    """A model that writes a caption word by word.

    Parameters
    ----------
    step
        ``(features, words)``, the words ``(n, t)`` int64, to ``(n, vocabulary)``: the scores of the next word, for
        every ``t`` from 1 on. The words begin with ``start``; the features are what ``encode`` returns for the
        images, or the images themselves. A module, a module's method, or any callable.
    vocabulary
        The words, each at the index that it has for the model.
    start, end
        The words of the vocabulary that open and close a caption.
    max_words
        `caption` stops after so many words, if the model does not.
    encode
        Images ``(n, c, *spatial)`` to features of any kind, called once for each batch; None: ``step`` is given the
        images.
    transform, device
        See `Predictor`.
    activation
        ``"softmax"`` when ``step`` returns logits (log-probabilities are logits), ``"none"`` when it returns
        probabilities.

    Raises
    ------
    GlasError
        A vocabulary that names a word twice or lacks ``start`` or ``end``, or a setting that is not possible.

    Examples
    --------
    >>> vocabulary = ("<start>", "<end>", "dark", "bright")
    >>> def step(images, words):
    ...     brightness = images.mean(dim=(1, 2, 3))
    ...     silent, over = torch.zeros(len(images)), torch.full((len(images),), float(words.shape[1] > 1))
    ...     return 9 * torch.stack([silent, 2 * over, 1 - brightness, brightness], dim=1)
    >>> captioner = Captioner(step, vocabulary, "<start>", "<end>", max_words=5)
    >>> captioner.caption(torch.ones(1, 4, 6))
    ['bright']
    >>> predict = captioner.about(["bright", "<end>"])
    >>> predict.classes
    ('bright', '<end>')
    >>> predict(torch.ones(1, 1, 4, 6))
    tensor([[0.9996, 0.9999]])
    """

    def __init__(
        self,
        step: nn.Module | Step,
        vocabulary: Sequence[str],
        start: str,
        end: str,
        max_words: int,
        encode: nn.Module | Callable[[torch.Tensor], Any] | None = None,
        transform: Transform | FittedTransform | None = None,
        device: str | torch.device = "auto",
        *,
        activation: WordActivation = "softmax",
    ) -> None:
        _check_callables(step, encode)
        if activation not in get_args(WordActivation):
            raise GlasError(f"activation must be one of {', '.join(get_args(WordActivation))}, got {activation!r}")
        max_words = whole_number("max_words", max_words, least=1)
        self.vocabulary = _checked_vocabulary(vocabulary)
        self._index = {word: i for i, word in enumerate(self.vocabulary)}
        for role, word in (("start", start), ("end", end)):
            if word not in self._index:
                raise GlasError(f"{role} must be a word of the vocabulary, got {word!r}")
        self.start, self.end = start, end
        self.transform = transform
        language = _Language(step, encode, len(self.vocabulary), self._index[start], activation)
        if device == "auto" and next(language.parameters(), None) is None:
            device = "cpu"  # as a Predictor does for a callable
        greedy = _Greedy(language, self._index[end], max_words)
        # the output is the indices of words, not probabilities; all else is what a Predictor does
        self._greedy = Predictor(greedy, "none", transform, device)
        self._language: _Language = self._greedy.net.language  # type: ignore[attr-defined]
        self.device = self._greedy.device
        owner = getattr(step, "__self__", step)
        self._info = ModelInfo(name=getattr(owner, "__name__", type(owner).__name__))

    def caption(self, volume: np.ndarray | torch.Tensor) -> list[str]:
        """Return the model's own caption of one image or volume ``(c, *spatial)``: its likeliest word at each position.

        Returns
        -------
        The words without ``start`` and ``end``; an empty list where the model ends at once.
        """
        image = as_volume(volume)
        indices = self._greedy.fit(image)(image.unsqueeze(0))[0].long().tolist()
        words = [self.vocabulary[i] for i in indices]
        return words[: words.index(self.end)] if self.end in words else words

    def about(self, words: str | Sequence[str]) -> Predictor:
        """Return the predictor of a caption: ``P(word | image, the words before it)`` for each of its words.

        The words before are given, not chosen by the model (teacher forcing), so that all columns belong to
        one sentence whatever a mask does to the image, and ``target=range(len(words))`` explains every word
        from the same ``2m + 1`` inputs. Each input is encoded once, and ``step`` is called ``len(words)`` times.

        Parameters
        ----------
        words
            The model's caption or any other, without ``start``; ``end`` may close it. Text is split at spaces.

        Returns
        -------
        A predictor with a column for each word. Its ``classes`` are the words; a word that occurs again is numbered
        (``"a"``, ``"a 2"``).

        Raises
        ------
        GlasError
            No words, or one that the vocabulary does not have.
        """
        caption = words.split() if isinstance(words, str) else [str(word) for word in words]
        if not caption:
            raise GlasError("a caption must have at least one word, got none")
        unknown = [word for word in caption if word not in self._index]
        if unknown:
            raise GlasError(
                f"a caption must consist of words of the vocabulary (it has {len(self.vocabulary)}), got {unknown[0]!r}"
            )
        if caption[0] == self.start:
            raise GlasError(f"a caption must be given without the word that opens it, got {self.start!r} first")
        forced = _Forced(self._language, [self._index[word] for word in caption])
        names = _numbered(caption)
        return Predictor(forced, "none", self.transform, self.device, classes=names, info=self._info)


class _Language(nn.Module):
    """The two callables as one module, so that eval mode and device apply to the modules that they belong to."""

    def __init__(
        self,
        step: Step,
        encode: Callable[[torch.Tensor], Any] | None,
        size: int,
        start: int,
        activation: WordActivation,
    ) -> None:
        super().__init__()
        self.step, self.encode = step, encode
        self.size, self.start, self.activation = size, start, activation
        owners = (getattr(call, "__self__", None) for call in (step, encode))
        self.owners = nn.ModuleList(owner for owner in owners if isinstance(owner, nn.Module))

    def features(self, batch: torch.Tensor) -> Any:
        return batch if self.encode is None else self.encode(batch)

    def probabilities(self, features: Any, words: torch.Tensor) -> torch.Tensor:
        """Return the probabilities ``(n, vocabulary)`` of the word after ``words``, ``(n, t)``."""
        scores = self.step(features, words)
        required = (len(words), self.size)
        if not isinstance(scores, torch.Tensor) or tuple(scores.shape) != required:
            came = tuple(scores.shape) if isinstance(scores, torch.Tensor) else type(scores).__name__
            raise GlasError(
                f"step must return {required} for words of {tuple(words.shape)}, the next word's scores over the "
                f"vocabulary, got {came}"
            )
        return scores.float().softmax(dim=1) if self.activation == "softmax" else scores.float()


class _Forced(nn.Module):
    """Images to the probability of each of the given words after those before it, ``(n, words)``."""

    def __init__(self, language: _Language, words: Sequence[int]) -> None:
        super().__init__()
        self.language, self.words = language, list(words)

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        features = self.language.features(batch)
        words = torch.tensor([self.language.start, *self.words], device=batch.device).repeat(len(batch), 1)
        columns = [
            self.language.probabilities(features, words[:, : t + 1])[:, word] for t, word in enumerate(self.words)
        ]
        return torch.stack(columns, dim=1)


class _Greedy(nn.Module):
    """Images to the indices of the likeliest words, ``(n, at most max_words)``; those after an end are void."""

    def __init__(self, language: _Language, end: int, max_words: int) -> None:
        super().__init__()
        self.language, self.end, self.max_words = language, end, max_words

    def forward(self, batch: torch.Tensor) -> torch.Tensor:
        features = self.language.features(batch)
        words = torch.full((len(batch), 1), self.language.start, device=batch.device)
        while words.shape[1] <= self.max_words:
            word = self.language.probabilities(features, words).argmax(dim=1, keepdim=True)
            words = torch.cat([words, word], dim=1)
            if (word == self.end).all():
                break
        return words[:, 1:]


def _numbered(words: Sequence[str]) -> list[str]:
    """Return the words, repeated ones with a number, so that each has a name of its own."""
    taken: set[str] = set()
    names = []
    for word in words:
        name, number = word, 1
        while name in taken or (number > 1 and name in words):
            number += 1
            name = f"{word} {number}"
        taken.add(name)
        names.append(name)
    return names


def _check_callables(step: object, encode: object) -> None:
    for role, call in (("step", step), ("encode", encode)):
        if not callable(call) and not (role == "encode" and call is None):
            raise GlasError(f"{role} must be a torch module or a callable, got {type(call).__name__}")


def _checked_vocabulary(vocabulary: Sequence[str]) -> tuple[str, ...]:
    if isinstance(vocabulary, str) or not isinstance(vocabulary, Sequence):
        raise GlasError(f"a vocabulary must be a sequence of words, got {type(vocabulary).__name__}")
    words = tuple(vocabulary)
    if len(set(words)) < len(words):
        twice = next(word for i, word in enumerate(words) if word in words[:i])
        raise GlasError(f"a vocabulary must hold every word once, {twice!r} is in it twice")
    return words
