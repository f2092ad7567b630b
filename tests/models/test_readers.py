"""What is read from model files, and what is refused with one line before anything is sent."""

import re

import numpy as np
import onnx
import pytest
from model_files import CONV_MACS, conv_onnx, custom_onnx, loop_onnx, save, small_pt2, small_tflite, tokens_onnx, value
from onnx import TensorProto, helper

from ofa_agent.inputs import ModelInput
from ofa_profiler.models.formats import read_model
from ofa_profiler.models.onnx_reader import read_onnx
from ofa_tables.errors import FileError, UsageError


def test_an_onnx_file_has_inputs_operators_and_macs(tmp_path):
    file = read_model(conv_onnx(tmp_path / "mine.onnx"))
    assert file.inputs == (ModelInput("x", "float32", (1, 3, 16, 16)),)
    assert [(each.name, each.kind) for each in file.operators] == [
        ("first", "Conv"),
        ("relu", "Relu"),
        ("flat", "Flatten"),
        ("last", "Gemm"),
    ]
    assert [each.macs for each in file.operators] == [CONV_MACS[0], None, None, CONV_MACS[1]]
    assert file.macs == sum(CONV_MACS)
    assert file.operators[0].moved_bytes == 4 * (3 * 16 * 16 + 8 * 27 + 8 * 16 * 16)
    assert file.parameters == 8 * 27 + 8 * 16 * 16 * 10
    assert file.resolution_px == 16


def test_token_ids_are_rows_of_their_table_and_masks_are_bools(tmp_path):
    file = read_model(tokens_onnx(tmp_path / "tokens.onnx", rows=50))
    assert [(each.kind, each.below) for each in file.inputs] == [("int64", 50), ("bool", 0)]


def test_the_macs_of_a_model_with_a_loop_are_unknown(tmp_path):
    assert read_model(loop_onnx(tmp_path / "loop.onnx")).macs is None


def test_a_tflite_file(tmp_path):
    pytest.importorskip("ai_edge_litert")
    file = read_model(small_tflite(tmp_path / "mine.tflite"))
    assert file.inputs == (ModelInput("x", "float32", (1, 12, 12, 3)),)
    assert file.macs == 12 * 12 * 8 * 27 + 8 * 5
    assert "CONV_2D" in [each.kind for each in file.operators]
    assert file.resolution_px == 12


def test_a_torch_export_file(tmp_path):
    pytest.importorskip("torch")
    file = read_model(small_pt2(tmp_path / "mine.pt2"))
    assert [(each.name, each.shape) for each in file.inputs] == [("image", (1, 3, 8, 8)), ("scale", (1,))]
    assert file.macs == 8 * 8 * 4 * 27 + 4 * 2
    assert file.operators[0].label == "conv conv2d"


def test_weights_in_other_files_are_packed_into_one(tmp_path):
    there = tmp_path / "whole.onnx"
    apart = tmp_path / "apart.onnx"
    onnx.save(
        onnx.load(str(conv_onnx(there))),
        str(apart),
        save_as_external_data=True,
        location="apart.data",
        size_threshold=0,
    )
    model = onnx.load(str(there))
    file = read_model(apart)
    packed = onnx.ModelProto.FromString(file.content)
    assert not any(tensor.external_data for tensor in packed.graph.initializer)
    assert [each.raw_data for each in packed.graph.initializer] == [each.raw_data for each in model.graph.initializer]
    assert file.macs == sum(CONV_MACS)


def _apart(path, change):
    model = onnx.load(str(conv_onnx(path)))
    onnx.save(model, str(path), save_as_external_data=True, location="weights.bin", size_threshold=0)
    change(path.with_name("weights.bin"))
    return path


def _outside(path):
    model = onnx.load(str(_apart(path, lambda data: None)), load_external_data=False)
    for tensor in model.graph.initializer:
        next(entry for entry in tensor.external_data if entry.key == "location").value = "../weights.bin"
    path.write_bytes(model.SerializeToString())
    return path


def _huge(path):
    with path.open("wb") as file:
        file.truncate(3 << 30)  # takes no space on the disk
    return path


def _truncated(path):
    content = conv_onnx(path).read_bytes()
    path.write_bytes(content[: len(content) // 2])
    return path


def _texts(path):
    node = helper.make_node("Identity", ["x"], ["y"])
    return save(path, [node], [value("x", [2], TensorProto.STRING)], [value("y", [2], TensorProto.STRING)])


BAD = {
    "truncated": (_truncated, "is truncated, damaged, or not an ONNX file"),
    "empty": (lambda path: (path.write_bytes(b""), path)[1], "not an ONNX file: it has no operators"),
    "3 GB": (_huge, "is larger than 1024 MiB, the limit of a model file"),
    "custom operator": (custom_onnx, "the custom operator acme::Sparkle, which no runtime has"),
    "external data is missing": (
        lambda path: _apart(path, lambda data: data.unlink()),
        "weights.bin, which is missing",
    ),
    "external data is truncated": (lambda path: _apart(path, lambda data: data.write_bytes(b"ab")), "weights"),
    "external data outside": (_outside, "../weights.bin, outside its folder"),
    "open shape": (lambda path: conv_onnx(path, batch="batch", size=None), r"add --shape x=1x3x224x224"),
    "texts": (_texts, "values of type string"),
}


@pytest.mark.parametrize("kind", BAD)
def test_a_bad_onnx_file_is_refused_with_one_line(tmp_path, kind):
    make, says = BAD[kind]
    with pytest.raises(FileError, match=re.escape(says)) as refused:
        read_model(make(tmp_path / "bad.onnx"))
    assert "\n" not in str(refused.value)
    assert "bad.onnx" in str(refused.value)


def test_a_file_that_is_cut_anywhere_is_refused(tmp_path):
    content = conv_onnx(tmp_path / "whole.onnx").read_bytes()
    cut = tmp_path / "cut.onnx"
    for length in range(0, len(content) - 1, 997):
        cut.write_bytes(content[:length])
        with pytest.raises(FileError):
            read_onnx(cut, {})


def test_a_truncated_tflite_file(tmp_path):
    pytest.importorskip("ai_edge_litert")
    path = small_tflite(tmp_path / "cut.tflite")
    content = path.read_bytes()
    path.write_bytes(content[: int(0.7 * len(content))])
    with pytest.raises(FileError, match="truncated or damaged"):
        read_model(path)
    path.write_bytes(b"a" * 100)
    with pytest.raises(FileError, match="is not a TFLite file"):
        read_model(path)


def test_a_truncated_torch_export_file(tmp_path):
    pytest.importorskip("torch")
    path = small_pt2(tmp_path / "cut.pt2")
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(FileError, match=r"is truncated, damaged, or not a file of torch\.export\.save"):
        read_model(path)


def test_other_files_are_not_models(tmp_path):
    with pytest.raises(UsageError, match=r"the suffix must be one of \.onnx, \.tflite, \.lite, \.pt2"):
        read_model(tmp_path / "mine.txt")
    with pytest.raises(UsageError, match=r"export it with torch\.export\.save"):
        read_model(tmp_path / "mine.pth")


def test_the_same_file_with_another_shape_is_another_model(tmp_path):
    path = conv_onnx(tmp_path / "open.onnx", batch="n")
    one, four = (read_model(path, {"x": (batch, 3, 16, 16)}) for batch in (1, 4))
    assert one.model.model_id == four.model.model_id
    assert one.key != four.key
    assert four.macs == 4 * one.macs


def test_values_for_inputs_are_random_and_in_range():
    from ofa_agent.inputs import random_values

    ids = random_values(ModelInput("ids", "int64", (1000,), 7), 1)
    assert (ids.dtype, ids.min(), ids.max()) == (np.int64, 0, 6)
    assert set(random_values(ModelInput("mask", "bool", (64,)), 1)) == {True, False}
    half = random_values(ModelInput("x", "float16", (3, 500)), 1)
    assert (half.dtype, half.shape) == (np.float16, (3, 500))
    assert 0.9 < half.astype(float).std() < 1.1
    assert random_values(ModelInput("x", "uint8", (9,), 1000), 1).dtype == np.uint8
