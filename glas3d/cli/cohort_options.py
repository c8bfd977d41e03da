"""Options that commands about a study share: which scans, and a file of options."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, ArgumentCollection

from glas3d.cli.parameters import FLAG, SEVERAL, pairs

if TYPE_CHECKING:
    from glas3d.study.cohort.cohort import Cohort


@dataclass(frozen=True, kw_only=True)
class Who:
    """Which scans make the study.

    Parameters
    ----------
    participant_label
        Only these, such as 01 02.
    group_column
        Column of participants.tsv that says whom a participant belongs to.
    case
        Its value for cases.
    control
        Its value for controls.
    participants_tsv
        Table of the participants, when it is not that of the data set.
    suffix
        Of the scans' names.
    space
        Of the scans' names, such as MNI152NLin2009cAsym; none: files without it, in native space.
    session
        Only these, such as M00.
    desc
        Of the scans' names, such as preproc.
    res
        Of the scans' names.
    entity
        Others of the scans' names, such as label=GM run=1.
    extension
        Of the scans' names.
    prefix
        What stands before sub-, such as CAT12's mwp1.
    any_grid
        Scans need not share one grid; nor need they with --transform or --register.
    on_error
        What becomes of the others when a participant cannot be used: the work ends, or goes on without.
    """

    participant_label: Annotated[tuple[str, ...], SEVERAL] = ()
    group_column: str = "group"
    case: str = "AD"
    control: str = "NC"
    participants_tsv: Path | None = None
    suffix: str = "T1w"
    space: str | None = None
    session: Annotated[tuple[str, ...], SEVERAL] = ()
    desc: str | None = None
    res: str | None = None
    entity: Annotated[tuple[str, ...], SEVERAL] = ()
    extension: Annotated[tuple[str, ...], SEVERAL] = (".nii.gz", ".nii")
    prefix: str = ""
    any_grid: Annotated[bool, FLAG] = False
    on_error: Literal["fail", "skip"] = "fail"

    def read(self, bids_dir: Path, covariates: tuple[str, ...] = (), *, native: bool = False) -> Cohort:
        """Find them; scans of ``native`` spaces need not share a grid."""
        from glas3d.study import read_cohort

        same = {one.name: getattr(self, one.name) for one in fields(self) if one.name not in ("any_grid", "entity")}
        entities = pairs(self.entity, "--entity")
        same_grid = not (self.any_grid or native)
        return read_cohort(bids_dir, **same, entities=entities, covariates=covariates, same_grid=same_grid)


def from_file(app: App, commands: tuple[str, ...], arguments: ArgumentCollection) -> None:
    """Options of the file that ``--config`` names, where the command line does not give them."""
    from cyclopts.config import Dict

    from glas3d.study.config import read_config

    given = [token.value for one in arguments if one.name == "--config" for token in one.tokens]
    if not given:
        return
    known = {one.name.removeprefix("--").replace("-", "_") for one in arguments if one.name.startswith("--")}
    options = read_config(Path(given[-1]), known - {"config"})
    dashed = {name.replace("_", "-"): value for name, value in options.items()}
    Dict(dashed, use_commands_as_keys=False, source=given[-1])(app, commands, arguments)
