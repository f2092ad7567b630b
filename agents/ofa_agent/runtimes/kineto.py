"""Traces of PyTorch's profiler (Kineto): which operator each kernel of a GPU belongs to, and its times.

A trace is a list of events in the format of Chrome's trace viewer. A kernel and the call on the host that launched it
have the same ``correlation``. On the host, the calls lie inside ranges: those that the runtime marks (RUN, OPERATOR),
and those of PyTorch's own operators (``aten::conv2d``). Times are in µs since a common origin.
"""

from bisect import bisect_right
from collections import defaultdict
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from ofa_agent.measuring.parts import Launches
from ofa_agent.operators import AvgPool, Conv, Linear, MaxPool, Operator, Pool, SqueezeExcite
from ofa_agent.runtimes import Unsupported

RUN = "ofa run"  # the name of the range of one run
OPERATOR = "ofa operator "  # the name of the range of an operator, before its index

ON_DEVICE = ("kernel", "gpu_memcpy", "gpu_memset")
CALLS = ("cuda_runtime", "cuda_driver")
MARKS = ("user_annotation", "cpu_op")
# Categories of PyTorch before 1.12.
OLD = {
    "Kernel": "kernel",
    "Memcpy": "gpu_memcpy",
    "Memset": "gpu_memset",
    "Runtime": "cuda_runtime",
    "Operator": "cpu_op",
}

# Words in the name of the call that executes an operator. Kernels between two such calls belong to the earlier one.
CONVOLUTION = ("conv",)
PRODUCT = ("linear", "addmm", "gemm", "::mm", "conv")
MEAN = ("mean", "avg_pool")
MAXIMUM = ("max_pool",)
FUSED = "triton_"  # the compiler names a kernel after all that is fused in it
FUSED_PRODUCT = "triton_tem_"


class Kernel(NamedTuple):
    """One kernel, copy or fill on the GPU. ``call``: the outermost range of PyTorch that launched it: (start, name)."""

    name: str
    start_us: float
    end_us: float
    launched_us: float
    operator: Optional[int]
    call: Tuple[float, str]


class Run(NamedTuple):
    """The kernels of one run, in order of execution; ``start_us`` is when the host began."""

    start_us: float
    kernels: List[Kernel]


def read_runs(events: Iterable[Dict[str, Any]]) -> List[Run]:
    """Return the runs of a trace. Raises Unsupported if a run has no kernels."""
    of_category: Dict[str, List[Dict[str, Any]]] = defaultdict(list)
    for event in events:
        if event.get("ph") == "X":
            of_category[OLD.get(event["cat"], event["cat"])].append(event)
    marks = [event for category in MARKS for event in of_category[category]]
    runs = _Ranges(event for event in marks if event["name"] == RUN)
    operators = _Ranges(event for event in marks if event["name"].startswith(OPERATOR))
    outermost = _Ranges(event for event in of_category["cpu_op"] if not event["name"].startswith((RUN, OPERATOR)))
    calls = {
        event["args"]["correlation"]: event
        for category in CALLS
        for event in of_category[category]
        if "correlation" in event.get("args", {})
    }
    found = [Run(each.start_us, []) for each in runs.ranges]
    for event in (event for category in ON_DEVICE for event in of_category[category]):
        call = calls.get(event["args"].get("correlation"))
        number = runs.index_at(call["ts"]) if call else None
        if call is None or number is None:
            continue  # not launched in a run
        mark, caller = operators.at(call["ts"]), outermost.at(call["ts"])
        found[number].kernels.append(
            Kernel(
                name=event["name"],
                start_us=event["ts"],
                end_us=event["ts"] + event["dur"],
                launched_us=call["ts"] + call["dur"],
                operator=int(mark.name[len(OPERATOR) :]) if mark else None,
                call=(caller.start_us, caller.name) if caller else (call["ts"], event["name"]),
            )
        )
    for run in found:
        run.kernels.sort(key=lambda kernel: kernel.start_us)
    if not found or not all(run.kernels for run in found):
        raise Unsupported(
            "PyTorch's profiler recorded no kernels of the GPU; on a Jetson it may need root; else use --blocks alone"
        )
    return found


def kernel_times(runs: Sequence[Run]) -> Launches:
    """Return the times of each kernel: (runs, kernels). Raises Unsupported if the runs have different kernels."""
    names = [kernel.name for kernel in runs[0].kernels]
    if any([kernel.name for kernel in run.kernels] != names for run in runs[1:]):
        raise Unsupported("the GPU executes other kernels in some runs than in others; use --blocks alone")
    starts, ends, launched = (
        np.array([[getattr(kernel, field) for kernel in run.kernels] for run in runs])
        for field in ("start_us", "end_us", "launched_us")
    )
    host = np.array([[run.start_us] for run in runs])
    before = np.maximum.accumulate(np.hstack([host, ends[:, :-1]]), axis=1)  # when the GPU was done with the others
    gaps = np.maximum(starts - before, 0.0)
    busy = np.maximum(ends - np.maximum(starts, before), 0.0)
    waiting = launched <= before  # in the queue while the GPU executed the kernel before
    pause = float(np.median(gaps[waiting])) if waiting.any() else 0.0
    pauses = np.where(waiting, gaps, np.minimum(gaps, pause))
    pauses[:, 0] = 0.0
    spent = np.maximum(np.diff(np.hstack([host, np.maximum.accumulate(launched, axis=1)]), axis=1), 0.0)
    return Launches(1e3 * (busy + pauses), 1e3 * spent, 1e3 * gaps)


def marked_owners(run: Run) -> List[int]:
    """Return the operator of each kernel of a run with marked operators. A kernel outside belongs to the one before."""
    owners: List[int] = []
    for kernel in run.kernels:
        owners.append(kernel.operator if kernel.operator is not None else owners[-1] if owners else 0)
    return owners


def owners_by_name(run: Run, marked: Sequence[Run]) -> List[int]:
    """Return the operator of each kernel of a replayed graph, whose kernels are launched by one call.

    ``marked`` are runs with marked operators: a graph executes the same kernels in the same order. Raises Unsupported.
    """
    names = [kernel.name for kernel in run.kernels]
    for candidate in marked[::-1]:
        if [kernel.name for kernel in candidate.kernels] == names:
            return marked_owners(candidate)
    raise Unsupported("the graph executes other kernels than the operators one by one; use --blocks alone")


def owners_by_order(run: Run, operators: Sequence[Operator]) -> List[int]:
    """Return the operator of each kernel of a compiled block, whose operators are not marked.

    Convolutions, products and pools are executed in the order of the operators by calls or kernels that name them. What
    the compiler fuses with them, or executes between them, belongs to the earlier one. Raises Unsupported.
    """
    anchors = [(index, words) for index, operator in enumerate(operators) for words in _anchors(operator)]
    owners: List[int] = []
    passed = 0
    call: Optional[Tuple[float, str]] = None
    for kernel in run.kernels:
        if kernel.call != call and passed < len(anchors) and _names(kernel, anchors[passed][1]):
            passed += 1
        call = kernel.call
        owners.append(anchors[max(0, passed - 1)][0] if anchors else 0)
    if passed < len(anchors):
        raise Unsupported(
            "the kernels of the compiled block show %d of %d operators in order; use --blocks alone"
            % (passed, len(anchors))
        )
    return owners


def _anchors(operator: Operator) -> List[Tuple[str, ...]]:
    if isinstance(operator, Conv):
        return [PRODUCT if operator.kernel_size == 1 else CONVOLUTION]
    if isinstance(operator, Linear):
        return [PRODUCT]
    if isinstance(operator, (Pool, AvgPool)):
        return [MEAN]
    if isinstance(operator, MaxPool):
        return [MAXIMUM]
    return [MEAN, PRODUCT, PRODUCT] if isinstance(operator, SqueezeExcite) else []


def _names(kernel: Kernel, words: Tuple[str, ...]) -> bool:
    """Whether the call of a kernel executes such an operator. A fused kernel also names the convolution before it."""
    name = kernel.name if kernel.name.startswith(FUSED) else kernel.call[1]
    if words in (CONVOLUTION, PRODUCT) and name.startswith(FUSED) and not name.startswith(FUSED_PRODUCT):
        return False
    return any(word in name for word in words)


class _Range(NamedTuple):
    start_us: float
    end_us: float
    name: str


class _Ranges:
    """Ranges on the host that do not overlap, in order. Of nested ones only the outermost count."""

    def __init__(self, events: Iterable[Dict[str, Any]]) -> None:
        self.ranges: List[_Range] = []
        for event in sorted(events, key=lambda event: (event["ts"], -event["dur"])):
            if not self.ranges or event["ts"] >= self.ranges[-1].end_us:
                self.ranges.append(_Range(event["ts"], event["ts"] + event["dur"], event["name"]))
        self._starts = [each.start_us for each in self.ranges]

    def index_at(self, moment_us: float) -> Optional[int]:
        """Return the index of the range that contains this moment, or None."""
        index = bisect_right(self._starts, moment_us) - 1
        return index if index >= 0 and moment_us < self.ranges[index].end_us else None

    def at(self, moment_us: float) -> Optional[_Range]:
        index = self.index_at(moment_us)
        return None if index is None else self.ranges[index]
