"""Other tables as prior: what the residuals of one device say about another.

Each prior table is a hypothesis: this device has similar relative costs, and residuals that are a multiple of those of
the table. "None of them" is a hypothesis, too, and so is a mixture of all tables. Their weights are their marginal
likelihoods (Bayesian model averaging; Hoeting et al. 1999, section 2). A table that does not fit gets no weight.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ofa_agent.operators import Block
from ofa_tables.estimates.cost_model import Belief, CostModel, Posterior, Reach
from ofa_tables.estimates.entry import Entry
from ofa_tables.estimates.physics import FloatArray, Works

NO_PRIOR = "none"
TOGETHER = "all together"

# The standard deviation of the log costs of devices that are alike.
ALIKE_SPREAD = 0.35
# The standard error of the log latency of an entry whose trials do not determine it.
UNKNOWN_ERROR = 0.03


@dataclass(frozen=True)
class PriorTable:
    """Another table: its name, and its measured entries with their blocks."""

    name: str
    blocks: tuple[Block, ...]
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Mixture:
    """The average of the hypotheses. ``weights`` are by name of the hypothesis and add up to 1.

    ``mean`` (blocks,) and ``covariance`` (blocks, blocks) are of the log latency in ms.
    """

    mean: FloatArray
    covariance: FloatArray
    weights: Mapping[str, float]


class Hypotheses:
    """The hypotheses for a list of blocks."""

    def __init__(self, blocks: Sequence[Block], priors: Sequence[PriorTable] = ()) -> None:
        none = CostModel(Works.of(blocks))
        self._models = {NO_PRIOR: none}
        beliefs = {prior.name: _belief(prior, blocks) for prior in priors}
        if len(beliefs) > 1:
            found = list(beliefs.values())
            beliefs[TOGETHER] = Belief(
                np.mean([belief.log_costs for belief in found], axis=0),
                np.hstack([belief.like for belief in found]) / np.sqrt(len(found)),
                ALIKE_SPREAD,
                _mean_factors(found),
            )
        self._models |= {name: none.believing(belief) for name, belief in beliefs.items()}

    def before(self) -> Mixture:
        """Return what is believed before the first measurement; the speed of the device is then unknown."""
        none = np.zeros(0)
        return _averaged({name: model.posterior([], none, none, Reach()) for name, model in self._models.items()})

    def fit(self, rows: Sequence[int], log_ms: FloatArray, errors: FloatArray) -> Mixture:
        """Fit all hypotheses to the measured blocks ``rows`` and average them; ``errors`` are relative."""
        found = {name: model.fit(rows, log_ms, errors) for name, model in self._models.items()}
        return _averaged(found)


def observed(entries: Sequence[Entry]) -> tuple[FloatArray, FloatArray]:
    """Return (entries,) measured log latencies in ms and their standard errors."""
    log_ms = np.log(np.array([entry.measured_ms for entry in entries], dtype=float))
    errors = [UNKNOWN_ERROR if entry.trial_error is None else entry.trial_error for entry in entries]
    return log_ms, np.array(errors)


def _averaged(found: Mapping[str, Posterior]) -> Mixture:
    evidences = np.array([posterior.evidence for posterior in found.values()])
    weights = np.exp(evidences - evidences.max())
    weights /= weights.sum()
    counted = [(weight, posterior) for weight, posterior in zip(weights, found.values(), strict=True) if weight > 1e-6]
    mean = sum((weight * posterior.mean for weight, posterior in counted), np.zeros(1))
    covariance = np.zeros((len(mean), len(mean)))
    for weight, posterior in counted:
        off = posterior.mean - mean
        covariance += weight * (posterior.covariance + np.outer(off, off))
    return Mixture(mean, covariance, dict(zip(found, map(float, weights), strict=True)))


def _mean_factors(beliefs: Sequence[Belief]) -> Mapping[str, float]:
    variants = dict.fromkeys(variant for belief in beliefs for variant in belief.log_factors)
    return {
        variant: float(np.mean([belief.log_factors.get(variant, 0.0) for belief in beliefs])) for variant in variants
    }


def _belief(prior: PriorTable, blocks: Sequence[Block]) -> Belief:
    """What a table leads to expect of ``blocks``: its costs, and the residuals that it measured or predicts."""
    number = {block.key: row for row, block in enumerate(blocks)}
    others = [block for block in prior.blocks if block.key not in number]
    number |= {block.key: len(blocks) + row for row, block in enumerate(others)}
    works = Works.of([*blocks, *others])
    model = CostModel(works)
    log_ms, errors = observed(prior.entries)
    posterior = model.fit([number[entry.key] for entry in prior.entries], log_ms, errors)
    residuals = model.residuals(posterior)[: len(blocks), None]
    log_factors = dict(zip(works.variants, map(float, posterior.log_factors), strict=True))
    return Belief(posterior.log_costs, residuals, ALIKE_SPREAD, log_factors)
