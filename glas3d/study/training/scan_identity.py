"""Recognise a scan by its voxels, however its file was written."""

from __future__ import annotations

import numpy as np
from nibabel.orientations import apply_orientation, io_orientation

from glas3d.hashing import bytes_sha256
from glas3d.imaging.scan import Scan


def voxels_sha256(scan: Scan) -> str:
    """Return one hash of the voxels of a scan, the same for every file that holds them.

    The hash is that of shape and float32 values in the order right, anterior, superior. It does not depend on
    compression, data type, the order of the axes in the file, nor on the position of the head that the header states.
    """
    data = apply_orientation(scan.data, io_orientation(scan.affine)) + np.float32(0)  # no negative zero
    return bytes_sha256([repr(data.shape).encode(), np.ascontiguousarray(data, dtype="<f4").tobytes()])
