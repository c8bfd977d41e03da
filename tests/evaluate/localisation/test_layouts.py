"""Data sets with boxes and landmarks are read in their published layouts, and bad ones named in one sentence."""

import re
import shutil

import numpy as np
import pytest

from glas3d.errors import GlasError
from glas3d.evaluate.localisation import read_layout
from glas3d.simulate import BIRD_PARTS, draw_bird, write_birds
from tests.evaluate.localisation import drawn

BOX = ((4.0, 8.0), (15.0, 20.0))


@pytest.fixture(scope="module", params=drawn.LAYOUTS)
def layout(request, tmp_path_factory):
    """Return the name and the folder of each layout."""
    return request.param, drawn.LAYOUTS[request.param](tmp_path_factory.mktemp("data") / request.param)


def test_boxes_are_in_pixels_whose_edges_are_integers(layout):
    """Half of the layouts count pixels from 1, and include the last one."""
    name, folder = layout
    data = read_layout(folder, name)
    assert data.layout == name
    assert len(data.classes) == 2
    assert all(image.boxes[0] == BOX for image in data.images)
    assert all(image.path.is_file() for image in data.images)
    assert sorted({image.target for image in data.images}) == [0, 1]


def test_cub(tmp_path):
    data = read_layout(drawn.cub(tmp_path / "CUB_200_2011").parent, "cub")  # the folder above holds it too
    assert data.classes == ("Sooty_Albatross", "Crested_Auklet")
    assert [image.target for image in data.images] == [1, 0, 1]
    assert dict(data.images[0].landmarks) == {"beak": (6.0, 17.0), "back": (9.0, 3.0)}  # the eye is not visible
    (first,) = read_layout(tmp_path, "cub", "train").images
    assert (first.target, first.path.name) == (0, "Sooty_Albatross_0000.jpg")
    assert [image.target for image in data.of_classes(["Crested_Auklet"]).images] == [1, 1]
    with pytest.raises(
        GlasError, match="there is no class 'Wren' in this data set, its classes are such as Sooty_Alba"
    ):
        data.of_classes(["Wren"])
    few = data.drawn(2, seed=1).images
    assert len(few) == 2
    assert all(image in data.images for image in few)
    assert data.drawn(9, seed=1) is data


def test_cars_of_mirrors_and_of_one_list(tmp_path):
    for made in (drawn.cars(tmp_path / "mirror", mirror=True), drawn.cars(tmp_path / "above" / "stanford_cars").parent):
        data = read_layout(made, "cars")
        assert [image.target for image in data.images] == [0, 1]
        assert data.classes == ("AM General Hummer SUV 2000", "Acura RL Sedan 2012")
        assert [image.path.name for image in read_layout(made, "cars", "train").images] == ["00001.jpg"]
    one = drawn.cars_in_one_list(tmp_path / "one")
    assert [(image.target, image.boxes[0]) for image in read_layout(one, "cars").images] == [(1, BOX)]
    assert [image.target for image in read_layout(one, "cars", "train").images] == [0]


def test_aircraft(tmp_path):
    data = read_layout(drawn.aircraft(tmp_path / "fgvc"), "aircraft")
    assert [(image.path.stem, image.target, image.bottom) for image in data.images] == [
        ("1033294", 1, 20),
        ("0034309", 0, 20),
    ]


def test_ilsvrc(tmp_path):
    folder = drawn.ilsvrc(tmp_path / "imagenet")
    for root in (folder, folder / "ILSVRC"):  # the mapping lies above or inside
        data = read_layout(root, "ilsvrc")
        assert data.classes == ("tench", "goldfish")
        assert [len(image.boxes) for image in data.images] == [1, 2]
        assert data.images[1].boxes[1] == ((12.0, 18.0), (0.0, 6.0))


@pytest.mark.parametrize(
    ("boxes", "pictures"),
    [
        ("val", "ILSVRC2012_img_val"),
        ("val", "val"),
        ("ILSVRC2012_bbox_val_v3/val", "."),
        ("val", "val/n01440764"),  # sorted into folders of the synsets, as torchvision wants them
    ],
)
def test_ilsvrc_in_the_archives_of_the_challenge(tmp_path, boxes, pictures):
    """The numbers of the synsets are another order than that of the classes, and groups of synsets are no classes."""
    folder = drawn.devkit(tmp_path / "imagenet", boxes=boxes, pictures=pictures)
    data = read_layout(folder, "ilsvrc")
    kaggle = read_layout(drawn.ilsvrc(tmp_path / "kaggle"), "ilsvrc")
    assert data.classes == kaggle.classes == ("tench", "goldfish")
    found, same = ([(i.path.name, i.target, i.boxes) for i in each.images] for each in (data, kaggle))
    assert found == same
    with pytest.raises(GlasError, match=r"^part must be test, because ILSVRC2012_devkit_t12 has .*, got 'train'$"):
        read_layout(folder, "ilsvrc", "train")


META = "ILSVRC2012_devkit_t12/data/meta.mat"
GROUND_TRUTH = "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt"
ANNOTATION = "val/ILSVRC2012_val_00000002.xml"


@pytest.mark.parametrize(
    ("file", "content", "match"),
    [
        (META, None, rf"^no such file: .*LOC_synset_mapping\.txt \(nor .*, {META}\)$"),
        (META, "text", "must be a MATLAB file, FILE cannot be read"),
        (GROUND_TRUTH, None, "^no such file: FILE$"),
        (GROUND_TRUTH, "2", "FILE has no 2$"),
        (GROUND_TRUTH, "2\nn01443537", "hold the numbers of this list, FILE has 'n01443537'"),
        (GROUND_TRUTH, "2\n3", r"all that others refer to, .*meta\.mat has no 3$"),
        (GROUND_TRUTH, "2\n2", rf"must be of the class in .*, n01440764, .*{ANNOTATION} has n01443537$"),
        (ANNOTATION, "<annotation/>", "must be of the class in .*, n01443537, FILE has none$"),
        ("val/ILSVRC2012_val_two.xml", "<annotation/>", "hold the numbers of this list, FILE has 'two'$"),
        ("val", None, r"^no such files: .*ILSVRC2012_val_\*\.xml, nor in a folder of it$"),
        ("ILSVRC2012_img_val", None, r"^no such files: .*ILSVRC2012_val_\*\.JPEG, nor in a folder of it$"),
        (
            "ILSVRC2012_img_val/ILSVRC2012_val_00000002.JPEG",
            None,
            rf"^no such file: .*, which has the boxes .*{ANNOTATION}$",
        ),
    ],
)
def test_a_missing_part_of_the_archives_is_one_sentence(file, content, match, tmp_path):
    folder = drawn.devkit(tmp_path / "data")
    if content is not None:
        (folder / file).write_text(content)
    elif (folder / file).is_dir():
        shutil.rmtree(folder / file)
    else:
        (folder / file).unlink()
    with pytest.raises(GlasError, match=match.replace("FILE", f".*{re.escape(file)}")) as refused:
        read_layout(folder, "ilsvrc")
    assert "\n" not in str(refused.value)


def test_synsets_need_their_fields(tmp_path):
    folder = drawn.devkit(tmp_path / "data")
    drawn.savemat(folder / META, {"synsets": drawn._annotations([(1.0, "n01440764")], drawn.SYNSETS[:2])})
    with pytest.raises(GlasError, match=r"each record must have the field num_children, .*meta\.mat has no field"):
        read_layout(folder, "ilsvrc")
    drawn.savemat(folder / META, {"others": 1})
    with pytest.raises(GlasError, match=r"must have the variable synsets, .*meta\.mat has none"):
        read_layout(folder, "ilsvrc")


XML = "ILSVRC/Annotations/CLS-LOC/val/ILSVRC2012_val_00000001.xml"


@pytest.mark.parametrize(
    ("name", "file", "content", "match"),
    [  # a file that is removed (None) or has another content
        ("cub", "bounding_boxes.txt", None, "^no such file: FILE$"),
        ("cub", "bounding_boxes.txt", "2 1.0 2.0", "hold the numbers of this list, FILE has '1.0 2.0'"),
        ("cub", "bounding_boxes.txt", "1 1 2 3 4", "all that others refer to, FILE has no 2$"),
        ("cub", "images.txt", "one two", "begin with a number, FILE has 'one two'"),
        ("cub", "classes.txt", "1 001.A", "FILE has no 2$"),
        ("cub", "train_test_split.txt", "1 1\n2 1\n3 1\n4 1", "must have images for test, .* has none"),
        ("cub", "images/002.Crested_Auklet/Crested_Auklet_0001.jpg", None, "^no such file: FILE, which the lists of"),
        ("cub", "parts/parts.txt", None, "^no such file: FILE$"),
        ("cars", "devkit/cars_meta.mat", None, r"^no such file: FILE \(nor "),
        ("cars", "devkit/cars_meta.mat", "text", "must be a MATLAB file, FILE cannot be read"),
        ("aircraft", "data/variants.txt", None, "^no such file: FILE$"),
        ("aircraft", "data/variants.txt", "707-320", "FILE has no Yak-42$"),
        ("aircraft", "data/images_box.txt", "0034309 1 2 3 4", "FILE has no 1033294$"),
        ("ilsvrc", "LOC_synset_mapping.txt", None, "^no such file: .*LOC_synset_mapping.txt"),
        ("ilsvrc", "LOC_synset_mapping.txt", "n01440764 tench", "FILE has no n01443537$"),
        ("ilsvrc", XML, "<annotation>", "must be XML with boxes, FILE cannot be read"),
        ("ilsvrc", XML, "<annotation/>", "must have objects of one class, FILE has none"),
    ],
)
def test_a_bad_folder_is_one_sentence_that_names_the_file(name, file, content, match, tmp_path):
    folder = drawn.LAYOUTS[name](tmp_path / "data")
    (folder / file).unlink() if content is None else (folder / file).write_text(content)
    with pytest.raises(GlasError, match=match.replace("FILE", f".*{re.escape(file)}")) as refused:
        read_layout(folder, name)
    assert "\n" not in str(refused.value)


def test_what_is_no_data_set_is_refused(tmp_path):
    with pytest.raises(GlasError, match=r"a data set must be a folder, .*nowhere is not"):
        read_layout(tmp_path / "nowhere", "cub")
    with pytest.raises(GlasError, match="layout must be one of cub, cars, aircraft, ilsvrc, got 'birds'"):
        read_layout(tmp_path, "birds")
    with pytest.raises(GlasError, match="part must be test or train, got 'val'"):
        read_layout(tmp_path, "cub", "val")


def test_labels_of_the_test_images_are_needed(tmp_path):
    """The list that the authors published first has no classes."""
    folder = drawn.cars(tmp_path / "data")
    rows = [(16.0, 5.0, 20.0, 8.0, "00001.jpg")]
    fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "fname")
    drawn.savemat(
        folder / "devkit" / "cars_test_annos_withlabels.mat", {"annotations": drawn._annotations(rows, fields)}
    )
    with pytest.raises(GlasError, match=r"has no labels: take cars_test_annos_withlabels\.mat"):
        read_layout(folder, "cars")
    shutil.copy(folder / "devkit" / "cars_meta.mat", folder / "devkit" / "cars_test_annos_withlabels.mat")
    with pytest.raises(GlasError, match=r"must have the variable annotations, .*withlabels\.mat has none"):
        read_layout(folder, "cars")


def test_drawn_birds_differ_in_the_part_that_is_red():
    """Where the landmark is, the picture is red; where the other parts are, it is not."""
    for number in range(20):
        red = BIRD_PARTS[number % len(BIRD_PARTS)]
        bird = draw_bird(red, np.random.default_rng(number), (96, 112))
        for part, (row, column) in bird.parts.items():
            r, g, b = bird.picture[round(row), round(column)].astype(int)
            assert (r - max(g, b) > 100) == (part == red), (number, part)
            assert bird.box[0][0] <= row < bird.box[0][1]
            assert bird.box[1][0] <= column < bird.box[1][1]


def test_birds_are_written_in_the_layout_of_cub(tmp_path):
    data = read_layout(write_birds(tmp_path / "birds", 2, seed=3), "cub")
    assert data.classes == tuple(f"Red_{part}ed_Bird" for part in BIRD_PARTS)
    assert [image.target for image in data.images] == list(range(len(BIRD_PARTS)))
    rng = np.random.default_rng(3)
    birds = [draw_bird(part, rng) for part in BIRD_PARTS * 2]
    for image, bird in zip(data.images, birds[len(BIRD_PARTS) :], strict=True):
        assert tuple((int(a), int(b)) for a, b in image.boxes[0]) == bird.box
        for part in BIRD_PARTS:
            np.testing.assert_allclose(image.landmarks[part], bird.parts[part], atol=0.051)
    assert len(read_layout(tmp_path / "birds", "cub", "train").images) == len(BIRD_PARTS)
    with pytest.raises(GlasError, match="must be new or empty"):
        write_birds(tmp_path / "birds", 1)
