"""Names as BIDS wants them: labels, and the ids of participants and sessions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal

PARTICIPANT_ID = re.compile(r"sub-[0-9A-Za-z]+")
SESSION_ID = re.compile(r"ses-[0-9A-Za-z]+")


def bids_id(label: str, entity: Literal["sub", "ses"]) -> str:
    """Return the id of a participant or session, which tables may give without its ``sub-`` or ``ses-``.

    Examples
    --------
    >>> bids_id("01", "sub"), bids_id("sub-01", "sub"), bids_id("M00", "ses")
    ('sub-01', 'sub-01', 'ses-M00')
    """
    prefix = f"{entity}-"
    return label if label.startswith(prefix) else prefix + label


def bids_label(text: str) -> str:
    """Return the part of a text that a BIDS label may hold: its ASCII letters and digits.

    Examples
    --------
    >>> bids_label("adnc-simulated v2")
    'adncsimulatedv2'
    """
    return "".join(c for c in text if c.isascii() and c.isalnum())


def have_distinct_labels(names: Sequence[str]) -> bool:
    """Return whether every name has a BIDS label, and no two names the same.

    Examples
    --------
    >>> have_distinct_labels(["T1", "T2"]), have_distinct_labels(["a b", "ab"]), have_distinct_labels(["?"])
    (True, False, False)
    """
    labels = {bids_label(name) for name in names}
    return "" not in labels and len(labels) == len(names)
