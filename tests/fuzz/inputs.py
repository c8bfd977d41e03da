"""Generators of what users' files may hold: valid content with a few changes, and content of no sense."""

import io
import json
import os
import pickle
import string
import struct
import tempfile
import warnings
import zipfile
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
from hypothesis import strategies as st
from PIL import Image

SHAPE = (3, 4, 5)
# Made by code in an input, if it is ever run.
CANARY = Path(tempfile.gettempdir()) / f"glas3d-canary-{os.getpid()}"
NUMBERS = st.one_of(
    st.integers(-3, 40),
    st.sampled_from([0, -1, 2**15 - 1, 2**31 - 1, 2**63 - 1, -(2**63), 1e-300, 1e300]),
    st.floats(allow_nan=True, allow_infinity=True),
)
CODE = st.sampled_from(
    [
        f"$open('{CANARY}', 'w')",
        f"$__import__('os').system('touch {CANARY}')",
        f"__import__('os').system('touch {CANARY}')",
        f"{{{{ open('{CANARY}', 'w') }}}}",
        f"$(touch {CANARY})",
        f"`touch {CANARY}`",
        f"; touch {CANARY} #",
        f"| touch {CANARY}",
        f"=cmd|'/C touch {CANARY}'!A0",
    ]
)
WORDS = st.one_of(
    CODE,
    st.sampled_from(
        ["", " ", "n/a", "NaN", "AD", "NC", "sub-01", "../x", "=1+1", "<script>", "\N{BOM}", "é", "\0", "none"]
    ),
    st.text(max_size=12),
    NUMBERS.map(str),
)
CALLS = st.sampled_from(
    [
        {"_target_": "os.system", "command": f"touch {CANARY}"},
        {"_target_": "builtins.open", "file": str(CANARY), "mode": "w"},
        {"_target_": "pathlib.Path.touch", "self": {"_target_": "pathlib.Path", "_args_": [str(CANARY)]}},
        {"_target_": "subprocess.run", "args": ["touch", str(CANARY)]},
    ]
)
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, WORDS, CALLS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(string.ascii_letters + "_@$:", max_size=8), inner, max_size=4),
    ),
    max_leaves=8,
)


def volume():
    data = np.arange(60, dtype=np.float32).reshape(SHAPE)
    return data, np.array([[9.0, 0, 0, -70], [0, 10, 0, -100], [0, 0, 8, -60], [0, 0, 0, 1]])


NIFTI = nib.Nifti1Image(*volume()).to_bytes()
NIFTI2 = nib.Nifti2Image(*volume()).to_bytes()
MGH = nib.MGHImage(*volume()).to_bytes()
_FIELDS = [  # formats and positions of fields that decide how a file is read
    (NIFTI, [("<8h", 40), ("<h", 70), ("<h", 72), ("<8f", 76), ("<f", 108), ("<f", 112), ("<f", 116), ("<2h", 252)]),
    (NIFTI, [("<6f", 256), ("<12f", 280), ("4s", 344), ("<4b", 348), ("b", 123)]),
    (NIFTI2, [("<8q", 16), ("<h", 12), ("<8d", 104), ("<q", 168), ("<d", 176), ("<2i", 344), ("<12d", 400)]),
    (MGH, [(">i", 0), (">4i", 4), (">i", 20), (">h", 28), (">3f", 30), (">12f", 42)]),
]


@st.composite
def changed_bytes(draw, original, most=4, within=400):
    """Return bytes with some of the first ones changed, removed, repeated or added."""
    content = bytearray(original)
    for _ in range(draw(st.integers(1, most))):
        at = draw(st.integers(0, max(0, min(len(content) - 1, within))))
        match draw(st.sampled_from(["set", "cut", "drop", "repeat", "add"])):
            case "set":
                content[at : at + 1] = bytes([draw(st.integers(0, 255))])
            case "cut":
                del content[draw(st.integers(0, len(content))) :]
            case "drop":
                del content[at : at + draw(st.integers(1, 16))]
            case "repeat":
                content[at:at] = content[at : at + draw(st.integers(1, 64))]
            case "add":
                content[at:at] = draw(st.binary(max_size=16))
    return bytes(content)


@st.composite
def images(draw):
    """Return the suffix and the bytes of a NIfTI or MGH file whose fields have values of any size."""
    original, fields = draw(st.sampled_from(_FIELDS))
    if draw(st.booleans()):
        return (".mgh" if original is MGH else ".nii"), draw(changed_bytes(original))
    content = bytearray(original)
    for form, at in draw(st.lists(st.sampled_from(fields), min_size=1, max_size=3)):
        kind, count = form[-1], int(form.strip("<>")[:-1] or 1) if form[-1] != "s" else 1
        if kind in "fd":
            width = 32 if kind == "f" else 64
            values = draw(st.lists(st.floats(width=width), min_size=count, max_size=count))
        elif kind == "s":
            values = [draw(st.binary(min_size=4, max_size=4))]
        else:
            bits = {"b": 7, "h": 15, "i": 31, "q": 63}[kind]
            usual = st.integers(-2, 6) | st.sampled_from([2, 4, 8, 16, 64, 128, 256, 512, 768])
            usual = usual.map(lambda number, bits=bits: max(-(2**bits), min(2**bits - 1, number)))
            values = draw(st.lists(usual | st.integers(-(2**bits), 2**bits - 1), min_size=count, max_size=count))
        struct.pack_into(form, content, at, *values)
    return (".mgh" if original is MGH else ".nii"), bytes(content)


@st.composite
def tables(draw, columns):
    """Return the text of a table: a header of the columns, or of some of them, and cells of any content."""
    names = draw(st.permutations(columns)) if draw(st.booleans()) else list(columns)
    names = [name for name in names if draw(st.integers(0, 9))] + draw(st.lists(WORDS, max_size=2))
    cell = st.one_of(st.sampled_from(["sub-01", "sub-02", "1", "2", "AD", "NC", "Left", "a_L", "70", "n/a"]), WORDS)
    rows = draw(st.lists(st.lists(cell, min_size=max(0, len(names) - 1), max_size=len(names) + 1), max_size=5))
    separator = draw(st.sampled_from(["\t", "\t", "\t", ",", ";", " "]))
    ending = draw(st.sampled_from(["\n", "\r\n", "\r"]))
    text = ending.join(separator.join(row) for row in [names, *rows])
    encoding = draw(st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "latin-1"]))
    content = text.encode(encoding, errors="replace")
    return draw(changed_bytes(content, 2)) if content and not draw(st.integers(0, 4)) else content


@st.composite
def changed_json(draw, original):
    """Return a tree of JSON with some of its entries replaced, removed or renamed."""
    tree = json.loads(json.dumps(original))
    for _ in range(draw(st.integers(1, 3))):
        node = tree
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node))) if isinstance(node, list) else []
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if isinstance(node[key], dict | list) and node[key] and draw(st.integers(0, 3)):
                node = node[key]
                continue
            match draw(st.sampled_from(["value", "value", "remove", "rename"])):
                case "value":
                    node[key] = draw(VALUES)
                case "remove":
                    del node[key]
                case "rename" if isinstance(node, dict):
                    node[draw(st.text(max_size=6))] = node.pop(key)
            break
    return tree


ITK = """#Insight Transform File V1.0
#Transform 0
Transform: AffineTransform_double_3_3
Parameters: 1 0 0 0 1 0 0 0 1 2 3 4
FixedParameters: 0 0 0
"""
PLAIN = "1 0 0 2\n0 1 0 3\n0 0 1 4\n0 0 0 1\n"
matrices = st.lists(st.lists(NUMBERS, min_size=3, max_size=5), min_size=3, max_size=5).map(
    lambda rows: "\n".join(" ".join(map(str, row)) for row in rows)
)
transforms = st.one_of(
    st.tuples(st.sampled_from([".txt", ".mat"]), matrices.map(str.encode)),
    st.tuples(st.just(".txt"), changed_bytes(PLAIN.encode())),
    st.tuples(st.sampled_from([".txt", ".tfm"]), changed_bytes(ITK.encode())),
)

TOML = b'grid = [2, 1, 2]\nbatch_size = 3\ncase = "NC"\n[group]\nn-perm = 49\ncovariates = ["age"]\n'
configurations = st.one_of(
    changed_bytes(TOML),
    st.dictionaries(
        st.sampled_from(["grid", "batch_size", "case", "n-perm", "n_perm", "covariates", "sigma_light"]) | WORDS,
        st.one_of(st.booleans(), st.integers(-5, 99), WORDS, st.lists(st.integers(-5, 9), max_size=3)),
        max_size=4,
    ).map(lambda d: "\n".join(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in d.items()).encode(errors="replace")),
    st.text(max_size=60).map(lambda text: text.encode(errors="replace")),
)


class _Code:
    """What runs code when a pickle of it is read."""

    def __reduce__(self):
        return (open, (str(CANARY), "w"))


PICKLE = pickle.dumps(_Code())


def picture(form, **how):
    """Return the bytes of a small picture."""
    pixels = np.arange(3 * 8 * 9, dtype=np.uint8).reshape(8, 9, 3)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form, **how)
    return file.getvalue()


FORMATS = {"PNG": ".png", "JPEG": ".jpg", "TIFF": ".tif", "GIF": ".gif", "BMP": ".bmp", "WEBP": ".webp", "PPM": ".ppm"}
_PICTURES = [(suffix, picture(form)) for form, suffix in FORMATS.items()]
_EPS = f"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 8\n%%EndComments\n({CANARY}) (w) file closefile\n"


@st.composite
def pictures(draw):
    """Return the suffix and the bytes of a picture that is damaged, or states any size."""
    suffix, original = draw(st.sampled_from([*_PICTURES, (".eps", _EPS.encode())]))
    if suffix == ".png" and draw(st.booleans()):
        content = bytearray(original)
        struct.pack_into(">2I", content, 16, *draw(st.tuples(*2 * [st.integers(0, 2**31 - 1) | st.integers(0, 99999)])))
        struct.pack_into(">I", content, 29, zlib.crc32(content[12:29]))
        return suffix, bytes(content)
    other = draw(st.sampled_from([suffix, suffix, suffix, ".png", ".dat"]))
    return other, draw(changed_bytes(original, within=len(original)))


def members_of(archive):
    """Return the names and contents of an archive's members."""
    with zipfile.ZipFile(io.BytesIO(archive)) as opened:
        return [(name, opened.read(name)) for name in opened.namelist()]


@st.composite
def archives(draw, original):
    """Return an archive of which members are changed, renamed, repeated, pickles, or the whole is damaged."""
    if not draw(st.integers(0, 3)):
        return draw(changed_bytes(original, within=len(original)))
    members = members_of(original)
    for _ in range(draw(st.integers(1, 2))):
        at = draw(st.integers(0, len(members) - 1))
        name, content = members[at]
        match draw(st.sampled_from(["content", "content", "JSON", "JSON", "pickle", "name", "drop", "twice"])):
            case "content":
                members[at] = name, draw(changed_bytes(content or b"0"))
            case "JSON":
                trees = [each for each in members if each[0].endswith(".json")]
                name, content = draw(st.sampled_from(trees))
                try:
                    tree = json.loads(content)
                except ValueError:
                    continue
                members[members.index((name, content))] = name, json.dumps(draw(changed_json(tree))).encode()
            case "pickle":
                members[at] = name, PICKLE
            case "name":
                members[at] = draw(st.sampled_from(["../x", "/x", "x" * 300, name.upper()]) | WORDS) or "x", content
            case "drop":
                del members[at]
            case "twice":
                members.append((name, draw(st.sampled_from([content, PICKLE]))))
        if not members:
            break
    file = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(file, "w") as archive:
        warnings.simplefilter("ignore")  # zipfile's, about members of one name
        for name, content in members:
            archive.writestr(name.replace("\0", "_"), content)
    return file.getvalue()


@st.composite
def safetensors(draw, original):
    """Return weights whose header has other entries, or that are damaged."""
    if draw(st.booleans()):
        return draw(changed_bytes(original, within=len(original)))
    (size,) = struct.unpack_from("<Q", original)
    header = json.dumps(draw(changed_json(json.loads(original[8 : 8 + size])))).encode(errors="replace")
    stated = draw(st.just(len(header)) | st.integers(0, 2**64 - 1))
    return struct.pack("<Q", stated) + header + original[8 + size :]


@st.composite
def results(draw, files):
    """Return the name of a file of results, and what it holds instead."""
    name = draw(st.sampled_from(sorted(files)))
    original = files[name]
    if name.endswith(".json") and draw(st.integers(0, 3)):
        return name, json.dumps(draw(changed_json(json.loads(original)))).encode(errors="replace")
    if name.endswith(".tsv") and draw(st.booleans()):
        return name, draw(tables(original.decode().partition("\n")[0].split("\t")))
    return name, draw(changed_bytes(original, within=len(original)))
