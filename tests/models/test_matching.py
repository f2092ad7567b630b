"""Which operator of a file a layer of a runtime is."""

import pytest

from ofa_profiler.models.matching import Matcher
from ofa_profiler.models.model_file import FileOperator
from ofa_tables.layers import LayerKey, layer_key, parse_layer_key

CONV = FileOperator("/features/0/Conv", "Conv", ("x", "w"), ("c",), 100)
RELU = FileOperator("/features/1/Relu", "Relu", ("c",), ("r_output_0",))
SECOND = FileOperator("node_5", "Conv", ("r_output_0", "w2"), ("d",), 7)
HEAD = FileOperator("gemm", "Gemm", ("d", "w3"), ("19",), 9)
MATCHER = Matcher([CONV, RELU, SECOND, HEAD])


@pytest.mark.parametrize(
    ("name", "kind", "found"),
    [
        ("/features/0/Conv", "Conv", CONV),
        ("fused /features/0/Conv", "FusedConv", CONV),
        ("/features/0/Conv_nchwc", "Conv", CONV),
        ("r_output_0_nchwc", "Conv", CONV),  # named after the output of the operator that is fused into it
        ("/features/0/Conv_quant", "QLinearConv", CONV),
        ("/features/1/Relu", "Relu", RELU),
        ("node_5/WithoutBiases", "Convolution", SECOND),
        ("19", "FullyConnected", HEAD),
        ("node_5", "Conv", SECOND),
        ("gemm/MatMulAddFusion", "Gemm", HEAD),
        ("gemm/MatMulScaleFusion/", "FusedMatMul", HEAD),
        ("node_6", "Conv", None),
        ("ReorderOutput", "ReorderOutput", None),
        ("r_output_0", "MaxPool", None),  # no operator of this kind is upstream
        ("", "Conv", None),
    ],
)
def test_a_layer_is_found_by_its_name_and_kind(name, kind, found):
    assert MATCHER.find(name, kind) is found


def test_the_key_of_a_layer_can_be_read_again():
    key = layer_key("network:file/mine.onnx@0123456789ab", 7, "Layer Norm", "/a b/c\n", 4096)
    assert parse_layer_key(key) == LayerKey("0123456789ab", 7, "Layer_Norm", 4096, "/a b/c")
    assert parse_layer_key(layer_key("x@a", 0, "", "", 0)) == LayerKey("a", 0, "", 0, "")
    for other in ("network:abc", "layer:", "layer:a/b c 1 d", "layer:a/1 c d e", "Conv-input:1x1x1-output:1x1x1"):
        assert parse_layer_key(other) is None
