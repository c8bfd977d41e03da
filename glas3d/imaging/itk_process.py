"""Read one of ITK's transform files, in a process of its own: a damaged file can end or hang the code that reads it."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

_MEMORY = 16 * 2**30  # a damaged file may state any size


def main(source: Path, target: Path) -> None:
    """Write the parts of a transform to an ``.npz`` file, in the order in which a point passes them.

    Parameters
    ----------
    source
        File of a transform that ITK reads.
    target
        Gets ``matrix0``, 4x4, or ``vectors0``, ``(x, y, z, 3)``, and ``affine0``, 4x4, then those of the next part;
        all in ITK's world, LPS+ in mm.
    """
    itk: Any = importlib.import_module("SimpleITK")
    try:
        transform = itk.ReadTransform(str(source))
    except RuntimeError as error:
        sys.exit(str(error).strip().splitlines()[-1].removeprefix("sitk::ERROR: "))
    arrays: dict[str, np.ndarray] = {}
    for number, part in enumerate(_in_order(transform)):
        if part.GetDimension() != 3:
            sys.exit(f"it has {part.GetDimension()} dimensions")
        if part.IsLinear():
            arrays[f"matrix{number}"] = _matrix(part)
        elif isinstance(part, itk.DisplacementFieldTransform):
            image = part.GetDisplacementField()
            arrays[f"vectors{number}"] = itk.GetArrayViewFromImage(image).transpose(2, 1, 0, 3).astype(np.float32)
            affine = np.eye(4)
            affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
            affine[:3, 3] = image.GetOrigin()
            arrays[f"affine{number}"] = affine
        else:
            sys.exit(f"it holds a {part.GetName()}, and only matrices and displacement fields can be used")
    np.savez(target, **arrays)  # type: ignore[arg-type]


def _in_order(transform: Any) -> Iterator[Any]:
    """Yield the transforms of a composite, of composites too; a composite passes a point to the last one first."""
    transform = transform.Downcast()
    if not hasattr(transform, "GetNthTransform"):
        yield transform
        return
    for number in reversed(range(transform.GetNumberOfTransforms())):
        yield from _in_order(transform.GetNthTransform(number))


def _matrix(transform: Any) -> np.ndarray:
    """Return the 4x4 matrix of a linear transform: the origin and a point on each axis give it."""
    origin, *ends = (
        np.array(transform.TransformPoint(point)) for point in np.vstack([np.zeros(3), 100 * np.eye(3)]).tolist()
    )
    matrix = np.eye(4)
    matrix[:3, :3], matrix[:3, 3] = (np.array(ends) - origin).T / 100, origin
    return matrix


if __name__ == "__main__":
    with suppress(ImportError, ValueError, OSError):  # not on Windows
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    main(Path(sys.argv[1]), Path(sys.argv[2]))
