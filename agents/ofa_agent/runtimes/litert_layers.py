"""Which node of a TFLite model each kernel executes that LiteRT's profiler reports.

XNNPACK executes the nodes in their order, and reports its own names for what it executes. Products (convolutions,
linear layers, matrix products) have one kernel each, so that the first kernel of a product is the first such node, and
so on. Kernels between two products are among the nodes between them; some nodes have none.
"""

from typing import List, Optional, Sequence

# By kind of node: the beginnings of what XNNPACK calls its kernels. The interpreter's own are called as the node.
PRODUCTS = {
    "CONV_2D": ("Convolution", "Fully Connected"),
    "DEPTHWISE_CONV_2D": ("Convolution", "Fully Connected"),
    "FULLY_CONNECTED": ("Fully Connected", "Convolution"),
    "TRANSPOSE_CONV": ("Deconvolution",),
    "BATCH_MATMUL": ("Batch Matrix Multiply",),
}
OTHERS = {
    "ADD": ("Add",),
    "SUB": ("Subtract",),
    "MUL": ("Multiply",),
    "DIV": ("Divide",),
    "SQUARED_DIFFERENCE": ("Squared Difference",),
    "MAXIMUM": ("Maximum",),
    "MINIMUM": ("Minimum",),
    "PRELU": ("PReLU",),
    "LEAKY_RELU": ("Leaky ReLU",),
    "ELU": ("ELU",),
    "RELU": ("Clamp",),
    "RELU6": ("Clamp",),
    "RELU_N1_TO_1": ("Clamp",),
    "HARD_SWISH": ("HardSwish",),
    "LOGISTIC": ("Sigmoid",),
    "TANH": ("Tanh",),
    "GELU": ("GELU",),
    "EXP": ("Exp",),
    "SQRT": ("Square Root",),
    "RSQRT": ("Reciprocal Square Root",),
    "SOFTMAX": ("Softmax",),
    "MEAN": ("Mean", "Global Average"),
    "SUM": ("Sum",),
    "AVERAGE_POOL_2D": ("Average Pooling",),
    "MAX_POOL_2D": ("Max Pooling",),
    "TRANSPOSE": ("Transpose",),
    "RESHAPE": ("Static Reshape", "Copy"),
    "SLICE": ("Slice",),
    "STRIDED_SLICE": ("Slice",),
    "CONCATENATION": ("Copy", "Concatenate"),
    "SPLIT": ("Slice", "Copy"),
    "PAD": ("Constant Pad",),
    "RESIZE_BILINEAR": ("Resize Bilinear",),
    "QUANTIZE": ("Convert",),
    "DEQUANTIZE": ("Convert",),
}


def assign(tags: Sequence[str], kinds: Sequence[str]) -> List[Optional[int]]:
    """Return the index of the node of each kernel; None if unknown. ``kinds`` are those of the nodes, in order.

    All are None if the products of the kernels are not those of the nodes.
    """
    of_kernels = [at for at, tag in enumerate(tags) if _is_product(tag)]
    of_nodes = [at for at, kind in enumerate(kinds) if kind in PRODUCTS]
    found: List[Optional[int]] = [None] * len(tags)
    if len(of_kernels) != len(of_nodes):
        return found
    if not all(_executes(tags[kernel], kinds[node]) for kernel, node in zip(of_kernels, of_nodes)):
        return found
    starts, nodes = [-1] + of_kernels, [-1] + of_nodes
    for start, end, first, last in zip(starts, of_kernels + [len(tags)], nodes, of_nodes + [len(kinds)]):
        if start >= 0:
            found[start] = first
        node = first + 1
        for kernel in range(start + 1, end):
            fitting = next((at for at in range(node, last) if _executes(tags[kernel], kinds[at])), None)
            if fitting is not None:
                found[kernel], node = fitting, fitting + 1
    return found


def _is_product(tag: str) -> bool:
    return any(_executes(tag, kind) for kind in PRODUCTS)


def _executes(tag: str, kind: str) -> bool:
    return tag == kind or tag.startswith(PRODUCTS.get(kind) or OTHERS.get(kind) or (kind,))
