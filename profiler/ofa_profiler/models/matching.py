"""Which operator of the file a layer is that the runtime reports.

Runtimes rename, fuse and split operators. A layer gets the work of an operator only if its name leads to one: it is
the name of the operator or of its output, apart from marks of the runtime. What a fused layer is named after may be
the last of its operators; the one of the kind of the layer is then found upstream.
"""

import re
from collections.abc import Sequence

from ofa_profiler.models.model_file import FileOperator

# What runtimes add to names: the optimisers of ONNX Runtime and of OpenVINO.
MARKS = re.compile(
    r"^fused |_nchwc$|_nhwc$|_quant(ized)?$|_token_\d+$|_scale_cast$|_\d+$"
    r"|/WithoutBiases$|/(Quantize|Dequantize)Linear$|/\w+Fusion/?$"
)
UPSTREAM = 4  # operators that may be fused behind a convolution
# Kinds that are the same work, by what runtimes and formats call them.
CONVOLUTIONS = ("conv", "convolution", "fusedconv", "qlinearconv", "convinteger", "nhwcfusedconv", "groupconvolution")
PRODUCTS = (
    *("matmul", "fusedmatmul", "qlinearmatmul", "matmulinteger", "matmulintegertofloat", "dynamicquantizematmul"),
    *("gemm", "fusedgemm", "qgemm", "fullyconnected"),
)
ALIKE = (CONVOLUTIONS, PRODUCTS)


class Matcher:
    """Finds the operator of each layer of one model."""

    def __init__(self, operators: Sequence[FileOperator]) -> None:
        self._by_name = {operator.name: operator for operator in operators}
        self._by_output = {output: operator for operator in operators for output in operator.outputs}

    def find(self, name: str, kind: str) -> FileOperator | None:
        """Return the operator of a layer by its name and kind; None if the name leads to none."""
        found = self._named(name)
        if found is None or not kind or _work(found.kind) == _work(kind):
            return found
        return self._upstream(found, kind)

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
            found = next((each for each in before if _work(each.kind) == _work(kind)), None)
            if found is not None or not before:
                return found
            operator = before[0]
        return None


def _work(kind: str) -> str:
    """Return one name for all kinds of the same work: of letters only, in lower case."""
    plain = re.sub(r"[^a-z]", "", kind.lower())
    return next((alike[0] for alike in ALIKE if plain in alike), plain)
