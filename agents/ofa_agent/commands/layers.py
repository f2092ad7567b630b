"""Assign the kernels or layers that a runtime reports to operators, by their names.

The nodes of our models are named ``operator0``, ``operator1.gate`` and so on (``ofa_profiler/lowering/onnx.py``).
"""

import re
from typing import List, NamedTuple, Sequence

NODE_NAME = re.compile(r"operator(\d+)")


class Kernel(NamedTuple):
    """A kernel of a compiled model.

    ``originals`` contains the names of the nodes in it. It is empty for a change of layout between two nodes, which is
    often named after both.
    """

    name: str
    originals: str


def owners_of(kernels: Sequence[Kernel], operators: int) -> List[int]:
    """Return the operator that each kernel belongs to; ``kernels`` are in order of execution.

    A fused kernel belongs to its first operator. A change of layout belongs to the later of the operators that it is
    named after, because that one requires it. Kernels without the name of an operator belong to the next one.
    """
    owners = []
    owner = operators - 1
    for kernel in reversed(kernels):
        named = indices(kernel.originals)
        between = indices(kernel.name)
        if named:
            owner = min(named)
        elif between:
            owner = between[-1]
        owners.append(owner)
    return owners[::-1]


def indices(text: str) -> List[int]:
    """Return the indices of the operators that a text names, in order."""
    return [int(index) for index in NODE_NAME.findall(text)]
