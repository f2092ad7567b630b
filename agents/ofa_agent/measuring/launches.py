"""The queue between host and GPU: the host launches kernels, and the GPU executes them in order, possibly much later.

A kernel starts when its launch has ended and the kernel before it has ended. If launching takes longer than executing,
the GPU waits for the host; otherwise the launches are hidden. The latency of a network is therefore neither the sum of
both times nor the sum of the device times:

    end(i) = max(end(i-1), launched(i)) + device(i)        launched(i) = launch(0) + … + launch(i)
"""

from typing import Any, Sequence

import numpy as np

from ofa_agent.measuring.parts import Launches, Profiled, less_overhead


def profiled(kernels: Launches, owners: Sequence[int], operators: int, whole_launch_ns: float) -> Profiled:
    """Return the operator times: how much later the GPU is done with each operator than with the one before it.

    ``owners`` is the operator of each kernel. ``whole_launch_ns`` is how long the host takes to launch all kernels
    without the profiler. The overhead of the profiler, which is on the host only, is subtracted.
    """
    launch_ns = less_overhead(kernels.launch_ns, np.ones(len(owners)), whole_launch_ns)
    latencies_ns = ends_ns(kernels.device_ns, launch_ns)
    latencies_ns[:, 1:] -= latencies_ns[:, :-1].copy()
    of_operators = [
        _summed(values, owners, operators) for values in (latencies_ns, kernels.device_ns, launch_ns, kernels.gap_ns)
    ]
    counts = np.bincount(np.array(owners, dtype=np.int64), minlength=operators)
    return Profiled(of_operators[0], counts, True, Launches(*of_operators[1:]))


def ends_ns(device_ns: Any, launch_ns: Any) -> Any:
    """Return (runs, kernels) when the GPU is done with each kernel, in ns since the host began."""
    launched_ns = np.cumsum(launch_ns, axis=1)
    ends = np.empty_like(launched_ns)
    end = np.zeros(len(launched_ns))
    for kernel in range(launched_ns.shape[1]):
        end = np.maximum(end, launched_ns[:, kernel]) + device_ns[:, kernel]
        ends[:, kernel] = end
    return ends


def _summed(of_kernels: Any, owners: Sequence[int], operators: int) -> Any:
    """Sum (runs, kernels) over the kernels of each operator: (runs, operators)."""
    summed = np.zeros((len(of_kernels), operators))
    np.add.at(summed.T, np.array(owners, dtype=np.int64), of_kernels.T)
    return summed
