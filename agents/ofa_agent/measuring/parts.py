"""The latency of each part of a network inside the network, from the operator times that a runtime reports.

A part is a block of a network of ours, or a layer of a model file.
"""

from typing import Any, List, NamedTuple, Optional, Sequence

import numpy as np

# Lower bound for the latency of a part, as a fraction of its reported time. It keeps every latency positive.
LEAST_OWN = 0.05
# The most that a profiler adds to a kernel of a model file. What is beyond it is due to the speed of the device.
MOST_OVERHEAD_NS = 5000.0


class Launches(NamedTuple):
    """How a GPU executed the kernels, or operators, of one block in several runs: (runs, kernels) each, in ns.

    ``device_ns``: the GPU executes them, including the pause that it makes between two kernels that both wait in the
    queue. ``launch_ns``: the host prepares and launches them. ``gap_ns``: the GPU is idle before them.
    """

    device_ns: Any
    launch_ns: Any
    gap_ns: Any

    def after(self, runs: int) -> "Launches":
        return Launches(self.device_ns[runs:], self.launch_ns[runs:], self.gap_ns[runs:])


class Profiled(NamedTuple):
    """The operator times that a runtime reports for several runs of one block.

    ``operator_ns`` (runs, operators): the time of the kernels of each operator in each run, in ns. It includes the
    overhead of the profiler unless ``pure`` is true. ``kernels`` (operators,): the number of kernels of each operator;
    0 if the operator was fused into another one. ``launches``: on a GPU, the Launches that the times follow from.
    """

    operator_ns: Any
    kernels: Any
    pure: bool = False
    launches: Optional[Launches] = None

    def after(self, runs: int) -> "Profiled":
        """Return the times without those of the first runs."""
        launches = self.launches.after(runs) if self.launches else None
        return self._replace(operator_ns=self.operator_ns[runs:], launches=launches)


def part_samples(profiled: Profiled, sizes: Sequence[int], whole_ns: float) -> List[List[int]]:
    """Return the samples of each part in ns, one per run; part i consists of the next ``sizes[i]`` operators.

    The profiler adds about the same time to every kernel. ``whole_ns``, the median of runs without the profiler,
    determines this overhead. It is subtracted so that the parts add up to the whole, unless the profiled runs were
    faster. ``pure`` times contain no overhead; they are scaled to the whole.
    Raises ValueError if a part has no kernel, because its time would be counted in another part.
    """
    kernels = part_sums(profiled.kernels, sizes)
    reported = part_sums(profiled.operator_ns, sizes)
    if not kernels.all():
        raise ValueError("the runtime reported no kernel for part %d" % int(np.argmin(kernels)))
    if profiled.pure:
        own = reported * (whole_ns / max(1.0, float(np.median(reported.sum(axis=1)))))
    else:
        own = less_overhead(reported, kernels, whole_ns)
    return _whole_numbers(own)


def layer_samples(profiled: Profiled, whole_ns: float) -> List[List[int]]:
    """Return the samples of each layer of a model file in ns, one per run.

    ``whole_ns`` is the median of runs without the profiler. Layers that add up to more contain overhead of the
    profiler, which is taken off. If they add up to less, the model spends the rest between its layers.
    """
    own = profiled.operator_ns
    usual = np.median(own, axis=0)
    # Pauses of the process are in many runs of the whole model, but in few runs of each layer: divide them by length.
    run_ns = float(np.median(own.sum(axis=1)))
    own = own * (run_ns / max(1.0, float(usual.sum())))
    surplus_ns = run_ns - whole_ns
    if surplus_ns > 0 and not profiled.pure:
        counted = np.maximum(profiled.kernels, 1)
        usual = np.median(own, axis=0)
        overhead_ns = _overhead_ns(usual, counted, min(surplus_ns, MOST_OVERHEAD_NS * counted.sum()))
        own = np.maximum(own - counted * overhead_ns, own * LEAST_OWN)
    if surplus_ns > 0:
        own = own * (whole_ns / max(1.0, float(np.median(own, axis=0).sum())))
    return _whole_numbers(own)


def part_sums(of_operators: Any, sizes: Sequence[int]) -> Any:
    """Sum values of operators (…, operators) over each part: (…, parts)."""
    starts = np.cumsum([0] + list(sizes[:-1]))
    return np.add.reduceat(of_operators, starts, axis=-1)


def less_overhead(reported_ns: Any, kernels: Any, whole_ns: float) -> Any:
    """Take the same overhead off for every kernel, so that the median run takes ``whole_ns``.

    ``reported_ns`` (runs, parts), ``kernels`` (parts,). Each part keeps at least LEAST_OWN of its time.
    """
    run_ns = float(np.median(reported_ns.sum(axis=1)))
    usual = np.median(reported_ns, axis=0)
    usual *= run_ns / max(1.0, usual.sum())
    return np.maximum(reported_ns - kernels * _overhead_ns(usual, kernels, run_ns - whole_ns), reported_ns * LEAST_OWN)


def _overhead_ns(reported_ns: Any, kernels: Any, surplus_ns: float) -> float:
    """Return the overhead per kernel, in ns, that sums to ``surplus_ns`` while each part keeps at least LEAST_OWN."""
    most = reported_ns * (1 - LEAST_OWN)
    steps = np.concatenate([[0.0], np.sort(most / np.maximum(kernels, 1e-9))])  # the sum is linear between two steps
    taken_off = np.minimum(np.outer(steps, kernels), most).sum(axis=1)
    return float(np.interp(surplus_ns, taken_off, steps))


def _whole_numbers(own_ns: Any) -> List[List[int]]:
    return [[max(1, int(sample)) for sample in column] for column in own_ns.T]
