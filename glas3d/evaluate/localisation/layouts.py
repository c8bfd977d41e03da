"""Readers of four data sets in the layouts in which they are published."""

from __future__ import annotations

import io
import os
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from scipy.io import loadmat

from glas3d.errors import GlasError, reason
from glas3d.evaluate.localisation.annotated import AnnotatedImage, AnnotatedImages, Box
from glas3d.reading import read_bytes, read_text

Part = Literal["test", "train"]
_DEVKIT = "ILSVRC2012_devkit_t12"
_BANNER = 20  # rows with the photographer's name under every image of FGVC-Aircraft


def read_layout(folder: str | os.PathLike[str], layout: str, part: Part = "test") -> AnnotatedImages:
    """Read a data set of images in which people marked objects.

    Parameters
    ----------
    folder
        Where the data set was unpacked.
    layout
        ``cub`` (CUB-200-2011), ``cars`` (Stanford Cars), ``aircraft`` (FGVC-Aircraft, variants) or ``ilsvrc`` (boxes
        of the classification and localisation task, whose validation images are the test; as on Kaggle, or ILSVRC2012's
        devkit, images and boxes unpacked into one folder).
    part
        ``test`` or ``train``, as the authors of the data set divided it.

    Raises
    ------
    GlasError
        There is no such layout, or a file is missing or holds something else; the message names the file.
    """
    if layout not in LAYOUTS:
        raise GlasError(f"layout must be one of {', '.join(LAYOUTS)}, got {layout!r}")
    if part not in ("test", "train"):
        raise GlasError(f"part must be test or train, got {part!r}")
    root = Path(folder)
    if not root.is_dir():
        raise GlasError(f"a data set must be a folder, {root} is not")
    read = LAYOUTS[layout](root, part)
    if not read.images:
        raise GlasError(f"the data set must have images for {part}, {root} has none")
    for image in (read.images[0], read.images[-1]):
        if not image.path.is_file():
            raise GlasError(f"no such file: {image.path}, which the lists of {root} name")
    return read


def read_cub(root: Path, part: Part) -> AnnotatedImages:
    """Read CUB-200-2011: ``images.txt``, ``bounding_boxes.txt``, ``parts/part_locs.txt`` and the others.

    The parts of a bird that are not visible are left out.
    """
    root = _inside(root, "images.txt", "CUB_200_2011")
    names = _numbered(root / "images.txt")
    classes = _numbered(root / "classes.txt")
    labels = _numbered(root / "image_class_labels.txt", int)
    in_training = _numbered(root / "train_test_split.txt", int)
    boxes = _numbered(root / "bounding_boxes.txt", _numbers(4))
    parts = _numbered(root / "parts" / "parts.txt")
    order = {number: index for index, number in enumerate(classes)}
    chosen = [image for image in names if _of(in_training, image, root / "train_test_split.txt") == (part == "train")]
    landmarks: dict[int, dict[str, tuple[float, float]]] = {}
    path = root / "parts" / "part_locs.txt"
    for image, rest in _lines(path):
        number, x, y, visible = _parsed(_numbers(4), rest, path)
        if visible:
            landmarks.setdefault(image, {})[_of(parts, int(number), path)] = (y, x)
    images = []
    for image in chosen:
        left, top, width, height = _of(boxes, image, root / "bounding_boxes.txt")
        label = _of(labels, image, root / "image_class_labels.txt")
        images.append(
            AnnotatedImage(
                root / "images" / names[image],
                _of(order, label, root / "classes.txt"),
                (((top, top + height), (left, left + width)),),
                landmarks.get(image, {}),
            )
        )
    return AnnotatedImages("cub", tuple(name.partition(".")[2] or name for name in classes.values()), tuple(images))


def read_cars(root: Path, part: Part) -> AnnotatedImages:
    """Read Stanford Cars: the devkit's ``cars_train_annos.mat`` and ``cars_test_annos_withlabels.mat``.

    Also read are the one list of all images, ``cars_annos.mat``, and mirrors that put the list of the test images next
    to the devkit, or the images into ``cars_test/cars_test``.
    """
    root = _inside(root, "devkit", "stanford_cars", "cars_annos.mat")
    meta = _first(root, "devkit/cars_meta.mat", "cars_meta.mat", "cars_annos.mat")
    names = _matlab(meta, "class_names")
    if (root / "cars_annos.mat").is_file():
        path, name = root / "cars_annos.mat", "relative_im_path"
        records = [
            record for record in _records(path, "annotations") if bool(_field(record, "test", path)) == (part == "test")
        ]
    else:
        list_name = f"cars_{part}_annos{'_withlabels' if part == 'test' else ''}.mat"
        path, name = _first(root, f"devkit/{list_name}", list_name), "fname"
        records = _records(path, "annotations")
    images = []
    for record in records:
        # pixels are counted from 1, and the last one is inside
        left, top, right, bottom = (float(_field(record, f"bbox_{side}", path)) for side in ("x1", "y1", "x2", "y2"))
        target = int(_field(record, "class", path)) - 1
        if not 0 <= target < len(names):
            raise GlasError(f"a class must be from 1 to {len(names)}, {path} has {target + 1}")
        file = str(_field(record, name, path))
        picture = _first(root, file, f"cars_{part}/{file}", f"cars_{part}/cars_{part}/{file}", must=False)
        images.append(AnnotatedImage(picture, target, (((top - 1, bottom), (left - 1, right)),)))
    return AnnotatedImages("cars", tuple(map(str, names)), tuple(images))


def read_aircraft(root: Path, part: Part) -> AnnotatedImages:
    """Read FGVC-Aircraft: ``images_box.txt`` and ``images_variant_test.txt`` or ``images_variant_trainval.txt``.

    The classes are the 100 variants; the banner below each image is cut off.
    """
    root = _inside(root, "images_box.txt", "data", "fgvc-aircraft-2013b/data")
    classes = [line.strip() for line in _text(root / "variants.txt").splitlines() if line.strip()]
    order = {name: index for index, name in enumerate(classes)}
    boxes: dict[str, tuple[float, ...]] = {}
    for line in _text(root / "images_box.txt").splitlines():
        if line.strip():
            name, _, rest = line.strip().partition(" ")
            boxes[name] = _parsed(_numbers(4), rest, root / "images_box.txt")
    path = root / f"images_variant_{'trainval' if part == 'train' else 'test'}.txt"
    images = []
    for line in _text(path).splitlines():
        if not line.strip():
            continue
        name, _, variant = line.strip().partition(" ")
        left, top, right, bottom = _of(boxes, name, root / "images_box.txt")
        images.append(
            AnnotatedImage(
                root / "images" / f"{name}.jpg",
                _of(order, variant, root / "variants.txt"),
                (((top - 1, bottom), (left - 1, right)),),  # counted from 1, the last one is inside
                bottom=_BANNER,
            )
        )
    return AnnotatedImages("aircraft", tuple(classes), tuple(images))


def read_ilsvrc(root: Path, part: Part) -> AnnotatedImages:
    """Read ILSVRC's boxes, in the layout of Kaggle or in that of the challenge's own archives.

    Kaggle has ``Annotations/CLS-LOC/val/*.xml`` and ``LOC_synset_mapping.txt``; of the archives see `_read_devkit`. The
    index of a class is its position in the alphabetical order of the synsets, which is the order of Kaggle's list and
    of torchvision's and most other models.
    """
    above = root.parent if root.name == "ILSVRC" else root
    root = _inside(root, "Annotations", "ILSVRC")
    list_name = "LOC_synset_mapping.txt"
    mapping = _first(root, list_name, f"{above.resolve()}/{list_name}", "data/meta.mat", f"{_DEVKIT}/data/meta.mat")
    if mapping.name == "meta.mat":
        return _read_devkit(root, mapping, part)
    classes = [line.split(maxsplit=1) for line in _text(mapping).splitlines() if line.strip()]
    order = {words[0]: index for index, words in enumerate(classes)}
    folder = root / "Annotations" / "CLS-LOC" / ("val" if part == "test" else "train")
    if not folder.is_dir():
        raise GlasError(f"no such folder: {folder}")
    images = []
    for path in sorted(folder.rglob("*.xml")):
        names, boxes = _objects(path)
        if len(set(names)) != 1:
            raise GlasError(
                f"an image must have objects of one class, {path} has {', '.join(sorted(set(names))) or 'none'}"
            )
        picture = root / "Data" / "CLS-LOC" / folder.name / path.relative_to(folder).with_suffix(".JPEG")
        images.append(AnnotatedImage(picture, _of(order, names[0], mapping), tuple(boxes)))
    return AnnotatedImages("ilsvrc", tuple(_first_name(words[-1]) for words in classes), tuple(images))


def _read_devkit(root: Path, meta: Path, part: Part) -> AnnotatedImages:
    """Read ILSVRC2012's validation images from the archives of the challenge, unpacked into one folder.

    The devkit (``ILSVRC2012_devkit_t12``) has the synsets in ``data/meta.mat`` and, in
    ``data/ILSVRC2012_validation_ground_truth.txt``, the ``ILSVRC2012_ID`` of each image's class, a line an image. The
    images and their boxes (``ILSVRC2012_bbox_val_v3``) may lie in the folder itself or in any folders of it.
    """
    if part != "test":
        raise GlasError(f"part must be test, because {_DEVKIT} has the classes of the validation images, got {part!r}")
    synsets: dict[int, tuple[str, str]] = {}
    for record in _records(meta, "synsets"):
        number, children, wnid, words = (
            _field(record, name, meta) for name in ("ILSVRC2012_ID", "num_children", "WNID", "words")
        )
        if children == 0:  # the others are groups of classes
            synsets[int(number)] = (str(wnid), str(words))
    classes = sorted(synsets.values())
    order = {wnid: index for index, (wnid, _) in enumerate(classes)}
    truth = meta.with_name("ILSVRC2012_validation_ground_truth.txt")
    lines = filter(None, map(str.strip, _text(truth).splitlines()))
    labels = {number: _parsed(int, line, truth) for number, line in enumerate(lines, start=1)}
    annotations, pictures = (
        {path.stem: path for path in sorted(root.rglob(f"ILSVRC2012_val_*.{ending}"))} for ending in ("xml", "JPEG")
    )
    for files, ending in ((annotations, "xml"), (pictures, "JPEG")):
        if not files:
            raise GlasError(f"no such files: {root / f'ILSVRC2012_val_*.{ending}'}, nor in a folder of it")
    images = []
    for name, path in annotations.items():
        number = _parsed(int, name.rpartition("_")[2], path)
        wnid, _ = _of(synsets, _of(labels, number, truth), meta)
        names, boxes = _objects(path)
        if set(names) != {wnid}:
            given = ", ".join(sorted(set(names))) or "none"
            raise GlasError(f"objects must be of the class in {truth.name}, {wnid}, {path} has {given}")
        if name not in pictures:
            raise GlasError(f"no such file: {name}.JPEG in {root} or a folder of it, which has the boxes {path}")
        images.append(AnnotatedImage(pictures[name], order[wnid], tuple(boxes)))
    return AnnotatedImages("ilsvrc", tuple(_first_name(words) for _, words in classes), tuple(images))


LAYOUTS: Mapping[str, Callable[[Path, Part], AnnotatedImages]] = {
    "cub": read_cub,
    "cars": read_cars,
    "aircraft": read_aircraft,
    "ilsvrc": read_ilsvrc,
}


def _inside(root: Path, name: str, *folders: str) -> Path:
    """Return the folder, itself or one of ``folders`` in it, that holds ``name``; itself if none does."""
    for folder in (root, *(root / each for each in folders)):
        if (folder / name).exists():
            return folder
    return root


def _first(root: Path, *names: str, must: bool = True) -> Path:
    """Return the first of several files that exists, or the first of them where none must."""
    for name in names:
        if (root / name).is_file():
            return root / name
    if must:
        raise GlasError(f"no such file: {root / names[0]}" + (f" (nor {', '.join(names[1:])})" if names[1:] else ""))
    return root / names[0]


def _text(path: Path) -> str:
    """Return the content of a text file."""
    return read_text(path, "a list")


def _lines(path: Path) -> list[tuple[int, str]]:
    """Return the number at the start of each line, and the rest of the line."""
    lines = []
    for line in _text(path).splitlines():
        number, _, rest = line.strip().partition(" ")
        if line.strip():
            if not number.isdecimal() or not rest:
                raise GlasError(f"each line must begin with a number, {path} has {line.strip()[:60]!r}")
            lines.append((int(number), rest.strip()))
    return lines


def _numbered(path: Path, parse: Callable[[str], Any] = str) -> dict[int, Any]:
    """Return the values of the lines of a file by the number at the start of each."""
    return {number: _parsed(parse, rest, path) for number, rest in _lines(path)}


def _numbers(n: int) -> Callable[[str], tuple[float, ...]]:
    """Return what reads a text of ``n`` numbers."""

    def parse(text: str) -> tuple[float, ...]:
        values = tuple(float(word) for word in text.split())
        if len(values) != n:
            raise ValueError
        return values

    return parse


def _parsed(parse: Callable[[str], Any], text: str, path: Path) -> Any:
    try:
        return parse(text)
    except ValueError:
        raise GlasError(f"a line must hold the numbers of this list, {path} has {text[:60]!r}") from None


def _of(values: Mapping[Any, Any], key: Any, path: Path) -> Any:
    """Return a value of a list that another list refers to."""
    if key not in values:
        raise GlasError(f"a list must hold all that others refer to, {path} has no {key}")
    return values[key]


def _matlab(path: Path, name: str) -> Sequence[Any]:
    """Return a variable of a MATLAB file as a list."""
    stored = read_bytes(path, "a list of Stanford Cars")
    try:
        content = loadmat(io.BytesIO(stored), simplify_cells=True)
    except Exception as error:  # a damaged file can raise anything
        raise GlasError(f"a .mat file must be a MATLAB file, {path} cannot be read: {reason(error)}") from None
    if name not in content:
        raise GlasError(f"a MATLAB file must have the variable {name}, {path} has none")
    values = content[name]
    return [values] if isinstance(values, dict | str) else list(values)


def _records(path: Path, name: str) -> list[Mapping[str, Any]]:
    """Return the structures of a MATLAB file, such as the annotations of Stanford Cars."""
    records = _matlab(path, name)
    if not all(isinstance(record, dict) for record in records):
        raise GlasError(f"{name} must be structures with fields, {path} has others")
    return list(records)


def _field(record: Mapping[str, Any], name: str, path: Path) -> Any:
    if name not in record:
        lacking = "labels: take cars_test_annos_withlabels.mat" if name == "class" else f"field {name}"
        raise GlasError(f"each record must have the field {name}, {path} has no {lacking}")
    return record[name]


def _first_name(words: str) -> str:
    """Return the first of the names of a synset, such as tench of ``tench, Tinca tinca``."""
    return words.partition(",")[0].strip()


def _objects(path: Path) -> tuple[list[str], list[Box]]:
    """Return the synset and the box of each object of an image of ILSVRC."""
    names, boxes = [], []
    try:
        for each in ElementTree.parse(path).getroot().iter("object"):
            left, top, right, bottom = (
                float(each.findtext(f"bndbox/{side}", "")) for side in ("xmin", "ymin", "xmax", "ymax")
            )
            names.append(each.findtext("name", ""))
            boxes.append(((top, bottom), (left, right)))
    except (ElementTree.ParseError, ValueError) as error:
        raise GlasError(f"an annotation must be XML with boxes, {path} cannot be read: {reason(error)}") from None
    return names, boxes
