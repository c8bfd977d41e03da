"""One ANTs registration in a process of its own, because ITK fixes its number of threads when it is first used."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path
from typing import Any


def main(folder: Path) -> None:
    """Register the images of a folder with the settings in its ``job.json``; write the transforms as ``result_*``."""
    ants: Any = importlib.import_module("ants")
    job = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    images = {name: ants.image_read(str(folder / f"{name}.nii")) for name in ("fixed", "moving", "mask")}
    ants.registration(**images, **job, outprefix=str(folder / "result_"))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
