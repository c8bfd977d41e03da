"""Audit: whether the model reads something outside the brain, or its outline, brightness or exact position

After Tinauer et al. 2022 (doi:10.1038/s41598-022-24541-4) and 2025 (arXiv 2501.15831), who divided relevance among the
inside of the brain, a shell of 3 mm around it and the rest, and trained on binarised scans. Here the evidence of these
parts is that of the model itself, from its outputs for a part alone and without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

import numpy as np
from scipy.ndimage import affine_transform

from glas3d.core.account import LEAST_EFFECT
from glas3d.evaluate.audits.audit import Audit, Number
from glas3d.evaluate.audits.audited_scan import OUTSIDE, AuditedScan
from glas3d.imaging.tissue import tissue_contrast

EVENNESS, BRIGHTNESS = 0.3, 0.25
"""A model reads brightness where the scan's own brightness has more than this share of the effect, and a change of
intensity acts as evenly as this on all blocks of the head (cosine with their brightness)."""
MOVED = 1.0
"""The largest root mean square change, as a share of the effect, of a scan moved by a voxel or turned by 2 degrees."""
BINARISED = 0.5
"""The largest share of the effect that may be left of a scan of which only the outline is left."""

_GAIN, _DEGREES, _BLOCK_MM = 0.1, 2.0, 24.0


def audit_scan(scan: AuditedScan) -> Audit:
    """Return the audit of one scan."""
    if not scan.has_effect:
        return scan.audit(
            "shortcut",
            "n/a",
            f"No verdict: the scan differs from the reference by less than {LEAST_EFFECT:g} in log-odds, "
            "which leaves nothing to divide among parts: audit a scan of the class that is explained.",
        )
    parts = _parts(scan)
    binarised = binarised_share(scan)
    shifted, turned = (abs(scan.share(_rms(change))) for change in jitter(scan))
    gain, evenness = gain_and_evenness(scan)
    gained = scan.share(gain)
    ratio, of_brightness = brightness_evidence(scan)
    outside, bright = parts["outside"][0], scan.share(of_brightness)
    failed, warned = [], []
    if abs(outside) > OUTSIDE:
        failed.append(f"{outside:z.0%} of the effect comes from outside the brain")
    if abs(bright) > BRIGHTNESS and abs(evenness) > EVENNESS:
        failed.append(
            f"{bright:z.0%} of the effect comes from the brightness of the whole scan, {ratio:z.2f} times that of the "
            f"reference: intensity acts evenly from everywhere (cosine {evenness:z.2f})"
        )
    if binarised > BINARISED:
        warned.append(f"{binarised:z.0%} of the effect is left when only the outline of the tissue is left")
    if max(shifted, turned) > MOVED:
        warned.append(
            f"a shift by one voxel changes the output by {shifted:z.0%} of the effect and a turn by 2 degrees by "
            f"{turned:z.0%}: exact alignment matters"
        )
    numbers = [
        Number("effect", scan.effect, scan.scale, "output of the scan minus that of the reference"),
        *_part_numbers(parts),
        Number("outside_allowed", OUTSIDE, "share", "largest size of outside that passes"),
        Number("binarised", binarised, "share", "what is left of the effect when tissue is 1 and all else is air"),
        Number("binarised_allowed", BINARISED, "share", "above this the check warns"),
        Number("shift_1_voxel", shifted, "share", "root mean square change by six shifts of one voxel"),
        Number("turn_2_degrees", turned, "share", "root mean square change by six turns of 2 degrees"),
        Number("moved_allowed", MOVED, "share", "above this the check warns"),
        Number("brightness", ratio, "ratio", "brightness of the scan over that of the reference"),
        Number("of_brightness", bright, "share", "evidence of this brightness over the effect"),
        Number(
            "gain_10_percent",
            gained,
            "share",
            "output with 1.1 times the intensity minus that with 0.9 times, over the effect",
        ),
        Number("gain_evenness", evenness, "cosine", "of the change by each block's intensity with its brightness"),
        Number("of_brightness_allowed", BRIGHTNESS, "share", "largest size of of_brightness that passes"),
        Number("evenness_allowed", EVENNESS, "cosine", "largest size of gain_evenness that passes"),
    ]
    if failed or warned:
        sentence = "; ".join([*failed, *warned])
        return scan.audit("shortcut", "fail" if failed else "warn", f"{sentence[0].upper()}{sentence[1:]}.", numbers)
    of_the_scan = f", {bright:z.0%} from the brightness of the whole scan" if np.isfinite(bright) else ""
    statement = (
        f"{parts['inside'][0]:z.0%} of the effect comes from inside the brain, {outside:z.0%} from outside "
        f"({OUTSIDE:z.0%} allowed){of_the_scan}. {binarised:z.0%} is left when only the outline of the tissue is left "
        f"({BINARISED:z.0%} allowed). A shift by one voxel changes the output by {shifted:z.0%} of the effect, a turn "
        f"by 2 degrees by {turned:z.0%} ({MOVED:z.0%} allowed), and 1.1 times the intensity in place of 0.9 times by "
        f"{gained:+z.0%}."
    )
    return scan.audit("shortcut", "pass", statement, numbers)


def _parts(scan: AuditedScan) -> dict[str, tuple[float, float]]:
    """Return the share of the effect and the share of the volume of each part of the head."""
    return {name: (scan.shares_of_parts[name], float(part.mean())) for name, part in scan.parts.items()}


def _part_numbers(parts: dict[str, tuple[float, float]]) -> Iterator[Number]:
    where = {
        "inside": "inside the brain",
        "shell": "in the 3 mm (at least a voxel) around the brain",
        "outside": "farther outside",
    }
    for name, (share, volume) in parts.items():
        yield Number(name, share, "share", f"evidence {where[name]} over the effect")
        density = share / volume if volume else float("nan")
        yield Number(f"{name}_per_volume", density, "ratio", f"the same over the share of the volume, {volume:.3f}")


def binarised_share(scan: AuditedScan) -> float:
    """Return the effect that is left when tissue has one intensity and all else is air, in scan and reference alike."""
    both = []
    for volume in (scan.volume, scan.reference):
        contrast = volume - scan.air
        tissue = contrast > 0.1 * np.percentile(contrast, 99, axis=(1, 2, 3), keepdims=True)
        count = np.maximum(tissue.sum(axis=(1, 2, 3), keepdims=True), 1)
        mean = (contrast * tissue).sum(axis=(1, 2, 3), keepdims=True) / count
        both.append((scan.air + tissue * mean).astype(np.float32))
    binarised, without = scan.outputs(both)
    return scan.share(float(binarised - without))


def jitter(scan: AuditedScan) -> tuple[np.ndarray, np.ndarray]:
    """Return the changes of the effect by six shifts of a voxel, and by six turns of 2 degrees around the centre."""
    shifts = scan.outputs(
        np.stack([_moved(channel, np.eye(3), _unit(axis) * sign) for channel in _above_air(scan)]) + scan.air
        for axis, sign in product(range(3), (-1, 1))
    )
    spacing = np.array(scan.grid.spacing)
    turns = scan.outputs(
        np.stack([_moved(channel, _turn(axis, sign * _DEGREES, spacing), np.zeros(3)) for channel in _above_air(scan)])
        + scan.air
        for axis, sign in product(range(3), (-1, 1))
    )
    return shifts - scan.value.intact, turns - scan.value.intact


def gain_and_evenness(scan: AuditedScan) -> tuple[float, float]:
    """Return how +-10 % of intensity changes the output, and how evenly that comes from all blocks of the head.

    Evenness is the cosine between the change by the intensity of each block of 24 mm alone and the block's brightness,
    the sum of its intensities over air: 1 for a model that reads the mean brightness, and about 0 for one that reads
    few places, or some with a positive and others with a negative sign.
    """
    contrast = scan.volume - scan.air
    blocks = _blocks(scan)
    numbers = np.unique(blocks[blocks > 0])

    def ends() -> Iterator[np.ndarray]:
        for sign in (1, -1):
            yield scan.volume + np.float32(sign * _GAIN) * contrast
        for number in numbers:
            for sign in (1, -1):
                yield scan.volume + np.float32(sign * _GAIN) * np.where(blocks == number, contrast, np.float32(0))

    brighter, darker = scan.outputs(ends()).reshape(-1, 2).T
    change = brighter - darker
    mass = np.array([contrast[:, blocks == number].sum(dtype=np.float64) for number in numbers])
    size = float(np.linalg.norm(change[1:]) * np.linalg.norm(mass))
    return float(change[0]), float(change[1:] @ mass / size) if size else 0.0


def brightness_evidence(scan: AuditedScan) -> tuple[float, float]:
    """Return how much brighter the scan is than the reference, and the evidence of that alone.

    Brightness is the 90th percentile of tissue over air, as in `intensity_scale`. Its evidence is the mean
    of what it adds to the reference, and of what the scan loses with the brightness of the reference. NaN where the
    reference has no tissue, such as darkness.
    """
    contrast, of_reference = scan.volume - scan.air, scan.reference - scan.air
    scales = [tissue_contrast(volume, 0.0) for volume in (contrast, of_reference)]
    if not all(values.size for values in scales):
        return float("nan"), float("nan")
    bright, usual = (float(np.percentile(values, 90)) for values in scales)
    ratio = bright / usual
    changed = [scan.air + of_reference * np.float32(ratio), scan.air + contrast / np.float32(ratio)]
    added, without = scan.outputs(changed)
    return ratio, float((added - scan.value.removed + scan.value.intact - without) / 2)


def _blocks(scan: AuditedScan) -> np.ndarray:
    """Return blocks of about 24 mm of tissue, ``(*spatial)`` int: 0 for air, then a number for each block."""
    shape, spacing = scan.grid.shape, scan.grid.spacing
    numbers = np.zeros(shape, dtype=np.int64)
    for axis, (n, size) in enumerate(zip(shape, spacing, strict=True)):
        k = max(1, round(n * size / _BLOCK_MM))
        cells = (np.arange(n) * k // n).reshape([-1 if a == axis else 1 for a in range(3)])
        numbers = numbers * k + cells
    return np.where(scan.tissue, numbers + 1, 0)


def _above_air(scan: AuditedScan) -> Iterator[np.ndarray]:
    yield from scan.volume - scan.air


def _moved(channel: np.ndarray, matrix: np.ndarray, shift: np.ndarray) -> np.ndarray:
    """Return a channel, turned around its centre and shifted in voxels, linearly interpolated with 0 outside."""
    centre = (np.array(channel.shape) - 1) / 2
    moved: np.ndarray = affine_transform(channel, matrix, centre - matrix @ centre + shift, order=1)
    return moved


def _unit(axis: int) -> np.ndarray:
    return np.asarray(np.eye(3)[axis])


def _turn(axis: int, degrees: float, spacing: np.ndarray) -> np.ndarray:
    """Return the matrix in voxels of a turn around an axis of the grid in mm."""
    a, b = (other for other in range(3) if other != axis)
    angle = np.deg2rad(degrees)
    turn = np.eye(3)
    turn[a, a] = turn[b, b] = np.cos(angle)
    turn[a, b], turn[b, a] = -np.sin(angle), np.sin(angle)
    return np.asarray(turn * spacing[None, :] / spacing[:, None])


def _rms(values: np.ndarray) -> float:
    return float(np.sqrt(np.mean(values**2)))
