"""Read table values for all networks of a Population."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

# float32 represents all integers up to here, and BLAS has no narrower type.
_EXACT = 1 << 24


class Reader:
    """Reads several tables with one matrix product and one gather, which has little overhead for small Populations.

    ``reads`` are (rows, radices, table). The joint code of the genes in ``rows`` (mixed radix, the last one fastest)
    indexes the flat ``table``. ``genes`` is the number of rows of a Population.
    """

    def __init__(self, genes: int, reads: Sequence[tuple[Sequence[int], Sequence[int], Array]]) -> None:
        self._flat = np.concatenate([np.ravel(table) for _, _, table in reads])
        if len(self._flat) > _EXACT:
            raise ValueError(
                f"tables with {len(self._flat)} values in total are too large for a Reader; the maximum is {_EXACT}"
            )
        sizes = [table.size for _, _, table in reads]
        self._starts = np.array([np.cumsum([0, *sizes[:-1]])], dtype=np.float32).T
        self._weights = np.zeros((len(reads), genes), dtype=np.float32)
        for weights, (rows, radices, _) in zip(self._weights, reads, strict=True):
            weight = 1
            for row, radix in zip(reversed(rows), reversed(radices), strict=True):
                weights[row] = weight
                weight *= radix

    def __call__(self, genes: Array) -> Array:
        """Return (tables, N) values for genes (genes, N)."""
        codes = self._weights @ genes.astype(np.float32)
        codes += self._starts
        return self._flat.take(codes.astype(np.intp))
