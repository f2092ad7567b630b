"""PyTorch on CUDA: wall time includes the work on the GPU, and blocks are timed inside networks.

Where there is no GPU, a thread that executes work later stands in for it. It shows only that the runtime waits.
"""

import threading
import time
from queue import Queue

import numpy as np
import pytest

from ofa_agent import operators as ops
from ofa_agent import runtimes
from ofa_agent.measuring.timing import Budget, clock_ns, median, time_burst
from ofa_agent.measuring.worker import take_trial
from ofa_agent.protocol import messages as wire
from ofa_agent.runtimes import kineto
from ofa_nas.spaces import find_space
from ofa_profiler.campaign.decoding import measurement_of, parts_of

torch = pytest.importorskip("torch", reason="PyTorch is not installed")
torch_cuda = pytest.importorskip("ofa_agent.runtimes.torch_cuda")
torch_layers = pytest.importorskip("ofa_agent.runtimes.torch_layers")

WORK_S = 0.02
BLOCK = ops.Block("conv", (8, 9, 9), (ops.Conv(8, 8, 3),))
SPACE = find_space("ofa-mbv3-w1.0")
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA device")


class LaterDevice(torch_cuda.Cuda):
    """Executes what is launched in order, later, as a GPU does."""

    name = "cpu"

    def __init__(self):
        self._queue = Queue()
        self.executed = 0
        threading.Thread(target=self._execute, daemon=True).start()

    def launch(self):
        self._queue.put(WORK_S)

    def synchronize(self):
        self._queue.join()

    def device_ns(self, call):
        self.synchronize()
        before = clock_ns()
        call()
        self.synchronize()
        return clock_ns() - before

    def captured(self, call):
        return call

    def _execute(self):
        while True:
            time.sleep(self._queue.get())
            self.executed += 1
            self._queue.task_done()


class NeverWaits(LaterDevice):
    def synchronize(self):
        pass


def job_of(block, runtime="torch-cuda", batch=1, precision="fp32"):
    settings = wire.Settings(runtime=runtime, precision=precision, threads=1, batch=batch)
    return wire.job_message(block, settings, "")


def loaded_on(device, mode="eager"):
    def module(values):
        device.launch()
        return values

    return torch_cuda.CudaLoaded(module, BLOCK, job_of(BLOCK), mode, device)


@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_run_ends_when_the_device_has_finished(mode):
    device = LaterDevice()
    loaded = loaded_on(device, mode)
    executed = device.executed
    burst = time_burst(loaded.run, Budget(warmup_s=0, burst_min_s=0, burst_max_s=0, min_runs=3), clock_ns)
    assert device.executed - executed == 4
    assert min(burst.samples_ns) >= WORK_S * 1e9


def test_without_waiting_the_time_would_be_that_of_the_launch():
    loaded = loaded_on(NeverWaits())
    burst = time_burst(loaded.run, Budget(warmup_s=0, burst_min_s=0, burst_max_s=0, min_runs=3), clock_ns)
    assert median(burst.samples_ns) < WORK_S * 1e9 / 2


def test_device_time_and_launch_time_are_separate():
    times = loaded_on(LaterDevice()).device_times()
    assert times.device_ns >= WORK_S * 1e9
    assert times.launch_ns < WORK_S * 1e9 / 2


def test_the_caches_are_prepared_before_a_run_begins():
    device = LaterDevice()
    loaded = loaded_on(device)
    device.launch()  # stands for the copies that prepare the caches
    executed = device.executed
    loaded.chill(4096)
    assert device.executed == executed + 1


class WithKernels(torch_cuda.CudaProfiled):
    """Traces the CPU, and adds a launch and a kernel to the trace for each outermost operator of PyTorch."""

    kernel_us = 50.0

    def _stop(self):
        events = super()._stop()
        free_us = 0.0
        outermost = kineto._Ranges(event for event in events if event.get("cat") == "cpu_op")
        for number, (start_us, _, name) in enumerate(outermost.ranges):
            event = {"ph": "X", "args": {"correlation": number}}
            launch = {**event, "cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": start_us + 0.1, "dur": 0.1}
            free_us = max(free_us, start_us + 0.2)
            kernel = {**event, "cat": "kernel", "name": name, "ts": free_us, "dur": self.kernel_us}
            free_us += self.kernel_us
            events += [launch, kernel]
        return events


class OnThisMachine(torch_cuda.Cuda):
    name = "cpu"

    def synchronize(self):
        pass

    def device_ns(self, call):
        before = clock_ns()
        call()
        return clock_ns() - before

    def captured(self, call):
        return call


@pytest.mark.filterwarnings("ignore:CUDA is not available:UserWarning")
@pytest.mark.parametrize("mode", ["eager", "graph"])
def test_a_trial_keeps_the_times_of_each_part_on_device_and_host(monkeypatch, mode):
    space = find_space("tiny")
    architecture = space.decode(space.sample(1, np.random.default_rng(0), [space.resolutions_px[0]]))[0]
    network, blocks = space.network(architecture), space.network_blocks(architecture)

    class Runtime:
        def version(self):
            return torch.__version__

        def load_profiled(self, block, job, model_path):
            return WithKernels(torch_layers.TorchBlock(block, job.seed).eval(), block, job, mode, OnThisMachine())

    monkeypatch.setattr(runtimes, "find", lambda *_: Runtime())
    job = job_of(network)
    for block in blocks:
        job.parts.add(key=block.key, operators=len(block.operators))
    trial = wire.Trial(trial_id="one", job=job)
    wire.set_budget(trial.budget, Budget(warmup_s=0.1, burst_min_s=0, burst_max_s=0.01, min_runs=3), 60.0)
    measurement = take_trial(trial, "")
    assert measurement.status == "ok", measurement.error
    assert [part.key for part in measurement.parts] == [block.key for block in blocks]
    of_runs = np.array([part.samples_ns for part in measurement.parts]).sum(axis=0)
    assert median(of_runs) == pytest.approx(median(measurement.samples_ns), rel=0.01)
    kernels = [round(part.device_ns / 1e3 / WithKernels.kernel_us) for part in measurement.parts]
    assert all(1 <= count <= 2 * len(block.operators) + 4 for count, block in zip(kernels, blocks, strict=True))
    assert all(part.launch_ns > 0 for part in measurement.parts)
    assert min(measurement.device_ns, measurement.launch_ns) > 0
    inside = parts_of(measurement, measurement_of(measurement, 0))
    assert all(entry.device_ms and entry.launch_ms is not None for entry in inside)


MODES = ["torch-cuda", "torch-cuda-graph", "torch-cuda-compile", "torch-cuda-script"]
# The largest difference to the CPU relative to the largest output.
BOUNDS = {"fp32": 1e-4, "tf32": 1e-2, "fp16": 2e-2, "bf16": 1e-1}


@needs_gpu
@pytest.mark.parametrize("precision", BOUNDS)
@pytest.mark.parametrize("runtime", MODES)
def test_a_block_gives_the_same_output_as_on_the_cpu(runtime, precision):
    block = SPACE.blocks(128)[40]
    expected = runtimes.find("torch").load(block, job_of(block, "torch", 2), "").output()
    got = runtimes.find(runtime).load(block, job_of(block, runtime, 2, precision), "").output()
    assert np.abs(got - expected).max() <= BOUNDS[precision] * np.abs(expected).max()


@needs_gpu
@pytest.mark.parametrize("runtime", MODES[:3])
def test_operators_are_timed_inside_a_network(runtime):
    architecture = SPACE.decode(SPACE.sample(1, np.random.default_rng(0), [128]))[0]
    network, blocks = SPACE.network(architecture), SPACE.network_blocks(architecture)
    loaded = runtimes.find(runtime).load_profiled(network, job_of(network, runtime), "")
    for _ in range(10):
        loaded.run()
    reported = loaded.operator_times()
    loaded.close()
    sizes = [len(block.operators) for block in blocks]
    assert (np.add.reduceat(reported.kernels, np.cumsum([0, *sizes[:-1]])) > 0).all()
    assert (reported.launches.device_ns.sum(axis=1) > 0).all()
