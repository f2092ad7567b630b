"""How long each part of a network takes inside the network, from what a runtime tells of its operators."""

from typing import Any, List, NamedTuple, Sequence

import numpy as np

# Of what an operator's kernels were told to take, no more than this is taken off as the profiler's own.
MOST_OVERHEAD = 0.5


class Profiled(NamedTuple):
    """What a runtime tells of several runs of one Block.

    ``operator_ns`` (runs, operators): how long each Operator's kernels took in each run, the profiler's own time
    included unless it is ``pure``. ``kernels`` (operators,): how many kernels that were; an Operator that was fused
    into another has none.
    """

    operator_ns: Any
    kernels: Any
    pure: bool = False


def part_samples(profiled: Profiled, sizes: Sequence[int], whole_ns: float) -> List[List[int]]:
    """Samples of each part in ns, one a run; part i is the next ``sizes[i]`` Operators.

    Telling takes time too, about the same for every kernel. How much follows from ``whole_ns``, the median of runs in
    which nothing was told: what is taken off is such that the parts add up to the whole;
    where it would take more than MOST_OVERHEAD off a part, or the told runs were the faster ones, they do not quite. Of
    pure times, each is brought to the pace that the whole had.
    Raises ValueError where a part has no kernel: its time would be told as another's.
    """
    starts = np.cumsum([0] + list(sizes[:-1]))
    told = np.add.reduceat(profiled.operator_ns, starts, axis=1)
    kernels = np.add.reduceat(profiled.kernels, starts)
    if not kernels.all():
        raise ValueError("the runtime told of no kernel of part %d" % int(np.argmin(kernels)))
    told_ns = float(np.median(told.sum(axis=1)))
    overhead_ns = max(0.0, told_ns - whole_ns) / max(1, kernels.sum())
    if profiled.pure:
        own = told * (whole_ns / max(1.0, told_ns))
    else:
        own = np.maximum(told - kernels * overhead_ns, told * (1 - MOST_OVERHEAD))
    return [[int(sample) for sample in column] for column in own.T]
