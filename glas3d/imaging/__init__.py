"""Scans, spaces and atlases: everything that knows about NIfTI (nibabel, nilearn)."""
