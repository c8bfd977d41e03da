"""Which participants each model of a study has seen, so that nobody is explained by a model trained on them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from glas3d.errors import GlasError
from glas3d.hashing import text_sha256
from glas3d.output import write_json

PARTS = ("train", "validation", "test")
PLACE = Path("configs") / "manifest.json"  # in a bundle, whose hash covers it


@dataclass(frozen=True)
class Seen:
    """A scan a fold was made with.

    Attributes
    ----------
    participant_id, session
        ``session`` is empty where there is none.
    group
        What it was trained or tested as.
    sha256
        Of the file.
    """

    participant_id: str
    session: str
    group: str
    sha256: str


@dataclass(frozen=True, eq=False)
class FoldManifest:
    """What one fold's model was made from.

    Attributes
    ----------
    fold, folds
        This one, from 1, of so many.
    seed
        Of its weights, order and augmentation.
    settings
        Everything else that decides it, as JSON has it.
    train, validation, test
        Scans that trained it, that said when to stop, and that it never saw.
    """

    fold: int
    folds: int
    seed: int
    settings: Mapping[str, Any]
    train: tuple[Seen, ...]
    validation: tuple[Seen, ...]
    test: tuple[Seen, ...]

    @cached_property
    def settings_sha256(self) -> str:
        """One hash over the settings."""
        return text_sha256(json.dumps(self.settings, sort_keys=True))

    @cached_property
    def seen(self) -> frozenset[str]:
        """Participants it was trained on or stopped by."""
        return frozenset(one.participant_id for one in (*self.train, *self.validation))

    @cached_property
    def seen_files(self) -> Mapping[str, Seen]:
        """Their scans by the hash of the file, the first of several."""
        return {one.sha256: one for one in reversed((*self.train, *self.validation))}

    def difference(self, other: FoldManifest) -> str | None:
        """What differs from another, in words; None when both make the same model."""
        for name in ("fold", "folds", "seed"):
            if getattr(self, name) != getattr(other, name):
                return name
        if self.settings_sha256 != other.settings_sha256:
            return ", ".join(_differing(self.settings, other.settings))
        for part in PARTS:
            if set(getattr(self, part)) != set(getattr(other, part)):
                return f"the scans to {'test' if part == 'test' else 'train'} with"
        return None

    def write(self, bundle: Path) -> None:
        """Put it into a bundle's folder."""
        content: dict[str, Any] = {name: getattr(self, name) for name in ("fold", "folds", "seed")}
        content |= {"settings": dict(self.settings), "settings_sha256": self.settings_sha256}
        content |= {part: [vars(one) for one in getattr(self, part)] for part in PARTS}
        write_json(content)(bundle / PLACE)

    @classmethod
    def read(cls, bundle: Path) -> FoldManifest:
        """From a bundle's folder.

        Raises
        ------
        GlasError
            There is none, it is damaged, or its settings are not those of its hash.
        """
        path = bundle / PLACE
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            parts = {part: tuple(Seen(**one) for one in content[part]) for part in PARTS}
            fold, folds, seed = (int(content[name]) for name in ("fold", "folds", "seed"))
            found = cls(fold, folds, seed, dict(content["settings"]), *(parts[part] for part in PARTS))
            stated = content["settings_sha256"]
        except FileNotFoundError:
            raise GlasError(f"nothing says whom the model {bundle} was trained on: it has no {PLACE}") from None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise GlasError(f"{path} is damaged: {type(error).__name__} {error}") from None
        if found.settings_sha256 != stated:
            raise GlasError(f"{path} is damaged: its settings are not those it was written with")
        return found


@dataclass(frozen=True, eq=False)
class Manifest:
    """The folds of a study, or one model of it.

    Attributes
    ----------
    place
        The folder it was loaded from.
    folds
        Bundle folders and what each was made from, in order.
    """

    place: Path
    folds: Mapping[Path, FoldManifest]

    @classmethod
    def load(cls, models_folder: str | os.PathLike[str]) -> Manifest:
        """Read a folder of ``fold-*`` bundles, or one bundle.

        Raises
        ------
        GlasError
            No model there with a manifest, folds that are missing, or folds of different studies.
        """
        place = Path(models_folder)
        if (place / PLACE).is_file():
            return cls(place, {place: FoldManifest.read(place)})
        if not place.is_dir():
            raise GlasError(f"models must lie in a folder, {place} is {'a file' if place.exists() else 'not there'}")
        found = {bundle: FoldManifest.read(bundle) for bundle in fold_folders(place)}
        if not found:
            raise GlasError(f"nothing says whom the models in {place} were trained on: it has no fold-1 with {PLACE}")
        first = next(iter(found.values()))
        tested: dict[str, Path] = {}
        for bundle, one in found.items():
            if one.settings_sha256 != first.settings_sha256 or one.folds != first.folds:
                raise GlasError(f"the folds of a study must be trained alike, {bundle} differs from the first")
            if bundle.name != f"fold-{one.fold}":
                raise GlasError(f"a fold must keep its name, {bundle} is fold {one.fold}")
            for name in sorted({scan.participant_id for scan in one.test}):
                if name in one.seen or name in tested:
                    raise GlasError(f"{name} must be tested by one fold that never saw it, {bundle} says otherwise")
                tested[name] = bundle
        lacking = sorted({*range(1, first.folds + 1)} - {one.fold for one in found.values()})
        if lacking:
            raise GlasError(f"a study must be whole, {place} lacks fold {', '.join(map(str, lacking))}")
        return cls(place, found)

    @cached_property
    def participants(self) -> frozenset[str]:
        """Everyone in the study."""
        return frozenset(scan.participant_id for one in self.folds.values() for scan in _scans(one))

    def fold_of(self, participant_id: str) -> Path:
        """The bundle that never saw a participant of the study.

        Raises
        ------
        GlasError
            Nobody of the study, or there is no such bundle.
        """
        if participant_id not in self.participants:
            raise GlasError(f"no participant {participant_id} in the study of {self.place}")
        if participant_id not in self._tested:
            raise GlasError(f"every model in {self.place} was trained with {participant_id}")
        return self._tested[participant_id]

    @cached_property
    def _tested(self) -> Mapping[str, Path]:
        """The bundle that tests a participant; looked up for everyone of a study, which may be many."""
        return {scan.participant_id: bundle for bundle, one in self.folds.items() for scan in one.test}

    def saw(self, bundle: str | os.PathLike[str], participant_id: str) -> bool:
        """Whether a bundle was trained on a participant, or stopped by one.

        Raises
        ------
        GlasError
            It is no bundle of this study.
        """
        return participant_id in self._one(bundle).seen

    def check(
        self, bundle: str | os.PathLike[str], participant_id: str, sha256: str | None = None, *, in_sample: bool = False
    ) -> None:
        """Make sure that a bundle may explain a participant's scan.

        Parameters
        ----------
        sha256
            Of the scan's file, to find it under another name.
        in_sample
            Whether a model that was trained on them will do.

        Raises
        ------
        GlasError
            The bundle has seen the participant, or the scan as somebody else's.
        """
        one = self._one(bundle)
        if in_sample:
            return
        advice = "ask for in_sample if that is meant"
        if participant_id in one.seen:
            raise GlasError(f"the model {Path(bundle)} was trained with {participant_id}: {advice}")
        if sha256 is not None and sha256 in one.seen_files:
            scan = one.seen_files[sha256]
            raise GlasError(
                f"the scan of {participant_id} is the file the model {Path(bundle)} was trained with as "
                f"{scan.participant_id}{' ' + scan.session if scan.session else ''}: {advice}"
            )

    def models_for(self, participant_id: str, sha256: str | None = None, *, in_sample: bool = False) -> list[Path]:
        """The bundles that may explain a participant: the one that never saw them, or all, for outsiders.

        Parameters
        ----------
        sha256, in_sample
            See `check`. In-sample, participants of the study get the bundles that have seen them.

        Raises
        ------
        GlasError
            No model is left that has not seen the participant or the scan.
        """
        if participant_id not in self.participants:
            for bundle in self.folds:
                self.check(bundle, participant_id, sha256, in_sample=in_sample)
            return list(self.folds)
        if in_sample:
            return [bundle for bundle, one in self.folds.items() if participant_id in one.seen]
        if len(self.folds) == 1:
            (bundle,) = self.folds
            self.check(bundle, participant_id)
        bundle = self.fold_of(participant_id)
        self.check(bundle, participant_id, sha256)
        return [bundle]

    def _one(self, bundle: str | os.PathLike[str]) -> FoldManifest:
        asked = Path(bundle)
        if asked in self.folds:
            return self.folds[asked]
        for place, one in self.folds.items():
            if place.resolve() == asked.resolve():
                return one
        raise GlasError(f"the model {Path(bundle)} is none of those in {self.place}")


def fold_folders(place: Path) -> list[Path]:
    """``fold-1``, ``fold-2`` and so on, as far as they are there."""
    named = [path for path in place.glob("fold-*") if path.is_dir() and path.name.removeprefix("fold-").isdecimal()]
    return sorted(named, key=lambda path: int(path.name.removeprefix("fold-")))


def _scans(one: FoldManifest) -> tuple[Seen, ...]:
    return (*one.train, *one.validation, *one.test)


def _differing(one: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    """Names of the settings that differ."""
    return sorted(key for key in {*one, *other} if one.get(key) != other.get(key))
