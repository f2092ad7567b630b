"""PyTorch on CUDA: eager, TorchScript, ``torch.compile``, and CUDA graphs.

Wall time ends when the GPU has finished (``synchronize``); a call alone returns as soon as the kernels are launched.
Device time is measured by CUDA events in separate runs, because recording them takes time, too.
"""

import json
import os
import tempfile
from typing import Any, Callable, List

import torch

from ofa_agent.measuring import launches, timing
from ofa_agent.measuring.parts import Profiled
from ofa_agent.operators import Block
from ofa_agent.runtimes import DeviceTimes, LoadedProfiled, kineto
from ofa_agent.runtimes.torch_layers import TorchBlock, TorchLoaded, in_mode, typed

WARM_UP = 3  # runs before a graph is captured or a trace begins; cuDNN selects algorithms in the first one
EVENT_RUNS = 11
SHORT_NS = 20000  # a shorter block is repeated between two events, whose resolution is about 500 ns
REPEATS = 20
# CUPTI must stay loaded while graphs are replayed (https://github.com/pytorch/pytorch/pull/112507).
CUPTI_FOR_GRAPHS = {"DISABLE_CUPTI_LAZY_REINIT": "1", "TEARDOWN_CUPTI": "0"}


class Cuda:
    """The GPU as PyTorch offers it. Tests replace it by one without hardware."""

    name = "cuda"

    def synchronize(self) -> None:
        """Wait until the GPU has finished."""
        torch.cuda.synchronize()

    def device_ns(self, call: Callable[[], Any]) -> float:
        """Return the time on the GPU from the beginning to the end of what ``call`` launches, in ns."""
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        call()
        end.record()
        end.synchronize()
        return float(begin.elapsed_time(end)) * 1e6

    def captured(self, call: Callable[[], Any]) -> Callable[[], Any]:
        """Return a function that replays what ``call`` launches, as one CUDA graph."""
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(WARM_UP):
                call()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            output = call()

        def replay() -> Any:
            graph.replay()
            return output

        return replay


class CudaLoaded(TorchLoaded):
    """A block on the GPU: input, weights and output stay there."""

    def __init__(self, module: TorchBlock, block: Block, job: Any, mode: str, cuda: Any = None) -> None:
        self._cuda = cuda or Cuda()
        super().__init__(in_mode(module, mode), block, job, self._cuda.name)
        self._mode = mode
        self._others: Any = None
        with torch.no_grad():
            for _ in range(WARM_UP):
                self._plain()
            self._cuda.synchronize()
            if mode == "graph":
                self._call = self._cuda.captured(self._plain)

    def run(self) -> object:
        output = super().run()
        try:
            self._cuda.synchronize()
        except RuntimeError as error:
            raise typed(error) from None
        return output

    def chill(self, others_bytes: int) -> None:
        """Move other data through the caches of the GPU, then write the input again, and wait for both."""
        if self._others is None:
            self._others = torch.ones(others_bytes // 4, device=self._cuda.name)
        self._others.add_(1.0)
        self.warm_input()
        self._cuda.synchronize()

    def device_times(self) -> DeviceTimes:
        """Return the median device time by events, and the median time in which the host launches a run."""
        with torch.no_grad():
            device_ns = [self._cuda.device_ns(self._call) for _ in range(EVENT_RUNS)]
            if timing.median(device_ns) < SHORT_NS and self._mode != "graph":
                repeated = self._cuda.captured(self._repeated)
                device_ns = [self._cuda.device_ns(repeated) / REPEATS for _ in range(EVENT_RUNS)]
            launch_ns: List[float] = []
            for _ in range(EVENT_RUNS):
                before = timing.clock_ns()
                self._call()
                launch_ns.append(timing.clock_ns() - before)
                self._cuda.synchronize()
        return DeviceTimes(timing.median(device_ns), timing.median(launch_ns))

    def _repeated(self) -> None:
        for _ in range(REPEATS):
            self._plain()


class CudaProfiled(CudaLoaded, LoadedProfiled):
    """A block whose runs are traced until ``operator_times`` is called.

    The operators of an eager block are marked in the trace. A graph executes the same kernels as the eager block, which
    is traced first. The kernels of a compiled block are assigned by their order.
    """

    def __init__(self, module: TorchBlock, block: Block, job: Any, mode: str, cuda: Any = None) -> None:
        os.environ.update(CUPTI_FOR_GRAPHS)
        super().__init__(module, block, job, mode, cuda)
        self._operators = block.operators
        self._unmarked = self._call
        self._one_by_one: List[kineto.Run] = []
        self._marked = _Marked(module)
        if mode == "eager":
            self._call = self._run_marked
        elif mode == "graph":
            self._one_by_one = self._traced_one_by_one()
        self._start()

    def run(self) -> object:
        if self._trace is None:
            return super().run()
        with torch.autograd.profiler.record_function(kineto.RUN):
            return super().run()

    def operator_times(self) -> Profiled:
        runs = kineto.read_runs(self._stop())
        self._call = self._unmarked
        if self._mode == "eager":
            owners = kineto.marked_owners(runs[-1])
        elif self._mode == "graph":
            owners = kineto.owners_by_name(runs[-1], self._one_by_one)
        else:
            owners = kineto.owners_by_order(runs[-1], self._operators)
        launch_ns = self.device_times().launch_ns
        return launches.profiled(kineto.kernel_times(runs), owners, len(self._operators), launch_ns)

    def close(self) -> None:
        if self._trace is not None:
            self._stop()

    def _run_marked(self) -> Any:
        return self._marked(self._input)

    def _traced_one_by_one(self) -> List[kineto.Run]:
        self._start()
        replayed, self._call = self._call, self._run_marked
        for _ in range(WARM_UP):
            self.run()
        self._call = replayed
        return kineto.read_runs(self._stop())

    def _start(self) -> None:
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        self._trace: Any = torch.profiler.profile(activities=activities)
        self._trace.__enter__()

    def _stop(self) -> List[Any]:
        """End the trace and return its events."""
        trace, self._trace = self._trace, None
        trace.__exit__(None, None, None)
        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "trace.json")
            trace.export_chrome_trace(path)
            with open(path) as file:
                return list(json.load(file)["traceEvents"])


class _Marked:
    """Runs the layers of a block one after the other, each in a range of the trace."""

    def __init__(self, module: TorchBlock) -> None:
        self._module = module
        self._names = [kineto.OPERATOR + str(index) for index in range(len(module.layers))]

    def __call__(self, values: Any) -> Any:
        return self._module.run_layers(values, self._in_range)

    def _in_range(self, index: int, layer: Callable[[], Any]) -> Any:
        with torch.autograd.profiler.record_function(self._names[index]):
            return layer()
