"""Shapes on the command line."""

from pathlib import Path

import pytest

from ofa_profiler.models.shapes import parse_shapes, require_used, resolve
from ofa_tables.errors import FileError, UsageError

HERE = Path("mine.onnx")


def test_shapes_are_parsed():
    assert parse_shapes(["x=1x3x224x224", "a=b=2x5"]) == {"x": (1, 3, 224, 224), "a=b": (2, 5)}
    assert parse_shapes(["1x3"]) == {"": (1, 3)}


@pytest.mark.parametrize("text", ["x", "x=", "x=1x-3", "x=1,3", "=1x3", "x=0x3", ""])
def test_what_is_no_shape_is_refused(text):
    with pytest.raises(UsageError, match="--shape takes NAME=1x3x224x224"):
        parse_shapes([text])


def test_a_shape_is_given_once():
    with pytest.raises(UsageError, match="is given twice"):
        parse_shapes(["x=1x3", "x=1x4"])


def test_fixed_shapes_need_nothing():
    assert resolve(HERE, {"x": (1, 3)}, {}) == {"x": (1, 3)}


def test_an_open_dimension_is_named_with_the_flag_to_add():
    with pytest.raises(FileError, match=r"input x is batch×3×\?×\?: batch and \? are not fixed; add --shape x=1x3x224"):
        resolve(HERE, {"x": ("batch", 3, "", "")}, {})
    with pytest.raises(FileError, match=r"ids is n: n is not fixed; add --shape ids=16"):
        resolve(HERE, {"ids": ("n",)}, {})
    with pytest.raises(FileError, match=r"x is unknown; add --shape x=1x3x224x224"):
        resolve(HERE, {"x": None}, {})


def test_a_single_input_needs_no_name():
    assert resolve(HERE, {"x": ("n", 3)}, {"": (2, 3)}) == {"x": (2, 3)}
    with pytest.raises(UsageError, match=r"2 inputs \(a, b\); write their names, such as --shape a=16 --shape b=4"):
        resolve(HERE, {"a": ("n",), "b": (4,)}, {"": (2,)})


def test_a_shape_that_does_not_fit_is_refused():
    with pytest.raises(UsageError, match=r"x=1x4 does not fit mine.onnx: the shape there is n×3, as in --shape x=1x3"):
        resolve(HERE, {"x": ("n", 3)}, {"x": (1, 4)})


def test_a_shape_for_no_input_is_refused():
    with pytest.raises(UsageError, match=r"no model has an input y; inputs: x"):
        require_used({"y": (1,)}, ["x"])
    require_used({"": (1,)}, ["x"])
    with pytest.raises(FileError, match=r"add --shape x=1x3 \(y is not an input of it\)"):
        resolve(HERE, {"x": ("n", 3)}, {"y": (1, 3)})
