"""The nodes of TFLite models that XNNPACK's kernels execute. The names are those that LiteRT 2.3 reports."""

from ofa_agent.runtimes.litert_layers import assign

KINDS = ("TRANSPOSE", "PAD", "CONV_2D", "HARD_SWISH", "DEPTHWISE_CONV_2D", "MEAN", "RESHAPE", "FULLY_CONNECTED")
TAGS = (
    "Transpose (ND, X32) Transpose",
    "Convolution (NHWC, F32) IGEMM",
    "HardSwish (NC)",
    "Convolution (NHWC, F32) DWConv",
    "Mean (ND) Reduce2",
    "Fully Connected (NC, F32) GEMM",
)


def test_each_kernel_has_its_node_and_some_nodes_have_none():
    assert assign(TAGS, KINDS) == [0, 2, 3, 4, 5, 7]


def test_a_pointwise_convolution_is_executed_as_a_linear_layer():
    assert assign(["Fully Connected (NC, F32) GEMM"] * 2, ["CONV_2D", "CONV_2D"]) == [0, 1]


def test_a_kernel_between_two_products_is_never_a_node_outside():
    tags = ["Convolution (NHWC, F32) GEMM", "Add (ND)", "Convolution (NHWC, F32) GEMM"]
    assert assign(tags, ["CONV_2D", "CONV_2D", "ADD"]) == [0, None, 1]


def test_a_kernel_that_no_node_needs_stays_without_one():
    tags = ["Copy (NC, X32)", "Static Reshape (NC)", "Softmax (NC, F32)"]
    assert assign(tags, ["RESHAPE", "SOFTMAX"]) == [0, None, 1]


def test_kernels_of_the_interpreter_are_called_as_the_node():
    assert assign(["PADV2", "CONV_2D", "CUSTOM"], ["PADV2", "CONV_2D", "CUSTOM"]) == [0, 1, 2]


def test_nothing_is_assigned_if_the_products_differ():
    assert assign(TAGS, KINDS[:-1]) == [None] * 6
    assert assign(["Deconvolution (NHWC, F32) Subconv2D"], ["CONV_2D"]) == [None]
