import numpy as np
import pytest

from glas3d.checks import whole_number
from glas3d.errors import GlasError


@pytest.mark.parametrize("value", [2, np.int64(2), np.uint8(2)])
def test_integers_of_python_and_numpy_are_whole_numbers(value):
    number = whole_number("n", value, least=2)
    assert (number, type(number)) == (2, int)


@pytest.mark.parametrize("value", [1, 2.0, True, np.bool_(True), np.float32(2), "2", None])
def test_other_values_are_refused(value):
    with pytest.raises(GlasError, match="n must be a whole number of at least 2, got ") as caught:
        whole_number("n", value, least=2)
    assert str(caught.value).endswith(repr(value))
