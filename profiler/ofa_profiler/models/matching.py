"""Which operator of the file a layer is that the runtime reports.

Runtimes rename, fuse and split operators. A layer gets the work of an operator only if its name leads to one: it is
the name of the operator or of its output, apart from marks of the runtime. What a fused layer is named after may be
the last of its operators; the one of the kind of the layer is then found upstream.
"""

import re
from collections.abc import Sequence

from ofa_profiler.models.model_file import FileOperator

# What runtimes add to names: ONNX Runtime's optimisers.
MARKS = re.compile(
    r"^fused |_nchwc$|_nhwc$|_quant(ized)?$|_token_\d+$|_scale_cast$|/(Quantize|Dequantize)Linear$|_\d+$"
)
UPSTREAM = 4  # operators that may be fused behind a convolution
KINDS = {"FusedConv": "Conv", "QLinearConv": "Conv", "FusedMatMul": "MatMul", "QLinearMatMul": "MatMul"}
KINDS |= {"FusedGemm": "Gemm", "QGemm": "Gemm", "ConvInteger": "Conv", "DynamicQuantizeMatMul": "MatMul"}
KINDS |= {"MatMulIntegerToFloat": "MatMul", "NhwcFusedConv": "Conv"}


class Matcher:
    """Finds the operator of each layer of one model."""

    def __init__(self, operators: Sequence[FileOperator]) -> None:
        self._by_name = {operator.name: operator for operator in operators}
        self._by_output = {output: operator for operator in operators for output in operator.outputs}

    def find(self, name: str, kind: str) -> FileOperator | None:
        """Return the operator of a layer by its name and kind; None if the name leads to none."""
        found = self._named(name)
        wanted = KINDS.get(kind, kind)
        if found is None or not kind or _plain(found.kind) == _plain(wanted):
            return found
        return self._upstream(found, wanted)

    def _named(self, name: str) -> FileOperator | None:
        while name:
            found = self._by_name.get(name) or self._by_output.get(name)
            if found is not None:
                return found
            shorter = MARKS.sub("", name)
            if shorter == name:
                return None
            name = shorter
        return None

    def _upstream(self, operator: FileOperator, kind: str) -> FileOperator | None:
        for _ in range(UPSTREAM):
            before = [self._by_output[value] for value in operator.inputs if value in self._by_output]
            found = next((each for each in before if _plain(each.kind) == _plain(kind)), None)
            if found is not None or not before:
                return found
            operator = before[0]
        return None


def _plain(kind: str) -> str:
    """``Conv`` and ``conv2d`` and ``CONV_2D`` are one kind in different spellings."""
    return re.sub(r"[^a-z]", "", kind.lower())
