"""Dropout with a mask that does not depend on the number of processes."""

import torch
from torch import Tensor, nn
from torch.nn import functional


class Dropout(nn.Module):
    """Dropout of features (N, features) in training. ``draw_from`` makes the next masks repeatable."""

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self._generator: torch.Generator | None = None
        self._rows = (0, 0)

    def draw_from(self, seed: int, first: int, rows: int) -> None:
        """The next input contains the rows from ``first`` on of a batch of ``rows``, with a mask from ``seed``."""
        self._generator = torch.Generator().manual_seed(seed)
        self._rows = (first, rows)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.rate:
            return x
        if self._generator is None:
            return functional.dropout(x, self.rate)
        first, rows = self._rows
        kept = torch.rand(rows, x.shape[1], generator=self._generator)[first : first + len(x)] >= self.rate
        return x * (kept.to(x.device, x.dtype) / (1 - self.rate))
