"""Record which participants trained each model of a study, so that nobody is explained by a model trained on them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from glas3d.errors import GlasError, reason
from glas3d.hashing import text_sha256
from glas3d.output import write_json
from glas3d.reading import read_json_object

PARTS = ("train", "validation", "test")
MANIFEST = Path("configs") / "manifest.json"  # in a bundle, whose hash includes it


@dataclass(frozen=True)
class FoldScan:
    """A scan that a fold was trained, stopped or tested with.

    Attributes
    ----------
    participant_id, session
        ``session`` is empty if the study has none.
    group
        The participant's group when the fold was trained.
    sha256
        Hash of the scan's file.
    voxels_sha256
        Hash of its voxels (see `glas3d.study.training.scan_identity.voxels_sha256`); empty in manifests of earlier
        versions. It does not decide the model, and is no part of a comparison.
    """

    participant_id: str
    session: str
    group: str
    sha256: str
    voxels_sha256: str = field(default="", compare=False)


@dataclass(frozen=True, eq=False)
class FoldManifest:
    """The scans and settings from which the model of one fold was made.

    Attributes
    ----------
    fold, folds
        The fold's number, from 1, and how many folds the study has.
    seed
        Seed of the weights, the order of the scans and the augmentation.
    settings
        Everything else that decides the model, as read from JSON.
    train, validation, test
        The scans that trained the model, those that decided when to stop, and those it never saw.
    """

    fold: int
    folds: int
    seed: int
    settings: Mapping[str, Any]
    train: tuple[FoldScan, ...]
    validation: tuple[FoldScan, ...]
    test: tuple[FoldScan, ...]

    @cached_property
    def settings_sha256(self) -> str:
        """One hash of all settings."""
        return text_sha256(json.dumps(self.settings, sort_keys=True))

    @cached_property
    def seen(self) -> frozenset[str]:
        """Ids of the participants that trained the model or decided when to stop."""
        return frozenset(scan.participant_id for scan in (*self.train, *self.validation))

    @cached_property
    def seen_files(self) -> Mapping[str, FoldScan]:
        """The scans of the participants seen, by the hash of the file; the first of several with one hash."""
        return {scan.sha256: scan for scan in reversed((*self.train, *self.validation))}

    @cached_property
    def seen_voxels(self) -> Mapping[str, FoldScan]:
        """The scans of the participants seen, by the hash of the voxels, where it was recorded."""
        scans = reversed((*self.train, *self.validation))
        return {scan.voxels_sha256: scan for scan in scans if scan.voxels_sha256}

    def difference(self, other: FoldManifest) -> str | None:
        """Return in words what differs from another manifest; None if both make the same model."""
        for name in ("fold", "folds", "seed"):
            if getattr(self, name) != getattr(other, name):
                return name
        if self.settings_sha256 != other.settings_sha256:
            return ", ".join(_differing_keys(self.settings, other.settings))
        for part in PARTS:
            if set(getattr(self, part)) != set(getattr(other, part)):
                return f"the scans to {'test' if part == 'test' else 'train'} with"
        return None

    def write(self, bundle: Path) -> None:
        """Write the manifest into the folder of a bundle."""
        content: dict[str, Any] = {name: getattr(self, name) for name in ("fold", "folds", "seed")}
        content |= {"settings": dict(self.settings), "settings_sha256": self.settings_sha256}
        content |= {part: [vars(scan) for scan in getattr(self, part)] for part in PARTS}
        write_json(content)(bundle / MANIFEST)

    @classmethod
    def read(cls, bundle: Path) -> FoldManifest:
        """Read the manifest in the folder of a bundle.

        Raises
        ------
        GlasError
            It does not exist, is damaged, or its settings do not have the hash it was written with.
        """
        path = bundle / MANIFEST
        if not os.path.lexists(path):
            raise GlasError(f"it is not recorded which participants trained the model {bundle}: it has no {MANIFEST}")
        content = read_json_object(path, "the record of a training")
        try:
            parts = {part: tuple(FoldScan(**scan) for scan in content[part]) for part in PARTS}
            fold, folds, seed = (int(content[name]) for name in ("fold", "folds", "seed"))
            manifest = cls(fold, folds, seed, dict(content["settings"]), *(parts[part] for part in PARTS))
            written = content["settings_sha256"]
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise GlasError(f"{path} is damaged: {type(error).__name__}: {reason(error)}") from None
        if manifest.settings_sha256 != written:
            raise GlasError(f"{path} is damaged: its settings are not those it was written with")
        return manifest


@dataclass(frozen=True, eq=False)
class Manifest:
    """The models of a study and what each was made from: all its folds, or one of them.

    Attributes
    ----------
    folder
        The folder it was read from.
    folds
        The manifest of each bundle, by the bundle's folder, in order.
    """

    folder: Path
    folds: Mapping[Path, FoldManifest]

    @classmethod
    def load(cls, models_folder: str | os.PathLike[str]) -> Manifest:
        """Read a folder of ``fold-*`` bundles, or one bundle.

        Raises
        ------
        GlasError
            The folder has no model with a manifest, lacks a fold, or has folds of different studies.
        """
        folder = Path(models_folder)
        if (folder / MANIFEST).is_file():
            return cls(folder, {folder: FoldManifest.read(folder)})
        if not folder.is_dir():
            came = "is a file" if folder.exists() else "does not exist"
            raise GlasError(f"models must be a folder that glas3d train wrote, {folder} {came}")
        manifests = {bundle: FoldManifest.read(bundle) for bundle in fold_folders(folder)}
        if not manifests:
            raise GlasError(f"{folder} contains no folds from glas3d train: it has no fold-1 with {MANIFEST}")
        _check_folds(folder, manifests)
        return cls(folder, manifests)

    @cached_property
    def participants(self) -> frozenset[str]:
        """Ids of all participants of the study."""
        return frozenset(
            scan.participant_id
            for manifest in self.folds.values()
            for part in PARTS
            for scan in getattr(manifest, part)
        )

    def fold_of(self, participant_id: str) -> Path:
        """Return the bundle that never saw a participant of the study.

        Raises
        ------
        GlasError
            The participant is not of the study, or every bundle has seen them.
        """
        if participant_id not in self.participants:
            raise GlasError(f"no participant {participant_id} in the study of {self.folder}")
        if participant_id not in self._tested_by:
            raise GlasError(f"every model in {self.folder} was trained with {participant_id}")
        return self._tested_by[participant_id]

    @cached_property
    def _tested_by(self) -> Mapping[str, Path]:
        """The bundle that tests each participant: one table, since a study may look up very many."""
        return {scan.participant_id: bundle for bundle, manifest in self.folds.items() for scan in manifest.test}

    def saw(self, bundle: str | os.PathLike[str], participant_id: str) -> bool:
        """Return whether a participant trained a bundle's model, or decided when to stop.

        Raises
        ------
        GlasError
            The bundle is not one of this study.
        """
        return participant_id in self._manifest_of(bundle).seen

    def check(
        self,
        bundle: str | os.PathLike[str],
        participant_id: str,
        sha256: str | None = None,
        *,
        voxels_sha256: str | None = None,
        in_sample: bool = False,
    ) -> None:
        """Refuse to explain a participant's scan by a model that was trained on it.

        Parameters
        ----------
        bundle
            Folder of the model.
        participant_id
            Whose scan is to be explained.
        sha256
            Hash of the scan's file, to recognise it under another participant's name.
        voxels_sha256
            Hash of its voxels, to recognise them in another file.
        in_sample
            Whether a model that was trained on the participant may explain them.

        Raises
        ------
        GlasError
            The model has seen the participant, or the scan as that of another participant.
        """
        manifest = self._manifest_of(bundle)
        if in_sample:
            return
        advice = "set in_sample=True if that is intended"
        if participant_id in manifest.seen:
            raise GlasError(f"the model {Path(bundle)} was trained with {participant_id}: {advice}")
        if sha256 is not None and sha256 in manifest.seen_files:
            scan = manifest.seen_files[sha256]
            raise GlasError(
                f"the scan of {participant_id} is the file the model {Path(bundle)} was trained with as "
                f"{scan.participant_id}{' ' + scan.session if scan.session else ''}: {advice}"
            )
        if voxels_sha256 is not None and voxels_sha256 in manifest.seen_voxels:
            scan = manifest.seen_voxels[voxels_sha256]
            raise GlasError(
                f"the scan of {participant_id} has the voxels of the scan the model {Path(bundle)} was trained with as "
                f"{scan.participant_id}{' ' + scan.session if scan.session else ''}: {advice}"
            )

    def knows(self, participant_id: str, sha256: str) -> bool:
        """Return whether a file is recorded as a scan of a participant, so that its voxels need not be compared.

        Training refuses two participants with the same voxels.
        """
        return (participant_id, sha256) in self._files

    @cached_property
    def _files(self) -> frozenset[tuple[str, str]]:
        manifests = self.folds.values()
        scans = (scan for manifest in manifests for part in PARTS for scan in getattr(manifest, part))
        return frozenset((scan.participant_id, scan.sha256) for scan in scans)

    @cached_property
    def records_voxels(self) -> bool:
        """Whether the hashes of voxels were recorded, which earlier versions did not."""
        return any(manifest.seen_voxels for manifest in self.folds.values())

    def models_for(
        self,
        participant_id: str,
        sha256: str | None = None,
        *,
        voxels_sha256: str | None = None,
        in_sample: bool = False,
    ) -> list[Path]:
        """Return the bundles that may explain a participant.

        That is the one that never saw a participant of the study, and all of them for any other participant.

        Parameters
        ----------
        participant_id, sha256, voxels_sha256
            See `check`.
        in_sample
            Return, for a participant of the study, the bundles that have seen them.

        Raises
        ------
        GlasError
            Every model has seen the participant or the scan.
        """
        if participant_id not in self.participants:
            for bundle in self.folds:
                self.check(bundle, participant_id, sha256, voxels_sha256=voxels_sha256, in_sample=in_sample)
            return list(self.folds)
        if in_sample:
            return [bundle for bundle, manifest in self.folds.items() if participant_id in manifest.seen]
        if len(self.folds) == 1:
            (bundle,) = self.folds
            self.check(bundle, participant_id)
        bundle = self.fold_of(participant_id)
        self.check(bundle, participant_id, sha256, voxels_sha256=voxels_sha256)
        return [bundle]

    def _manifest_of(self, bundle: str | os.PathLike[str]) -> FoldManifest:
        path = Path(bundle)
        if path in self.folds:
            return self.folds[path]
        for folder, manifest in self.folds.items():
            if folder.resolve() == path.resolve():
                return manifest
        raise GlasError(f"the model {path} is none of those in {self.folder}")


def fold_folders(folder: Path) -> list[Path]:
    """Return the folders ``fold-1``, ``fold-2`` and so on that exist, in the order of their numbers."""
    numbered = [path for path in folder.glob("fold-*") if path.is_dir() and path.name.removeprefix("fold-").isdecimal()]
    return sorted(numbered, key=lambda path: int(path.name.removeprefix("fold-")))


def _check_folds(folder: Path, manifests: Mapping[Path, FoldManifest]) -> None:
    """Refuse folds that are not all those of one study, each testing other participants."""
    first = next(iter(manifests.values()))
    tested: dict[str, Path] = {}
    for bundle, manifest in manifests.items():
        if manifest.settings_sha256 != first.settings_sha256 or manifest.folds != first.folds:
            raise GlasError(f"the folds of a study must be trained alike, {bundle} differs from the first")
        if bundle.name != f"fold-{manifest.fold}":
            raise GlasError(f"a fold must keep its name, {bundle} is fold {manifest.fold}")
        for participant_id in sorted({scan.participant_id for scan in manifest.test}):
            if participant_id in manifest.seen or participant_id in tested:
                raise GlasError(
                    f"{participant_id} must be tested by one fold that never saw it, {bundle} records otherwise"
                )
            tested[participant_id] = bundle
    missing = sorted({*range(1, first.folds + 1)} - {manifest.fold for manifest in manifests.values()})
    if missing:
        raise GlasError(f"a study must be whole, {folder} lacks fold {', '.join(map(str, missing))}")


def _differing_keys(settings: Mapping[str, Any], other: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in {*settings, *other} if settings.get(key) != other.get(key))
