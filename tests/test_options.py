"""One declaration of a setting gives signatures, documentation and checks."""

import inspect
from dataclasses import dataclass, fields

import pytest

from glas3d.options import accepts, documentation, given, option, optional, parse


@dataclass(frozen=True, kw_only=True)
class Shape:
    """A shape.

    Parameters
    ----------
    width, height
        In mm.

    Raises
    ------
    ValueError
        Never.
    """

    width: float = option(2.0, group="Size", command=int)
    height: float | None = option(None)


@dataclass(frozen=True, kw_only=True)
class Box(Shape):
    """A box.

    Parameters
    ----------
    depth
        Also in mm,
        on a second line.
    """

    depth: float = option(1.0)


@accepts(Box)
def build(name, **options):
    """Build a box.

    Parameters
    ----------
    name
        Its name.
    **options
        The fields of `Box`.

    Returns
    -------
    The box.
    """
    (box,) = parse(options, Box, caller="build")
    return name, box


def test_the_signature_holds_every_field_with_its_default():
    parameters = inspect.signature(build).parameters
    assert list(parameters) == ["name", "width", "height", "depth"]
    assert parameters["width"].default == 2.0
    assert parameters["depth"].kind is inspect.Parameter.KEYWORD_ONLY


def test_unset_fields_are_none_in_the_signature():
    decorated = accepts(Box, unset=[Box])(lambda **options: options)
    assert {p.default for p in inspect.signature(decorated).parameters.values()} == {None}


def test_the_docstring_documents_every_field_in_place():
    text = inspect.getdoc(build)
    assert "**options" not in text
    assert (
        text.index("name\n") < text.index("width\n    In mm.") < text.index("depth\n    Also in mm,\n    on a second")
    )
    assert text.index("depth") < text.index("Returns\n-------")


def test_documentation_reaches_the_fields_of_ancestors():
    assert documentation(Box) == {"width": "In mm.", "height": "In mm.", "depth": "Also in mm,\non a second line."}


def test_parse_sets_what_is_given_and_keeps_defaults():
    assert build("a", depth=3.0)[1] == Box(width=2.0, height=None, depth=3.0)


@pytest.mark.parametrize(("name", "near"), [("widht", "; did you mean 'width'?"), ("colour", "")])
def test_parse_names_only_near_keywords(name, near):
    with pytest.raises(TypeError) as caught:
        build("a", **{name: 1})
    assert str(caught.value) == f"build() got an unexpected keyword argument {name!r}{near}"


def test_parse_gives_each_declaration_its_own_part():
    box, shape = parse({"width": 5.0, "depth": 6.0}, Box, Shape, caller="both")
    assert (box.width, box.depth, shape.width) == (5.0, 6.0, 5.0)


def test_optional_fields_are_none_and_keep_groups_and_documentation():
    unset = optional(Box, "UnsetBox")
    assert given(unset(depth=4.0)) == {"depth": 4.0}
    assert {one.name: one.metadata for one in fields(unset)} == {one.name: one.metadata for one in fields(Box)}
    assert fields(unset)[0].metadata["group"] == "Size"
