"""Measure the error of an accuracy model on pairs, and the noise of the pairs."""

from dataclasses import dataclass

import numpy as np

from ofa_nas.accuracy.mlp import Mlp
from ofa_nas.accuracy.pairs import Pairs
from ofa_nas.spaces import Space
from ofa_tables.model.ranks import kendall_tau

TWO_SIDED_95 = 1.96


@dataclass(frozen=True)
class Quality:
    """The errors of a model on ``networks`` networks. ``rmse`` and ``bias`` are accuracies, 0…1.

    ``tau`` is Kendall's rank correlation of the predictions with the accuracy on all images. ``tau_with_half`` is
    the mean correlation with the accuracy on either half of the images. ``tau_of_halves`` is the correlation between
    the two halves: a perfect model has a ``tau_with_half`` that is only a little higher.

    ``within_95`` is the fraction of networks with an accuracy within 1.96 σ of the prediction. σ² is the variance of
    the members plus the sampling variance of the images. The fraction is about 0.95 if the uncertainty of the model is
    correct, and None for one member.
    """

    networks: int
    rmse: float
    bias: float
    tau: float | None
    tau_with_half: float | None
    tau_of_halves: float | None
    within_95: float | None


def quality(model: Mlp, pairs: Pairs, space: Space) -> Quality:
    by_member = model.by_member(space.encode(pairs.architectures)).astype(float)
    predicted, measured = by_member.mean(axis=0), pairs.accuracies
    halves = np.array([pair.halves for pair in pairs.pairs]).T
    with_half = [kendall_tau(predicted, half) for half in halves]
    off = predicted - measured
    images = int(pairs.about.get("images", 0)) or 1
    spread = np.sqrt(by_member.var(axis=0) + measured * (1 - measured) / images)
    return Quality(
        networks=len(measured),
        rmse=float(np.sqrt((off**2).mean())),
        bias=float(off.mean()),
        tau=kendall_tau(predicted, measured),
        tau_with_half=None if None in with_half else sum(tau or 0.0 for tau in with_half) / 2,
        tau_of_halves=kendall_tau(halves[0], halves[1]),
        within_95=float((np.abs(off) <= TWO_SIDED_95 * spread).mean()) if len(by_member) > 1 else None,
    )
