"""The errors of predicted networks, from the errors of their entries and what these have in common."""

from functools import cached_property

import numpy as np

from ofa_tables.estimates.estimates import Estimates
from ofa_tables.model.space import Population, Space


class NetworkErrors:
    """Standard errors of networks. ``figures_ms`` and ``errors_ms`` (resolutions, entries) are in ms; NaN if unknown.

    Without ``estimates`` the errors of different entries are independent.
    """

    def __init__(
        self, space: Space, figures_ms: np.ndarray, errors_ms: np.ndarray, estimates: Estimates | None
    ) -> None:
        self._space = space
        self._figures_ms = figures_ms
        self._errors_ms = errors_ms
        self._estimates = estimates

    def __call__(self, population: Population) -> np.ndarray:
        """Return (N,) standard errors of the sums over the entries of networks, in ms; NaN if one is unknown."""
        px, indices = population.genes[-1], self._space.entry_indices(population)  # (positions, N), negative if empty
        own = np.where(indices < 0, 0.0, self.own_ms[px[None, :], indices])
        same = indices[:, None, :] == indices[None, :, :]
        squares = (own[:, None, :] * own[None, :, :] * same).sum(axis=(0, 1))
        if self._estimates is not None:
            rows = np.where(indices < 0, -1, self._rows[px[None, :], indices])
            latencies_ms = np.where(rows < 0, 0.0, self._figures_ms[px[None, :], indices])
            together = np.zeros((len(px), self._estimates.factors.shape[1]))
            for row, latency_ms in zip(rows, latencies_ms, strict=True):
                together += self._estimates.factors[row] * latency_ms[:, None]
            squares += (together**2).sum(axis=1)
        return np.asarray(np.sqrt(squares))

    @cached_property
    def own_ms(self) -> np.ndarray:
        """(resolutions, entries) the part of each error that the entry has in common with no other, in ms."""
        if self._estimates is None:
            return self._errors_ms
        own_ms: np.ndarray = self._estimates.own[self._rows] * self._figures_ms
        return np.where(self._rows < 0, self._errors_ms, own_ms)

    @cached_property
    def _rows(self) -> np.ndarray:
        """(resolutions, entries) rows of the entries in the estimates; negative for entries that were not estimated."""
        row = {} if self._estimates is None else self._estimates.row
        return np.array([[row.get(key, -1) for key in self._space.keys(px)] for px in self._space.resolutions_px])
