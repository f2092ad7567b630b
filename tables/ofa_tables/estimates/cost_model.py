"""The cost model: a Bayesian regression of the log latency of blocks over the work of their operators.

The model of a block:

    log latency = log Σ factor(operator) · cost · work  +  Σ share(operator) · residual(operator)  +  residual(block)

The costs are what one unit of each kind of work takes (``physics.COSTS``), with log-normal priors around typical ratios
and an unknown speed of the device. ``factor(operator)`` is common to all operators of one kind and kernel size (a
variant): a runtime may lack fast code for some kernel sizes. ``residual(operator)`` is a Gaussian process over the
sizes of the operators of one kind: a smooth part, and a rough one because kernels prefer some sizes. ``share`` is the
share of the operator in the latency of the block. Operators that several blocks have in common thus give these blocks
errors in common. ``residual(block)`` is independent.

Costs and factors enter through a logarithm, so the posterior is the Gaussian approximation at its mode, found by
Gauss-Newton steps (Rasmussen and Williams 2006, "Gaussian Processes for Machine Learning", chapters 2 and 3). How far
the residuals and factors reach is fitted to each table by its marginal likelihood (chapter 5).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ofa_tables.estimates.physics import COORDINATES, COSTS, FloatArray, Works

IntArray = np.ndarray[Any, np.dtype[np.int_]]

# Prior standard deviations of log costs: each by itself, and all together (the speed of the device).
COST_SPREAD = 0.7
SPEED_SPREAD = 5.0

# Prior standard deviation of the log factor of a variant.
VARIANTS = 0.2

# Residuals of operators, relative standard deviations.
SMOOTH = 0.22
ROUGH = 0.03
# Those of elementwise operators and squeeze-and-excite vary more between runtimes.
WIDER = {"excite": 2.5, "elementwise": 2.5}
# Length scales of the smooth part in each coordinate, and of the rough part relative to those.
LENGTHS = {"channels": 1.2, "pixels": 2.5, "kernel": 1.5, "stride": 0.85, "values": 4.0, "groups": 1.5}
ROUGH_LENGTH = 0.3
# The independent residual of a block, a relative standard deviation.
OWN = 0.008

MOST_FOR_COSTS = 150

STEPS = 15
COVARIANCE_STEPS = 4
LONGEST_STEP = 1.5
CONVERGED = 1e-4
NO_RESIDUALS = np.zeros((0, 0))


@dataclass(frozen=True)
class Reach:
    """Factors of the standard deviations: of the residuals of operators and blocks, and of the factors of variants."""

    operators: float = 1.0
    blocks: float = 1.0
    variants: float = 1.0


class Choices(NamedTuple):
    """Choices of one factor of the reach, which the marginal likelihood weights.

    ``spread`` is the standard deviation of their prior in log units. The factor is the mean of the choices of this
    ``power``; 0 is the geometric mean. With a large power, what is unlikely but large counts.
    """

    factors: tuple[float, ...]
    spread: float = 0.7
    power: float = 0.0

    def mean(self, evidences: FloatArray) -> float:
        """Return the mean, weighted by the log evidences of the choices."""
        weights = np.exp(evidences - evidences.max())
        logs = np.log(self.factors)
        if not self.power:
            return float(np.exp(np.average(logs, weights=weights)))
        return float(np.average(np.exp(self.power * logs), weights=weights) ** (1 / self.power))


# The choices of each factor of the reach, and how often each is chosen, in turn.
REACHES = {
    "operators": Choices((0.35, 0.6, 1.0, 1.7, 2.8)),
    "blocks": Choices((1.0, 2.0, 4.0, 8.0)),
    "variants": Choices((0.3, 1.0, 3.0, 10.0), spread=1.4, power=2.0),
}
REACH_TURNS = 2


@dataclass(frozen=True)
class Belief:
    """What is believed before the first measurement, besides the physics.

    ``log_costs`` (costs,) are the centres of the costs, ``spread`` their standard deviation. ``log_factors`` are the
    centres of the factors, by variant; those of other variants are 0. ``like`` (blocks, tables) holds the log residuals
    of other tables; the coefficient of each has a normal prior around 0 with standard deviation 1, and that of tables
    which are alike is near 1.
    """

    log_costs: FloatArray
    like: FloatArray
    spread: float = COST_SPREAD
    log_factors: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def typical(cls, blocks: int) -> "Belief":
        return cls(np.log(np.array(list(COSTS.values()))), np.zeros((blocks, 0)))


@dataclass(frozen=True)
class Posterior:
    """Log latencies in ms: ``mean`` (blocks,) and ``covariance`` (blocks, blocks); and how they came about.

    ``log_costs`` (costs,) are of ns per unit, and ``log_factors`` (variants,) multiply them. ``evidence`` is the log
    marginal likelihood with the prior of ``reach``.
    """

    mean: FloatArray
    covariance: FloatArray
    log_costs: FloatArray
    log_factors: FloatArray
    reach: Reach
    evidence: float = 0.0


class CostModel:
    """The model for a fixed list of blocks; it is fitted to the measurements of some of them."""

    def __init__(self, works: Works, belief: Belief | None = None) -> None:
        self._works = works
        self._belief = belief or Belief.typical(len(works.counts))

    def believing(self, belief: Belief) -> "CostModel":
        """Return the same model with other beliefs; what was computed for the blocks is shared."""
        other = CostModel(self._works, belief)
        other.__dict__["_residuals"], other.__dict__["_terms"] = self._residuals, self._terms
        return other

    def fit(self, rows: Sequence[int] | IntArray, log_ms: FloatArray, errors: FloatArray) -> Posterior:
        """Fit the model to the blocks ``rows``, with one value of ``log_ms`` and its standard error per row.

        The reach is the mean of the choices by marginal likelihood, one factor after the other, at the costs found so
        far. Up to MOST_FOR_COSTS blocks determine both; the posterior is of all.

        In this class, ``logs`` (costs + variants,) are the log costs and the log factors of the variants.
        """
        known = _Known.of(rows, log_ms, errors)
        some = known.some(MOST_FOR_COSTS)
        reach, logs = Reach(), self._mode(some, Reach())
        for _ in range(REACH_TURNS):
            linear = self._linear(logs, some.rows)
            for name, choices in REACHES.items():
                tried = [replace(reach, **{name: factor}) for factor in choices.factors]
                evidences = np.array([self._explained(some, linear, one, logs).evidence for one in tried])
                reach = replace(reach, **{name: choices.mean(evidences)})
            logs = self._mode(some, reach, logs)
        evidence = self._explained(some, self._linear(logs, some.rows), reach, logs).evidence
        return replace(self._posterior(known, reach, logs), evidence=evidence)

    def posterior(
        self, rows: Sequence[int] | IntArray, log_ms: FloatArray, errors: FloatArray, reach: Reach
    ) -> Posterior:
        """Return the posterior for one reach; see ``fit``."""
        known = _Known.of(rows, log_ms, errors)
        return self._posterior(known, reach, self._mode(known, reach))

    def _mode(self, known: "_Known", reach: Reach, logs: FloatArray | None = None) -> FloatArray:
        """Return the most likely logs, from Gauss-Newton steps that start at ``logs``."""
        logs = self._typical(known) if logs is None else logs
        linear = self._linear(logs, known.rows)
        for step_number in range(STEPS):
            # The covariance of the residuals changes little with the costs, and takes most of the time.
            again = step_number % COVARIANCE_STEPS == COVARIANCE_STEPS - 1
            linear = self._linear(logs, known.rows, None if again else linear.residuals)
            explained = self._explained(known, linear, reach, logs).weights
            step = self._typical(known) + self._drawn(reach) @ linear.shares.T @ explained - logs
            longest = float(np.abs(step).max())
            logs = logs + step * min(1.0, LONGEST_STEP / max(longest, 1e-12))
            if longest < CONVERGED:
                break
        return logs

    def _explained(self, known: "_Known", linear: "_Linear", reach: Reach, logs: FloatArray) -> "_Explained":
        """Return what the measured blocks say, linearised at ``logs``."""
        covariance = self._covariance(linear, reach, known.rows) + np.diag(known.errors**2)
        off = self._off(known, linear, logs)
        weights = np.linalg.solve(covariance, off)
        evidence = -0.5 * (off @ weights + np.linalg.slogdet(covariance)[1])
        evidence -= 0.5 * sum((np.log(getattr(reach, name)) / each.spread) ** 2 for name, each in REACHES.items())
        return _Explained(np.asarray(weights, dtype=np.float64), float(evidence))

    def _posterior(self, known: "_Known", reach: Reach, logs: FloatArray) -> Posterior:
        linear = self._linear(logs)
        covariance = self._covariance(linear, reach)
        across = covariance[:, known.rows]
        off = self._off(known, self._linear(logs, known.rows), logs)
        both = np.column_stack([off, across.T])
        solved = np.linalg.solve(across[known.rows] + np.diag(known.errors**2), both)
        mean = linear.log_sums + linear.shares @ (self._typical(known) - logs) + across @ solved[:, 0]
        left = covariance - across @ solved[:, 1:]
        log_costs, log_factors = np.split(logs, [len(COSTS)])
        return Posterior(mean - np.log(1e6), (left + left.T) / 2, log_costs, log_factors, reach)

    def _covariance(self, linear: "_Linear", reach: Reach, rows: IntArray | None = None) -> FloatArray:
        """Return the prior covariance (n, n) of the log latencies of some blocks, or of all."""
        like = self._belief.like if rows is None else self._belief.like[rows]
        of_operators = reach.operators**2 * linear.residuals
        of_blocks = np.eye(len(like)) * (OWN * reach.blocks) ** 2
        return np.asarray(
            linear.shares @ self._drawn(reach) @ linear.shares.T + of_operators + of_blocks + like @ like.T
        )

    def _off(self, known: "_Known", linear: "_Linear", logs: FloatArray) -> FloatArray:
        """Return (n,) what the typical costs leave unexplained of the measured log latencies."""
        expected = linear.log_sums + linear.shares @ (self._typical(known) - logs)
        return np.asarray(known.log_ns - expected)

    def _typical(self, known: "_Known") -> FloatArray:
        """Return the centres of the logs, at the speed that the measured blocks show."""
        factors = [self._belief.log_factors.get(variant, 0.0) for variant in self._works.variants]
        logs = np.concatenate([self._belief.log_costs, factors])
        if len(known.rows):
            logs[: len(COSTS)] += np.median(known.log_ns - self._linear(logs, known.rows, NO_RESIDUALS).log_sums)
        return logs

    def _drawn(self, reach: Reach) -> FloatArray:
        """Return the prior covariance (costs + variants, costs + variants) of the logs."""
        costs = len(COSTS)
        variances = np.full(costs + len(self._works.variants), (VARIANTS * reach.variants) ** 2)
        variances[:costs] = self._belief.spread**2
        covariance = np.diag(variances)
        covariance[:costs, :costs] += SPEED_SPREAD**2
        return covariance

    def residuals(self, posterior: Posterior) -> FloatArray:
        """Return (blocks,) log latencies relative to the work alone."""
        logs = np.concatenate([posterior.log_costs, posterior.log_factors])
        return np.asarray(posterior.mean + np.log(1e6) - self._linear(logs, None, NO_RESIDUALS).log_sums)

    @cached_property
    def _terms(self) -> tuple[FloatArray, FloatArray]:
        """One term per cost and variant: (operators, terms) units, and (terms, costs + variants) which logs it has."""
        costs, variants = len(COSTS), len(self._works.variants)
        units = np.zeros((len(self._works.units), variants, costs))
        units[np.arange(len(units)), self._works.variant_of] = self._works.units
        used = np.flatnonzero(units.any(axis=0))
        variant, cost = np.divmod(used, costs)
        has = np.hstack([np.eye(costs)[cost], np.eye(variants)[variant]])
        return units.reshape(len(units), -1)[:, used], has

    def _linear(self, logs: FloatArray, rows: IntArray | None = None, residuals: FloatArray | None = None) -> "_Linear":
        """Linearise the model of some blocks, or of all, at ``logs``; keep ``residuals`` (n, n) if given."""
        counts = self._works.counts if rows is None else self._works.counts[rows]
        used = np.flatnonzero(counts.any(axis=0))
        units, has = self._terms
        counts, units, costs = counts[:, used], units[used], np.exp(has @ logs)
        of_operators = units @ costs
        sums = counts @ of_operators
        if residuals is None:
            weighted = counts * of_operators / sums[:, None]
            residuals = weighted @ self._residuals[np.ix_(used, used)] @ weighted.T
        return _Linear(np.log(sums), ((counts @ units) * costs / sums[:, None]) @ has, residuals)

    @cached_property
    def _residuals(self) -> FloatArray:
        """(operators, operators) prior covariance of the residuals; different kinds are independent."""
        covariance = np.zeros((len(self._works.units),) * 2)
        for kind, (members, coordinates) in self._works.members.items():
            scaled = coordinates / np.array([LENGTHS[name] for name in COORDINATES[kind]])
            squares = ((scaled[:, None, :] - scaled[None, :, :]) ** 2).sum(axis=2)
            smooth = SMOOTH**2 * np.exp(-0.5 * squares)
            rough = ROUGH**2 * np.exp(-np.sqrt(squares) / ROUGH_LENGTH)
            covariance[np.ix_(members, members)] = WIDER.get(kind, 1.0) ** 2 * (smooth + rough)
        return covariance


class _Known(NamedTuple):
    """The measured blocks: rows (n,), log latencies in ns (n,), and their standard errors (n,)."""

    rows: IntArray
    log_ns: FloatArray
    errors: FloatArray

    @classmethod
    def of(cls, rows: Sequence[int] | IntArray, log_ms: FloatArray, errors: FloatArray) -> "_Known":
        log_ns = np.asarray(log_ms, dtype=float) + np.log(1e6)
        return cls(np.asarray(rows, dtype=int), log_ns, np.asarray(errors, dtype=float))

    def some(self, count: int) -> "_Known":
        """Return at most ``count`` of them, spread evenly."""
        chosen = np.linspace(0, len(self.rows) - 1, min(count, len(self.rows))).round().astype(int)
        return _Known(self.rows[chosen], self.log_ns[chosen], self.errors[chosen])


class _Linear(NamedTuple):
    """The linearised model of n blocks: log sums (n,), their gradient by logs (n, costs + variants), and covariance
    (n, n) of the residuals of operators at reach 1.
    """

    log_sums: FloatArray
    shares: FloatArray
    residuals: FloatArray


class _Explained(NamedTuple):
    """The inverse covariance of the measured blocks times what is off (n,), and the log marginal likelihood."""

    weights: FloatArray
    evidence: float
