"""The options of fetching OASIS-1, declared once for Python and the command."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from glas3d.checks import whole_number
from glas3d.errors import GlasError
from glas3d.options import option


@dataclass(frozen=True, kw_only=True)
class OasisOptions:
    """Which participants of OASIS-1 make the groups, and where the downloaded files are kept.

    Parameters
    ----------
    least_age
        Age in years from which participants belong to AD or NC. Default: 60.
    participants
        Use only the first participants of the data set, for a trial (in Python None means all). The download is the
        same. Default: all.
    data_dir
        Folder in which nilearn keeps what it downloads; nothing is downloaded where it has everything already.
        Default: nilearn's, which is NILEARN_DATA or nilearn_data in the home folder.

    Raises
    ------
    GlasError
        An age below 0, or a number of participants below 1.
    """

    least_age: float = option(60.0, group="Participants")
    participants: int | None = option(None, group="Participants", command=int)
    data_dir: str | os.PathLike[str] | None = option(None, group="Input", command=Path)

    def __post_init__(self) -> None:
        if not self.least_age >= 0:
            raise GlasError(f"least_age must be 0 or more years, got {self.least_age}")
        if self.participants is not None:
            object.__setattr__(self, "participants", whole_number("participants", self.participants, least=1))
