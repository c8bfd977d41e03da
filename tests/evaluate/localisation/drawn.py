"""Tiny data sets in the layouts of the published ones: 20 x 28 pixels, a bright square of one colour for each class.

The square covers rows 4 to 8 and columns 15 to 20 of every image, the ends not included.
"""

import numpy as np
from PIL import Image
from scipy.io import savemat

SHAPE, ROWS, COLUMNS = (20, 28), (4, 8), (15, 20)
CHANNELS = np.array([0, 1, 2, 0])


def save(path, kind, below=0):
    picture = np.full((SHAPE[0] + below, SHAPE[1], 3), 40, dtype=np.uint8)
    picture[slice(*ROWS), slice(*COLUMNS), CHANNELS[kind]] = 255
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(picture).save(path, format="PNG")  # read by content, whatever the file's name


def write(path, *lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def cub(root):
    """Two classes, of which one is a bird of the paper's table 1; images 1 and 3 are for training."""
    names = [
        f"{c + 1:03d}.{name}/{name}_{i:04d}.jpg"
        for i, (c, name) in enumerate([(0, "Sooty_Albatross"), (1, "Crested_Auklet")] * 2)
    ]
    for number, name in enumerate(names):
        save(root / "images" / name, number % 2)
    write(root / "images.txt", *(f"{i} {name}" for i, name in enumerate(names, start=1)))
    write(root / "classes.txt", "1 001.Sooty_Albatross", "2 002.Crested_Auklet")
    write(root / "image_class_labels.txt", "1 1", "2 2", "3 1", "4 2")
    write(root / "train_test_split.txt", "1 1", "2 0", "3 0", "4 0")
    write(root / "bounding_boxes.txt", *(f"{i} 15.0 4.0 5.0 4.0" for i in range(1, 5)))
    write(root / "parts" / "parts.txt", "1 back", "2 beak", "7 left eye")
    parts = [f"{i} 2 17.0 6.0 1" for i in range(1, 5)] + ["2 7 0.0 0.0 0", "2 1 3.0 9.0 1"]
    write(root / "parts" / "part_locs.txt", *parts)
    return root


def _annotations(rows, fields):
    made = np.zeros((1, len(rows)), dtype=[(name, object) for name in fields])
    for i, row in enumerate(rows):
        made[0, i] = row
    return made


def _cars(root, folder):
    for i in (1, 2):
        save(root / folder / f"{i:05d}.jpg", i - 1)


def cars(root, *, mirror=False):
    """Two classes, two images for testing; a mirror has the test images' list above the devkit, and a nested folder."""
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
    rows = [(16.0, 5.0, 20.0, 8.0, float(i), f"{i:05d}.jpg") for i in (1, 2)]
    devkit = root / "devkit"
    devkit.mkdir(parents=True)
    names = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], dtype=object)[None]
    savemat(devkit / "cars_meta.mat", {"class_names": names})
    savemat(devkit / "cars_train_annos.mat", {"annotations": _annotations(rows[:1], fields)})
    list_of_test = (root if mirror else devkit) / "cars_test_annos_withlabels.mat"
    savemat(list_of_test, {"annotations": _annotations(rows, fields)})
    _cars(root, "cars_test/cars_test" if mirror else "cars_test")
    _cars(root, "cars_train")
    return root


def cars_in_one_list(root):
    """Stanford Cars with one list of all images."""
    root.mkdir(parents=True)
    fields = ("relative_im_path", "bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "test")
    rows = [(f"car_ims/{i:05d}.jpg", 16.0, 5.0, 20.0, 8.0, float(i), float(i == 2)) for i in (1, 2)]
    names = np.array(["AM General Hummer SUV 2000", "Acura RL Sedan 2012"], dtype=object)[None]
    savemat(root / "cars_annos.mat", {"annotations": _annotations(rows, fields), "class_names": names})
    _cars(root, "car_ims")
    return root


def aircraft(root):
    """Two variants; every image has a banner of 20 rows."""
    data = root / "data"
    write(data / "variants.txt", "707-320", "Yak-42")
    write(data / "images_box.txt", "0034309 16 5 20 8", "1033294 16 5 20 8")
    write(data / "images_variant_test.txt", "1033294 Yak-42", "0034309 707-320")
    write(data / "images_variant_trainval.txt", "0034309 707-320")
    for name, kind in (("0034309", 0), ("1033294", 1)):
        save(data / "images" / f"{name}.jpg", kind, below=20)
    return root


def _validation_images(boxes, pictures):
    """Two images of ILSVRC with their boxes; the second has two objects."""
    box = "<bndbox><xmin>0</xmin><ymin>12</ymin><xmax>6</xmax><ymax>18</ymax></bndbox>"
    second = f"<object><name>n01443537</name>{box}</object>"
    for number, (synset, more) in enumerate((("n01440764", ""), ("n01443537", second)), start=1):
        name = f"ILSVRC2012_val_{number:08d}"
        save(pictures / f"{name}.JPEG", number - 1)
        box = "<bndbox><xmin>15</xmin><ymin>4</ymin><xmax>20</xmax><ymax>8</ymax></bndbox>"
        text = f"<annotation><object><name>{synset}</name>{box}</object>{more}</annotation>"
        write(boxes / f"{name}.xml", text)


def ilsvrc(root):
    """Two synsets in the layout of Kaggle."""
    write(root / "LOC_synset_mapping.txt", "n01440764 tench, Tinca tinca", "n01443537 goldfish, Carassius auratus")
    inner = root / "ILSVRC"
    _validation_images(inner / "Annotations" / "CLS-LOC" / "val", inner / "Data" / "CLS-LOC" / "val")
    return root


SYNSETS = ("ILSVRC2012_ID", "WNID", "words", "gloss", "num_children", "children", "wordnet_height", "num_train_images")


def devkit(root, *, boxes="val", pictures="ILSVRC2012_img_val"):
    """The same in the layout of the challenge's archives, whose numbers of synsets are not in their order."""
    data = root / "ILSVRC2012_devkit_t12" / "data"
    data.mkdir(parents=True)
    rows = [
        (1.0, "n01443537", "goldfish, Carassius auratus", "small golden fish", 0.0, np.zeros(0), 0.0, 1300.0),
        (2.0, "n01440764", "tench, Tinca tinca", "freshwater fish", 0.0, np.zeros(0), 0.0, 1300.0),
        (3.0, "n00001740", "entity", "that which is", 2.0, np.array([1.0, 2.0]), 1.0, 0.0),
    ]
    savemat(data / "meta.mat", {"synsets": _annotations(rows, SYNSETS).T})
    write(data / "ILSVRC2012_validation_ground_truth.txt", "2", "1")
    _validation_images(root / boxes, root / pictures)
    return root


LAYOUTS = {"cub": cub, "cars": cars, "aircraft": aircraft, "ilsvrc": ilsvrc}
