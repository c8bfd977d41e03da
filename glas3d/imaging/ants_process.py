"""One ANTs registration in a process of its own: ITK fixes its number of threads when it is first used."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    """Do what ``job.json`` says with the images beside it; what was found lies there as ``found_*``."""
    ants: Any = importlib.import_module("ants")
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    images = {name: ants.image_read(str(folder / f"{name}.nii")) for name in ("fixed", "moving", "mask")}
    ants.registration(**images, **job, outprefix=str(folder / "found_"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
