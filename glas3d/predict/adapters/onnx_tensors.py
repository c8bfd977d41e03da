"""Which files an ONNX file stores its tensors in, read from the fields of its protobuf messages.

ONNX files are read without the package ``onnx``, which ONNX Runtime does not need. Only the messages that can hold
tensors are entered; a test compares them with the definition of ONNX.
"""

from __future__ import annotations

from collections.abc import Iterator

# The messages that can hold tensors, and the fields by whose numbers others of them lie in them.
HOLDERS = {
    "ModelProto": {7: "GraphProto", 20: "TrainingInfoProto", 25: "FunctionProto"},
    "TrainingInfoProto": {1: "GraphProto", 2: "GraphProto"},
    "GraphProto": {1: "NodeProto", 5: "TensorProto", 15: "SparseTensorProto"},
    "FunctionProto": {7: "NodeProto", 11: "AttributeProto"},
    "NodeProto": {5: "AttributeProto"},
    "AttributeProto": {
        **{5: "TensorProto", 10: "TensorProto"},
        **{6: "GraphProto", 11: "GraphProto"},
        **{22: "SparseTensorProto", 23: "SparseTensorProto"},
    },
    "SparseTensorProto": {1: "TensorProto", 2: "TensorProto"},
    "TensorProto": {13: "StringStringEntryProto"},
}
# Fields of the entries of TensorProto.external_data.
_KEY, _VALUE = 1, 2

_VARINT, _EIGHT_BYTES, _LENGTH, _FOUR_BYTES = 0, 1, 2, 5
_LONGEST_VARINT, _LARGEST_KEY = 10, 2**32 - 1
_DEEPEST = 100  # as protobuf has it


def tensor_locations(content: bytes) -> set[str]:
    """Return the names of the files in which an ONNX file stores tensors, as they are written in it.

    A tensor that says so and is not stored there counts too: where a message is given in parts, protobuf merges them.

    Parameters
    ----------
    content
        The bytes of the file.

    Raises
    ------
    ValueError
        They are no protobuf message, are nested more deeply than protobuf reads, or a name is not in UTF-8.
    """
    return {location.decode() for location in _locations(memoryview(content), "ModelProto", 0)}


def _locations(message: memoryview, kind: str, depth: int) -> Iterator[bytes]:
    if depth > _DEEPEST:
        raise ValueError("its messages are nested too deeply")
    inner = HOLDERS[kind]
    for number, value in _fields(message):
        if value is None or number not in inner:
            continue
        if kind == "TensorProto":
            entry = {part: bytes(text) for part, text in _fields(value) if text is not None}  # the last counts
            if entry.get(_KEY) == b"location":
                yield entry.get(_VALUE, b"")
        else:
            yield from _locations(value, inner[number], depth + 1)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview | None]]:
    """Yield number and bytes of each field of a message; None for a field that is a number."""
    position = 0
    while position < len(message):
        key, position = _varint(message, position)
        number, kind = key >> 3, key & 7
        if key > _LARGEST_KEY or number == 0:
            raise ValueError("it is no protobuf message")
        size = {_EIGHT_BYTES: 8, _FOUR_BYTES: 4, _VARINT: 0}.get(kind)
        if kind == _VARINT:
            position = _varint(message, position)[1]
        elif kind == _LENGTH:
            size, position = _varint(message, position)
        if size is None or size > len(message) - position:
            raise ValueError("it is no protobuf message, or is truncated")
        yield number, message[position : position + size] if kind == _LENGTH else None
        position += size


def _varint(message: memoryview, position: int) -> tuple[int, int]:
    """Return a number of variable length, and the position after it."""
    value = 0
    for i, byte in enumerate(message[position : position + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << 7 * i
        if byte < 0x80:
            return value, position + i + 1
    raise ValueError("it is no protobuf message, or is truncated")
