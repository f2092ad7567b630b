"""The latency of each part of a network inside the network, from the operator times that a runtime reports."""

from typing import Any, List, NamedTuple, Sequence

import numpy as np

# Lower bound for the latency of a part, as a fraction of its reported time. It keeps every latency positive.
LEAST_OWN = 0.05


class Profiled(NamedTuple):
    """The operator times that a runtime reports for several runs of one block.

    ``operator_ns`` (runs, operators): the time of the kernels of each operator in each run, in ns. It includes the
    overhead of the profiler unless ``pure`` is true. ``kernels`` (operators,): the number of kernels of each operator;
    0 if the operator was fused into another one.
    """

    operator_ns: Any
    kernels: Any
    pure: bool = False


def part_samples(profiled: Profiled, sizes: Sequence[int], whole_ns: float) -> List[List[int]]:
    """Return the samples of each part in ns, one per run; part i consists of the next ``sizes[i]`` operators.

    The profiler adds about the same time to every kernel. ``whole_ns``, the median of runs without the profiler,
    determines this overhead. It is subtracted so that the parts add up to the whole, unless the profiled runs were
    faster. ``pure`` times contain no overhead; they are scaled to the whole.
    Raises ValueError if a part has no kernel, because its time would be counted in another part.
    """
    starts = np.cumsum([0] + list(sizes[:-1]))
    reported = np.add.reduceat(profiled.operator_ns, starts, axis=1)
    kernels = np.add.reduceat(profiled.kernels, starts)
    if not kernels.all():
        raise ValueError("the runtime reported no kernel for part %d" % int(np.argmin(kernels)))
    reported_ns = float(np.median(reported.sum(axis=1)))
    if profiled.pure:
        own = reported * (whole_ns / max(1.0, reported_ns))
    else:
        usual = np.median(reported, axis=0)
        usual *= reported_ns / max(1.0, usual.sum())
        own = np.maximum(
            reported - kernels * _overhead_ns(usual, kernels, reported_ns - whole_ns), reported * LEAST_OWN
        )
    return [[max(1, int(sample)) for sample in column] for column in own.T]


def _overhead_ns(reported_ns: Any, kernels: Any, surplus_ns: float) -> float:
    """Return the overhead per kernel, in ns, that sums to ``surplus_ns`` while each part keeps at least LEAST_OWN."""
    most = reported_ns * (1 - LEAST_OWN)
    steps = np.concatenate([[0.0], np.sort(most / kernels)])  # the sum is linear between two steps
    taken_off = np.minimum(np.outer(steps, kernels), most).sum(axis=1)
    return float(np.interp(surplus_ns, taken_off, steps))
