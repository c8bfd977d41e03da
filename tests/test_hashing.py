import hashlib

import numpy as np

from glas3d.hashing import arrays_sha256, bytes_sha256, file_sha256, text_sha256


def test_hashes_are_those_of_the_bytes(tmp_path):
    expected = hashlib.sha256("é1".encode()).hexdigest()
    (tmp_path / "a").write_text("é1", encoding="utf-8")
    assert (
        text_sha256("é1") == file_sha256(tmp_path / "a") == bytes_sha256(["é".encode(), memoryview(b"1")]) == expected
    )


def test_arrays_count_in_c_order():
    values = np.arange(6.0).reshape(2, 3)
    expected = hashlib.sha256(values.tobytes() + b"\x01").hexdigest()
    assert arrays_sha256(np.asfortranarray(values), np.ones(1, np.uint8)) == expected
