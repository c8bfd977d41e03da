"""A .pt2 file that would run code, or fill the memory, is refused before torch reads it."""

import io
import json
import warnings
import zipfile

import pytest
import torch
from torch import nn

from glas3d import GlasError
from glas3d.predict import from_pt2
from glas3d.predict.adapters.pt2_archive import checked_archive


@pytest.fixture(scope="module")
def good():
    """Return the members of a harmless file: a network with dynamic batches on inputs of unequal axes."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(7 * 8 * 9, 2)).eval()
    file = io.BytesIO()
    dynamic = ({0: torch.export.Dim("n", min=1, max=8)},)
    torch.export.save(torch.export.export(net, (torch.rand(2, 1, 7, 8, 9),), dynamic_shapes=dynamic), file)
    with zipfile.ZipFile(file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write(path, members, **how):
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w", **how) as archive:
        warnings.simplefilter("ignore")  # zipfile's, about members of one name
        for name, content in members:
            archive.writestr(name, content)
    return path


def named(members, end):
    return next(name for name in members if name.endswith(end))


def pickle_of(marker):
    class Code:
        def __reduce__(self):
            return (open, (str(marker), "w"))

    file = io.BytesIO()
    torch.save(Code(), file)
    return file.getvalue()


def refused(path, marker, match):
    with pytest.raises(GlasError, match=match) as caught:
        from_pt2(path, "softmax", device="cpu")
    assert "\n" not in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize("first", ["harmless", "hostile"])
def test_a_member_that_is_there_twice_is_refused(good, tmp_path, first):
    """Python's reader of archives takes the last of them, torch's another."""
    marker = tmp_path / "ran"
    config = named(good, "weights_config.json")
    hostile = json.loads(good[config])
    for number, entry in enumerate(hostile["config"].values()):
        entry |= {"use_pickle": True, "path_name": f"weight_{number}"}
    pair = [(config, good[config]), (config, json.dumps(hostile))]
    weights = [(n, pickle_of(marker) if "weight_0" in n else c) for n, c in good.items() if n != config]
    path = write(tmp_path / "net.pt2", weights + (pair if first == "harmless" else pair[::-1]))
    refused(
        path, marker, r"must hold each member once, .*net.pt2 holds 'data/weights/model_weights_config.json' several"
    )


def test_torch_reads_the_members_that_were_checked_and_no_others(good, tmp_path):
    """Bytes before and behind the archive, in which another reader might look for one, are gone."""
    content = write(tmp_path / "net.pt2", good.items()).read_bytes()
    marker = tmp_path / "ran"
    evil = write(tmp_path / "evil.zip", [("archive/data/weights/weight_0", pickle_of(marker))]).read_bytes()
    checked = checked_archive(evil + content, "net.pt2")
    assert str(marker).encode() in evil
    assert str(marker).encode() not in checked
    with zipfile.ZipFile(io.BytesIO(checked)) as archive:
        assert set(archive.namelist()) == set(good)
        assert archive.read(named(good, "weight_0")) == good[named(good, "weight_0")]


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "a/../../b", "archive/data\\weights", "archive/data/wei\nghts", "C:/x"]
)
def test_odd_names_are_refused(good, tmp_path, name):
    path = write(tmp_path / "net.pt2", [*good.items(), (name, b"")])
    refused(path, tmp_path / "ran", "must have plain names, .*net.pt2 holds '")


def test_an_encrypted_member_is_refused(good, tmp_path):
    content = bytearray(write(tmp_path / "net.pt2", good.items()).read_bytes())
    at = content.rindex(b"PK\x01\x02")
    content[at + 8] |= 1
    (tmp_path / "net.pt2").write_bytes(content)
    refused(tmp_path / "net.pt2", tmp_path / "ran", "must not be encrypted, .* of .*net.pt2 is")


def test_a_small_file_does_not_become_a_large_one(good, tmp_path):
    """300 MB of zeros are 300 kB; they are not inflated."""
    bomb = named(good, "weight_0")
    zeros = bytes(300 * 2**20)
    members = [(name, zeros if name == bomb else content) for name, content in good.items()]
    path = write(tmp_path / "net.pt2", members, compression=zipfile.ZIP_DEFLATED, compresslevel=1)
    del zeros, members
    refused(path, tmp_path / "ran", r"not be more than 20 times larger than its file, .* inflates to 314,5\d\d,\d\d\d")


@pytest.mark.parametrize("damage", ["packed data", "kind of compression", "end of the data", "encrypted version"])
def test_a_damaged_member_is_one_sentence(good, tmp_path, damage):
    path = write(tmp_path / "net.pt2", good.items(), compression=zipfile.ZIP_DEFLATED)
    content = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as archive:
        info = archive.getinfo(named(good, "weight_0"))
    first = info.header_offset + 30 + len(info.filename)
    entry = content.rindex(b"PK\x01\x02", 0, content.rindex(info.filename.encode()))
    if damage == "packed data":
        content[first : first + info.compress_size] = b"\xff" * info.compress_size
    elif damage == "kind of compression":
        content[entry + 10] = content[info.header_offset + 8] = 99
    elif damage == "end of the data":  # the data is said to be longer than it is, and ends within the file
        content[first : first + info.compress_size] = bytes(info.compress_size)
    else:
        content[entry + 6] = 99
    path.write_bytes(content)
    refused(path, tmp_path / "ran", "net.pt2 cannot be loaded as a torch.export file: ")


def test_an_empty_tensor_does_not_state_any_size(good, tmp_path):
    config = named(good, "weights_config.json")
    stated = json.loads(good[config])
    for entry in stated["config"].values():
        entry["tensor_meta"]["sizes"] = [{"as_int": 10**6}, {"as_int": 10**6}]
    members = good | {config: json.dumps(stated).encode(), named(good, "weight_0"): b""}
    path = write(tmp_path / "net.pt2", members.items())
    refused(path, tmp_path / "ran", "weight_0 is empty, and should hold")


def hostile_program(change):
    """Return a function that changes the program of an archive."""

    def changed(members):
        name = named(members, "models/model.json")
        program = json.loads(members[name])
        change(program, program["graph_module"]["graph"])
        return members | {name: json.dumps(program).encode()}

    return changed


def step(target):
    def change(program, graph):
        argument = {"name": "command", "arg": {"as_string": "touch MARKER"}, "kind": 1}
        graph["nodes"].insert(0, graph["nodes"][0] | {"target": target, "inputs": [argument], "name": "first"})

    return hostile_program(change)


def size(expression):
    def change(program, graph):
        graph["tensor_values"]["input"]["sizes"][0] = {"as_expr": {"expr_str": expression, "hint": {"as_int": 2}}}

    return hostile_program(change)


HOSTILE = {
    "a call of another function": (step("torch.os.system"), r"the step 'torch\.os\.system'"),
    "a function that calls": (step("_operator.call"), r"the step '_operator\.call'"),
    "an operation on files": (step("torch.ops.aten.from_file.default"), "the step 'torch.ops.aten.from_file.default'"),
    "an evaluated size": (size("__import__('os').system('touch MARKER')"), "the expression .__import__"),
    "an attribute of a size": (size("Symbol('s0').__class__"), "the expression .Symbol"),
    "a huge size": (size("9**9**9"), "the expression '9"),
    "a name that is code": (
        hostile_program(lambda p, graph: graph["nodes"][0].update(name="x = open('MARKER', 'w'); y")),
        "the name .x = open",
    ),
    "a weight that is code": (
        hostile_program(
            lambda p, graph: p["graph_module"]["signature"]["input_specs"][0]["parameter"].update(
                parameter_name='a"), open("MARKER", "w'
            )
        ),
        "the name .a",
    ),
    "an argument that is code": (
        hostile_program(
            lambda p, graph: p["graph_module"]["module_call_graph"][0]["signature"].update(
                forward_arg_names=["x=open('MARKER', 'w')"]
            )
        ),
        "the name .x=open",
    ),
    "a guard that is code": (
        hostile_program(lambda p, graph: p.update(guards_code=["open('MARKER', 'w')"])),
        "the expression .open",
    ),
    "a container of others": (
        hostile_program(
            lambda p, graph: p["graph_module"]["module_call_graph"][0]["signature"].update(
                out_spec='[1, {"type": "collections.defaultdict", "context": "null", "children_spec": []}]'
            )
        ),
        "the container collections.defaultdict",
    ),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_program_that_is_more_than_computing_with_tensors_is_refused(good, tmp_path, kind):
    change, match = HOSTILE[kind]
    marker = tmp_path / "ran"
    members = change(good)
    members = {name: content.replace(b"MARKER", str(marker).encode()) for name, content in members.items()}
    refused(write(tmp_path / "net.pt2", members.items()), marker, f"holds more than tensors, {match}")


def test_the_origin_of_a_program_is_left_out(good, tmp_path):
    """It holds paths of the machine that it was exported on."""
    name = named(good, "models/model.json")
    assert b"stack_trace" in good[name]
    checked = checked_archive(write(tmp_path / "net.pt2", good.items()).read_bytes(), "net.pt2")
    with zipfile.ZipFile(io.BytesIO(checked)) as archive:
        assert b"stack_trace" not in archive.read(named(archive.namelist(), "models/model.json"))
    predict = from_pt2(tmp_path / "net.pt2", "softmax", device="cpu")
    assert predict(torch.rand(3, 1, 7, 8, 9)).shape == (3, 2)
