"""Choose what to measure next: what takes most off the expected error of networks of the space, per second.

The posterior of the cost model says how well each entry is known and which entries err together. A trial of a block, or
of a network that contains many blocks, makes it narrower by a known amount, whatever the trial will find. Choosing the
largest such amount, one trial after the other, is the greedy form of A-optimal design (Krause et al. 2008, section 3).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ofa_nas.spaces import Architecture, Population, Space
from ofa_tables.estimates.prior import Mixture

FloatArray = np.ndarray[Any, np.dtype[np.float64]]
IntArray = np.ndarray[Any, np.dtype[np.int_]]

# Networks that represent the space, and profiled networks to choose from.
TARGETS = 100
CANDIDATES = 90
# The relative error of one trial of a block, until the trials show it.
TRIAL_ERROR = 0.06
QUANTILE = 1.96  # of a 95 % interval


@dataclass(frozen=True)
class Candidate:
    """A trial that could be run: a network, or None for a block alone; the rows of its blocks; and its cost in s."""

    network: Architecture | None
    rows: IntArray
    seconds: float


class Targets:
    """Networks of the space; the error of their predictions is what counts. ``keys`` are those of all blocks."""

    def __init__(self, space: Space, networks: Population, keys: Sequence[str]) -> None:
        self.space = space
        self.resolutions_px = sorted({space.resolutions_px[px] for px in networks.genes[-1]})
        self.row = {key: row for row, key in enumerate(keys)}
        self._counts = np.zeros((len(networks), len(keys)))
        for number, rows in enumerate(self.rows_of(networks)):
            np.add.at(self._counts[number], rows, 1.0)

    @classmethod
    def of_space(cls, space: Space, resolutions_px: Sequence[int], keys: Sequence[str], seed: int = 0) -> "Targets":
        """Draw networks at the wanted resolutions."""
        return cls(space, space.sample(TARGETS, np.random.default_rng(seed), list(resolutions_px)), keys)

    def rows_of(self, networks: Population) -> list[IntArray]:
        """Return the rows of the blocks of each network, one per position that is in use."""
        keys = {px: self.space.keys(px) for px in self.resolutions_px}
        indices = self.space.entry_indices(networks)
        return [
            np.array([self.row[keys[self.space.resolutions_px[px]][index]] for index in of_one if index >= 0])
            for px, of_one in zip(networks.genes[-1], indices.T, strict=True)
        ]

    def shares(self, log_ms: FloatArray) -> FloatArray:
        """Return (networks, blocks) shares of the blocks in the latency of each network, minus the mean over networks.

        What is common to all networks changes neither their order nor a calibrated prediction.
        """
        parts = self._counts * np.exp(log_ms - log_ms.max())
        shares = parts / parts.sum(axis=1, keepdims=True)
        return np.asarray(shares - shares.mean(axis=0))

    def half_width(self, mixture: Mixture) -> float:
        """Return the median over the networks of half the 95 % interval of the prediction, relative to it."""
        shares = self.shares(mixture.mean)
        errors = np.sqrt(np.maximum(((shares @ mixture.covariance) * shares).sum(axis=1), 0.0))
        return QUANTILE * float(np.median(errors))


def choose(
    targets: Targets,
    mixture: Mixture,
    candidates: Sequence[Candidate],
    trial_error: float,
    seconds: float,
    most: int | None = None,
) -> list[Candidate]:
    """Return the best trials, in order: at most ``most``, which together take at most ``seconds``; and at least one.

    A block can be chosen several times. A network is chosen once, because another one shows more.
    """
    covariance = mixture.covariance.copy()
    seen = targets.shares(mixture.mean) @ covariance  # (networks, blocks)
    left, spent = list(candidates), 0.0
    chosen: list[Candidate] = []
    while left and (most is None or len(chosen) < most):
        gains = [_gain(seen, covariance, one.rows, trial_error) / one.seconds for one in left]
        best = left[int(np.argmax(gains))]
        rows = np.unique(best.rows)
        weighted = np.linalg.solve(_of_trial(covariance, rows, trial_error), covariance[rows])
        seen = seen - seen[:, rows] @ weighted
        covariance = covariance - covariance[:, rows] @ weighted
        chosen.append(best)
        spent += best.seconds
        left = [one for one in left if spent + one.seconds <= seconds and (one.network is None or one is not best)]
    return chosen


def network_candidates(
    targets: Targets, seconds_of: Callable[[float], float], log_ms: FloatArray, rng: np.random.Generator
) -> list[Candidate]:
    """Draw networks of all sizes; ``seconds_of`` estimates the cost in s of a trial from the latency in ms."""
    space = targets.space
    networks = space.canonical(space.sample_spread(CANDIDATES, rng, targets.resolutions_px))
    return [
        Candidate(network, rows, seconds_of(float(np.exp(log_ms[rows]).sum())))
        for network, rows in zip(space.decode(networks), targets.rows_of(networks), strict=True)
    ]


def block_candidates(log_ms: FloatArray, seconds_of: Callable[[float], float]) -> list[Candidate]:
    """Each block by itself."""
    return [Candidate(None, np.array([row]), seconds_of(float(np.exp(value)))) for row, value in enumerate(log_ms)]


def _gain(seen: FloatArray, covariance: FloatArray, rows: IntArray, trial_error: float) -> float:
    """The sum over the networks of the variance that one trial takes away."""
    rows = np.unique(rows)
    crossed = seen[:, rows]
    return float((np.linalg.solve(_of_trial(covariance, rows, trial_error), crossed.T) * crossed.T).sum())


def _of_trial(covariance: FloatArray, rows: IntArray, trial_error: float) -> FloatArray:
    return np.asarray(covariance[np.ix_(rows, rows)] + trial_error**2 * np.eye(len(rows)))
