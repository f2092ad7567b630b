"""The latency of each part of a network inside the network, from the operator times that a runtime reports."""

from typing import Any, List, NamedTuple, Sequence

import numpy as np

# At least this fraction of a part's reported time is its own, however much the profiler adds: no part takes no time.
LEAST_OWN = 0.05


class Profiled(NamedTuple):
    """The operator times that a runtime reports for several runs of one block.

    ``operator_ns`` (runs, operators): how long each Operator's kernels took in each run, the profiler's own time
    included unless it is ``pure``. ``kernels`` (operators,): how many kernels that were; an Operator that was fused
    into another has none.
    """

    operator_ns: Any
    kernels: Any
    pure: bool = False


def part_samples(profiled: Profiled, sizes: Sequence[int], whole_ns: float) -> List[List[int]]:
    """Samples of each part in ns, one a run; part i is the next ``sizes[i]`` Operators.

    The profiler takes time too, about the same for every kernel. How much follows from ``whole_ns``, the median of runs
    without the profiler: it is subtracted so that the parts add up to the whole (not quite, if the profiled runs were
    faster). ``pure`` times exclude the profiler; they are scaled to the whole.
    Raises ValueError if a part has no kernel: its time would be counted as another part's.
    """
    starts = np.cumsum([0] + list(sizes[:-1]))
    reported = np.add.reduceat(profiled.operator_ns, starts, axis=1)
    kernels = np.add.reduceat(profiled.kernels, starts)
    if not kernels.all():
        raise ValueError("the runtime reported no kernel of part %d" % int(np.argmin(kernels)))
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
    """What to take off for each kernel so that ``surplus_ns`` in all is taken off parts that have LEAST_OWN left."""
    most = reported_ns * (1 - LEAST_OWN)
    steps = np.concatenate([[0.0], np.sort(most / kernels)])  # between two of them the sum grows evenly
    taken_off = np.minimum(np.outer(steps, kernels), most).sum(axis=1)
    return float(np.interp(surplus_ns, taken_off, steps))
