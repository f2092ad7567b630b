"""Read table values for the genes of a whole Population."""

from collections.abc import Sequence
from typing import Any

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]

# float32 counts without gaps up to here, and BLAS multiplies nothing narrower.
_EXACT = 1 << 24


class Reader:
    """Reads several tables at once by one matrix product and one gather: little overhead for small Populations.

    ``reads`` are (rows, radices, table): the joint code (mixed radix, the last one fastest) of the genes in ``rows``
    indexes the flat ``table``. ``genes`` is how many rows a Population has.
    """

    def __init__(self, genes: int, reads: Sequence[tuple[Sequence[int], Sequence[int], Array]]) -> None:
        self._flat = np.concatenate([np.ravel(table) for _, _, table in reads])
        if len(self._flat) > _EXACT:
            raise ValueError(f"tables of {len(self._flat)} figures together are more than a Reader can index")
        sizes = [table.size for _, _, table in reads]
        self._starts = np.array([np.cumsum([0, *sizes[:-1]])], dtype=np.float32).T
        self._weights = np.zeros((len(reads), genes), dtype=np.float32)
        for weights, (rows, radices, _) in zip(self._weights, reads, strict=True):
            weight = 1
            for row, radix in zip(reversed(rows), reversed(radices), strict=True):
                weights[row] = weight
                weight *= radix

    def __call__(self, genes: Array) -> Array:
        """(tables, N) from genes (genes, N)."""
        codes = self._weights @ genes.astype(np.float32)
        codes += self._starts
        return self._flat.take(codes.astype(np.intp))
