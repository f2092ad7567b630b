"""Look up table values by the joint code of some genes, for a whole Population at once.

A Gather is (rows of the genes, their radices, a table of (resolutions, joint codes)).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

IntArray = np.ndarray[Any, np.dtype[Any]]
FloatArray = np.ndarray[Any, np.dtype[Any]]
Gather = tuple[tuple[int, ...], tuple[int, ...], FloatArray]


def fuse(gathers: Sequence[Gather], limit: int = 256) -> list[Gather]:
    """Sum adjacent tables in advance if their joint genes have at most ``limit`` codes. This saves gathers."""
    fused: list[Gather] = []
    for gather in gathers:
        both = _merge(fused[-1], gather, limit) if fused else None
        if both is None:
            fused.append(gather)
        else:
            fused[-1] = both
    return fused


def _merge(one: Gather, two: Gather, limit: int) -> Gather | None:
    radix_of = dict(zip(one[0] + two[0], one[1] + two[1], strict=True))
    rows = tuple(sorted(radix_of))
    radices = tuple(radix_of[row] for row in rows)
    if int(np.prod(radices)) > limit:
        return None
    grid = dict(zip(rows, np.indices(radices).reshape(len(rows), -1), strict=True))
    tables = [table[:, _flat_code(grid, own_rows, own_radices)] for own_rows, own_radices, table in (one, two)]
    return rows, radices, tables[0] + tables[1]


def _flat_code(values: Mapping[int, Any], rows: Sequence[int], radices: Sequence[int]) -> Any:
    code: Any = 0
    for row, radix in zip(rows, radices, strict=True):
        code = code * radix + values[row]
    return code


def joint_code(genes: IntArray, rows: Sequence[int], radices: Sequence[int]) -> IntArray:
    """Return the joint code in the narrowest type, because numpy adds bytes many times faster than words."""
    narrow = np.uint8 if np.prod(radices) <= 256 else np.uint16
    code = genes[rows[0]].astype(narrow)
    for row, radix in zip(rows[1:], radices[1:], strict=True):
        code *= narrow(radix)
        code += genes[row]
    return code
