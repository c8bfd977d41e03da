"""The files in which an ONNX file stores tensors are found wherever ONNX has tensors, and nowhere else."""

import os
import re
import subprocess
import sys
from pathlib import Path

import onnx
import pytest
from google.protobuf.message import DecodeError
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper
from onnx.onnx_ml_pb2 import ModelProto

import glas3d
from glas3d import GlasError
from glas3d.predict import from_onnx
from glas3d.predict.adapters.onnx_tensors import HOLDERS, tensor_locations
from tests.predict.adapters.test_exported import onnx_file, value
from tests.predict.cases import SHAPES, network

STORED = {"save_as_external_data": True, "location": "weights.bin", "size_threshold": 0}


def holders_of_tensors():
    """The messages of ONNX that can hold tensors, by the numbers of their fields, from its own definition."""
    kinds, waiting = {}, [ModelProto.DESCRIPTOR]
    while waiting:
        kind = waiting.pop()
        inner = {field.number: field.message_type for field in kind.fields if field.message_type is not None}
        kinds[kind.name] = {number: part.name for number, part in inner.items()}
        waiting += [part for part in inner.values() if part.name not in kinds]
    holding = {"TensorProto"}
    for _ in kinds:
        holding |= {kind for kind, inner in kinds.items() if holding & set(inner.values())}
    return {
        kind: {number: part for number, part in kinds[kind].items() if part in holding}
        for kind in holding - {"TensorProto"}
    }


def external(name, **entries):
    tensor = TensorProto(name="t", data_type=TensorProto.FLOAT, dims=[1], data_location=TensorProto.EXTERNAL)
    for key, text in {"offset": "0", "location": name, **entries}.items():
        tensor.external_data.add(key=key, value=text)
    return tensor


def model(graph=None, **parts):
    return ModelProto(ir_version=10, graph=graph or onnx.GraphProto(), **parts).SerializeToString()


def attribute(**parts):
    return onnx.NodeProto(op_type="Any", attribute=[onnx.AttributeProto(name="a", **parts)])


SPARSE = {
    "values": onnx.SparseTensorProto(values=external("w")),
    "indices": onnx.SparseTensorProto(indices=external("w")),
}
INNER = onnx.GraphProto(initializer=[external("w")])
PLACES = {
    "initializer": model(onnx.GraphProto(initializer=[external("w")])),
    "sparse values": model(onnx.GraphProto(sparse_initializer=[SPARSE["values"]])),
    "sparse indices": model(onnx.GraphProto(sparse_initializer=[SPARSE["indices"]])),
    "attribute": model(onnx.GraphProto(node=[attribute(t=external("w"))])),
    "attributes": model(onnx.GraphProto(node=[attribute(tensors=[TensorProto(), external("w")])])),
    "sparse attribute": model(onnx.GraphProto(node=[attribute(sparse_tensor=SPARSE["values"])])),
    "sparse attributes": model(onnx.GraphProto(node=[attribute(sparse_tensors=[SPARSE["indices"]])])),
    "subgraph": model(onnx.GraphProto(node=[attribute(g=INNER)])),
    "subgraph of a subgraph": model(
        onnx.GraphProto(node=[attribute(graphs=[onnx.GraphProto(node=[attribute(g=INNER)])])])
    ),
    "function": model(functions=[onnx.FunctionProto(node=[attribute(t=external("w"))])]),
    "default of a function": model(
        functions=[onnx.FunctionProto(attribute_proto=[attribute(t=external("w")).attribute[0]])]
    ),
    "training": model(training_info=[onnx.TrainingInfoProto(initialization=INNER)]),
    "algorithm": model(training_info=[onnx.TrainingInfoProto(algorithm=INNER)]),
    "two parts of one graph": model(onnx.GraphProto(name="x")) + model(onnx.GraphProto(initializer=[external("w")])),
    "a name with a long length": model(onnx.GraphProto(initializer=[external("w", checksum="0" * 300)])),
}


@pytest.mark.parametrize("place", PLACES)
def test_files_are_found_wherever_tensors_are(place):
    assert tensor_locations(PLACES[place]) == {"w"}


ENTRY = b"\x6a\x0f\x0a\x08location\x12\x03bad"  # of a tensor, where it is none
ELSEWHERE = {
    "text": model(onnx.GraphProto(doc_string=ENTRY.decode())),
    "values": model(onnx.GraphProto(initializer=[TensorProto(raw_data=external("bad").SerializeToString())])),
    "strings": model(onnx.GraphProto(node=[attribute(strings=[external("bad").SerializeToString(), ENTRY])])),
    "metadata": model(metadata_props=[onnx.StringStringEntryProto(key="location", value="bad")]),
    "metadata of a tensor": model(
        onnx.GraphProto(
            initializer=[TensorProto(metadata_props=[onnx.StringStringEntryProto(key="location", value="bad")])]
        )
    ),
    "another key": model(onnx.GraphProto(initializer=[TensorProto(external_data=[{"key": "x", "value": "location"}])])),
    "a field that ONNX does not have": model() + b"\xfa\x07" + bytes([len(ENTRY)]) + ENTRY,
}


@pytest.mark.parametrize("place", ELSEWHERE)
def test_what_reads_like_a_file_elsewhere_is_none(place):
    assert tensor_locations(ELSEWHERE[place]) == set()


def framed(number, content, long=False):
    """A field of bytes; its length may be written in more bytes than it needs."""
    length = bytes([len(content) & 0x7F | 0x80, len(content) >> 7 & 0x7F | 0x80, 0]) if long else bytes([len(content)])
    return bytes([number << 3 | 2]) + length + content


@pytest.mark.parametrize(
    "entry",
    [
        framed(2, b"w") + framed(1, b"location"),
        framed(1, b"location", long=True) + framed(2, b"w", long=True),
        framed(1, b"offset") + framed(2, b"v") + framed(1, b"location") + framed(2, b"w"),
        framed(1, b"location") + b"\x18\x07" + framed(2, b"w"),
    ],
    ids=["value first", "long lengths", "twice, of which the last counts", "with another field"],
)
def test_entries_are_read_however_they_are_written(entry):
    content = framed(7, framed(5, framed(13, entry)))
    assert [t.value for t in ModelProto.FromString(content).graph.initializer[0].external_data] == ["w"]
    assert tensor_locations(content) == {"w"}


def test_the_messages_that_are_entered_are_those_that_hold_tensors_in_onnx():
    assert {kind: parts for kind, parts in HOLDERS.items() if kind != "TensorProto"} == holders_of_tensors()
    assert TensorProto.DESCRIPTOR.fields_by_number[13].name == "external_data"


def locations_by_onnx(message):
    """The same by the package onnx: every entry of every tensor, whatever holds it."""
    if isinstance(message, TensorProto):
        return {entry.value for entry in message.external_data if entry.key == "location"}
    found = set()
    for field, content in message.ListFields():
        if field.message_type is not None:
            repeated = not hasattr(content, "DESCRIPTOR")
            found |= set().union(*(locations_by_onnx(part) for part in (content if repeated else [content])))
    return found


@settings(max_examples=300, deadline=None)
@given(
    content=st.sampled_from(sorted(PLACES.values())),
    changes=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=3),
)
def test_damaged_files_are_read_as_onnx_reads_them_or_refused(content, changes):
    damaged = bytearray(content)
    for position, byte in changes:
        damaged[position % len(damaged)] = byte
    try:
        expected = locations_by_onnx(ModelProto.FromString(bytes(damaged)))
    except DecodeError:  # nothing is required but an end
        expected = None
    if any(isinstance(name, bytes) for name in expected or ()):  # not UTF-8, which is refused
        expected = set()
    try:
        found = tensor_locations(bytes(damaged))
    except ValueError:
        found = set()
    assert found == expected or expected is None


@pytest.mark.parametrize(
    "content",
    [
        b"x",
        b"\x3a\x7fshort",
        b"\x80" * 20,
        b"\x3b\x3c",
        framed(7, framed(5, framed(13, framed(1, b"location") + framed(2, b"\xff")))),
    ],
    ids=["no key", "truncated", "no number", "group", "not UTF-8"],
)
def test_what_is_no_onnx_file_is_refused(tmp_path, content):
    (tmp_path / "net.onnx").write_bytes(content)
    with pytest.raises(GlasError, match=r"net.onnx cannot be loaded as an ONNX model: "):
        from_onnx(tmp_path / "net.onnx", "softmax")


def test_messages_nested_beyond_what_protobuf_reads_are_refused():
    graph = framed(5, external("w").SerializeToString())
    for _ in range(40):
        graph = framed(1, framed(5, framed(6, graph, long=True), long=True), long=True)
    content = framed(7, graph, long=True)
    with pytest.raises(DecodeError):
        ModelProto.FromString(content)
    with pytest.raises(ValueError, match="nested too deeply"):
        tensor_locations(content)


def test_links_and_missing_files_are_refused(tmp_path):
    (tmp_path / "models").mkdir()
    path = onnx_file(tmp_path / "models" / "net.onnx", network(2), SHAPES[2], 2, **STORED)
    weights = path.with_name("weights.bin")
    from_onnx(path, "softmax")
    weights.rename(tmp_path / "elsewhere.bin")
    with pytest.raises(GlasError, match=r"net.onnx stores tensors in 'weights.bin', which is not next to it"):
        from_onnx(path, "softmax")
    weights.symlink_to("../elsewhere.bin")
    with pytest.raises(GlasError, match=r"next to it, 'weights.bin' of .*net.onnx is a link"):
        from_onnx(path, "softmax")


@pytest.mark.parametrize(
    "name", ["*/_ORT_MEM_ADDR_/*", "..", "", "a\\b", "C:weights.bin", "weights.bin\n", "sub//weights.bin", "x" * 5000]
)
def test_names_that_are_no_files_next_to_it_are_refused(tmp_path, name):
    graph = helper.make_graph(
        [helper.make_node("Add", ["x", "t"], ["y"])],
        "net",
        [value("x", [1, 1])],
        [value("y", [1, 1])],
        [external(name)],
    )
    path = tmp_path / "net.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8).SerializeToString()
    )
    with pytest.raises(GlasError, match=r"net.onnx (names|stores tensors in) "):
        from_onnx(path, "softmax")


def test_only_the_files_that_are_named_are_opened(tmp_path):
    """A file that a text of the model names is neither read nor part of the hash."""
    path = onnx_file(tmp_path / "net.onnx", network(2), SHAPES[2], 2)
    content = ModelProto.FromString(path.read_bytes())
    content.doc_string = ENTRY.decode().replace("bad", "pip")
    path.write_bytes(content.SerializeToString())
    os.mkfifo(tmp_path / "pip")  # opening it would wait for ever
    before = from_onnx(path, "softmax").info.sha256
    (tmp_path / "pip").unlink()
    assert from_onnx(path, "softmax").info.sha256 == before


# Telemetry


def test_onnx_runtime_reports_nothing_and_keeps_no_number_of_the_device(tmp_path):
    """By default it writes a device id into the user's cache folder, and sends events to its makers."""
    path = onnx_file(tmp_path / "net.onnx", network(2), SHAPES[2], 1)
    code = f"""
import os
from glas3d.predict import from_onnx
from_onnx({str(path)!r}, "softmax")
assert os.environ["ORT_DISABLE_TELEMETRY"] == "1"
"""
    home = tmp_path / "home"
    home.mkdir()
    environment = {k: v for k, v in os.environ.items() if k != "ORT_DISABLE_TELEMETRY" and not k.startswith("XDG_")}
    subprocess.run([sys.executable, "-c", code], env=environment | {"HOME": str(home)}, check=True)
    assert not [
        found for found in home.rglob("*") if re.search("onnx|Microsoft|deviceid", str(found.relative_to(home)))
    ]


def test_onnx_runtime_is_imported_in_one_place():
    files = Path(glas3d.__file__).parent.rglob("*.py")
    importing = re.compile(r"^\s*(import onnxruntime|from onnxruntime)", re.MULTILINE)
    assert [file.name for file in files if importing.search(file.read_text(encoding="utf-8"))] == ["builders.py"]
