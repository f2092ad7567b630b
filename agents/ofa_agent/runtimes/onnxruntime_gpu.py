"""ONNX Runtime on a GPU: CUDA and TensorRT.

The wheels of ONNX Runtime are built without CUDA profiling, so its profile has no kernel times, and every block is
timed alone. The wall time of a run includes the launches of all kernels. The device time is that of the same block as a
CUDA graph, whose kernels need no launches.
"""

from typing import Any, Callable, List

import onnxruntime as ort

from ofa_agent.measuring import timing
from ofa_agent.operators import Block
from ofa_agent.runtimes import DeviceTimes
from ofa_agent.runtimes.onnxruntime import OnnxLoaded

RUNS = 11
REPEATS = 20  # of a graph, before the host waits
CAPTURE = 3  # runs until a graph is captured


class OnnxGpuLoaded(OnnxLoaded):
    """A block with input and output on the GPU. ``as_graph`` makes a session that replays it as a CUDA graph."""

    def __init__(self, session: Any, block: Block, batch: int, device: str, as_graph: Callable[[], Any]) -> None:
        super().__init__(session, block, batch, device)
        self._as_graph = as_graph
        self._go_on = ort.RunOptions()
        self._go_on.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def warm_input(self) -> None:
        """Write the input on the GPU again, and wait for it."""
        self._there.update_inplace(self._values)

    def device_times(self) -> DeviceTimes:
        """Return the time on the GPU, 0 if the block cannot be a graph, and the time in which the host launches it."""
        launch_ns: List[float] = []
        for _ in range(RUNS):
            before = timing.clock_ns()
            self._session.run_with_iobinding(self._binding, self._go_on)
            launch_ns.append(timing.clock_ns() - before)
            self._binding.synchronize_outputs()
        try:
            graph = self._as_graph()
            binding = self.bound(graph)
            for _ in range(CAPTURE):
                graph.run_with_iobinding(binding)
        except Exception:  # onnxruntime raises no narrower type; some operators run on the CPU
            return DeviceTimes(0.0, timing.median(launch_ns))
        device_ns: List[float] = []
        for _ in range(RUNS):
            before = timing.clock_ns()
            for _ in range(REPEATS):
                graph.run_with_iobinding(binding, self._go_on)
            binding.synchronize_outputs()
            device_ns.append((timing.clock_ns() - before) / REPEATS)
        return DeviceTimes(timing.median(device_ns), timing.median(launch_ns))
