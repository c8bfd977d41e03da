"""A scan that several tests explain."""

import pytest

from tests.imaging.cases import HEADS, head


@pytest.fixture(scope="session")
def scan():
    """Return the template on a grid of 6 mm with its first axis to the left, in a scanner's units."""
    return head(HEADS["LAS"])
