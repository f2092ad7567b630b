"""Traces of PyTorch's profiler: kernels are assigned to operators, and times on host and GPU are separated."""

import gzip
import json
import os
from pathlib import Path

import numpy as np
import pytest

from ofa_agent import operators as ops
from ofa_agent.measuring import launches
from ofa_agent.measuring.parts import part_samples, part_sums
from ofa_agent.runtimes import Unsupported, kineto

START_US = 1000.0
LAUNCH_US = 5.0  # duration of the call that launches a kernel


class Recorder:
    """Makes a trace in the format of PyTorch's profiler, of a GPU that exists only here: a queue of kernels.

    Names and times are invented. ``launch`` and ``replay`` are what the host does; the GPU executes kernels in order.
    """

    def __init__(self, pause_us=0.0):
        self.events = [{"ph": "M", "name": "process_name", "pid": 0, "args": {"name": "python"}}]
        self.now_us = START_US
        self._pause_us = pause_us
        self._free_us = 0.0
        self._correlation = 0

    def run(self, *calls):
        """One run; it ends when the GPU has finished."""
        self._within("user_annotation", kineto.RUN, calls)
        run = self.events[-1]
        run["dur"] = max(run["dur"], self._free_us - run["ts"])
        self.now_us = max(self.now_us, self._free_us) + 10

    def operator(self, index, *calls):
        return lambda: self._within("user_annotation", f"{kineto.OPERATOR}{index}", calls)

    def call(self, name, *calls):
        return lambda: self._within("cpu_op", name, calls)

    def launch(self, name, device_us, host_us=LAUNCH_US, category="kernel"):
        """The host is busy for ``host_us``, and the last part of it is the call that launches the kernel."""

        def execute():
            self._correlation += 1
            self.now_us += host_us
            self._add("cuda_runtime", "cudaLaunchKernel", self.now_us - LAUNCH_US, LAUNCH_US, self._correlation)
            self._execute(name, device_us, category)

        return execute

    def replay(self, *kernels):
        """One launch of a graph with kernels (name, µs)."""

        def execute():
            self._correlation += 1
            self.now_us += LAUNCH_US
            self._add("cuda_runtime", "cudaGraphLaunch", self.now_us - LAUNCH_US, LAUNCH_US, self._correlation)
            for name, device_us in kernels:
                self._execute(name, device_us, "kernel")

        return execute

    def _execute(self, name, device_us, category):
        waited = self._free_us > self.now_us
        start_us = self._free_us + self._pause_us if waited else self.now_us
        self._free_us = start_us + device_us
        self._add(category, name, start_us, device_us, self._correlation)

    def _within(self, category, name, calls):
        begin = self.now_us
        for call in calls:
            call()
        self._add(category, name, begin, self.now_us - begin)

    def _add(self, category, name, start_us, took_us, correlation=None):
        arguments = {} if correlation is None else {"correlation": correlation}
        self.events.append(
            {
                "ph": "X",
                "cat": category,
                "name": name,
                "ts": start_us,
                "dur": took_us,
                "pid": 0,
                "tid": 0,
                "args": arguments,
            }
        )


CONV, SECOND = "cudnn_conv", "cudnn_conv_3x3"


def eager(recorder, device_us, host_us=LAUNCH_US, times=3):
    """Runs of three marked operators with 2, 1 and 1 kernels."""
    for _ in range(times):
        recorder.run(
            recorder.operator(
                0, recorder.launch(CONV, device_us, host_us), recorder.launch("bias", device_us, host_us)
            ),
            recorder.operator(1, recorder.launch("relu", device_us, host_us)),
            recorder.operator(2, recorder.launch(SECOND, device_us, host_us)),
        )
    return kineto.read_runs(recorder.events)


def test_kernels_belong_to_the_operator_that_launched_them():
    runs = eager(Recorder(), device_us=2)
    assert len(runs) == 3
    assert [kernel.name for kernel in runs[0].kernels] == [CONV, "bias", "relu", SECOND]
    assert kineto.marked_owners(runs[0]) == [0, 0, 1, 2]


def test_a_launch_bound_network_takes_as_long_as_its_launches():
    runs = eager(Recorder(), device_us=2, host_us=30)
    reported = launches.profiled(kineto.kernel_times(runs), [0, 0, 1, 2], 3, whole_launch_ns=120e3)
    assert reported.operator_ns[0] == pytest.approx([62e3, 30e3, 30e3])  # the first one ends when its kernel ends
    assert reported.launches.device_ns[0] == pytest.approx([4e3, 2e3, 2e3])
    assert reported.launches.launch_ns[0] == pytest.approx([60e3, 30e3, 30e3])
    assert reported.launches.gap_ns[0] == pytest.approx([58e3, 28e3, 28e3])


def test_a_device_bound_network_takes_as_long_as_its_kernels():
    runs = eager(Recorder(), device_us=50)
    reported = launches.profiled(kineto.kernel_times(runs), [0, 0, 1, 2], 3, whole_launch_ns=4 * LAUNCH_US * 1e3)
    assert reported.operator_ns[0] == pytest.approx([105e3, 50e3, 50e3])
    assert reported.launches.gap_ns[0] == pytest.approx([5e3, 0, 0])


def test_large_kernels_hide_the_launches_of_small_ones():
    recorder = Recorder()
    recorder.run(
        *[recorder.operator(i, recorder.launch(f"k{i}", us, 20)) for i, us in enumerate([100, 1, 1, 1, 1, 1, 1])]
    )
    times = kineto.kernel_times(kineto.read_runs(recorder.events))
    reported = launches.profiled(times, list(range(7)), 7, whole_launch_ns=140e3)
    assert reported.operator_ns[0] == pytest.approx([120e3, 1e3, 1e3, 1e3, 1e3, 1e3, 16e3])
    assert reported.operator_ns.sum() == pytest.approx(141e3)  # neither the sum 106 + 140 nor the maximum 140


def test_the_overhead_of_the_profiler_on_the_host_is_subtracted():
    runs = eager(Recorder(), device_us=2, host_us=45)  # 15 µs of each launch are the profiler's
    reported = launches.profiled(kineto.kernel_times(runs), [0, 0, 1, 2], 3, whole_launch_ns=120e3)
    assert reported.operator_ns[0].sum() == pytest.approx(122e3)
    assert reported.launches.launch_ns[0] == pytest.approx([60e3, 30e3, 30e3])


def test_the_pause_between_queued_kernels_counts_as_device_time():
    runs = eager(Recorder(pause_us=1.0), device_us=50)
    reported = launches.profiled(kineto.kernel_times(runs), [0, 0, 1, 2], 3, whole_launch_ns=4 * LAUNCH_US * 1e3)
    assert reported.launches.device_ns[0] == pytest.approx([101e3, 51e3, 51e3])
    assert reported.launches.gap_ns[0] == pytest.approx([6e3, 1e3, 1e3])


def test_parts_add_up_to_the_network():
    runs = eager(Recorder(pause_us=1.0), device_us=20, host_us=9)
    times = kineto.kernel_times(runs)
    reported = launches.profiled(times, [0, 0, 1, 2], 3, whole_launch_ns=36e3)
    end = max(kernel.end_us for kernel in runs[0].kernels) - runs[0].start_us
    assert reported.operator_ns[0].sum() == pytest.approx(end * 1e3, rel=0.02)  # before anything is scaled
    samples = part_samples(reported, [2, 1], whole_ns=50e3)
    assert sum(of_part[0] for of_part in samples) == pytest.approx(50e3, rel=1e-3)
    assert part_sums(reported.launches.device_ns, [2, 1])[0] == pytest.approx([62e3, 21e3])


def test_the_kernels_of_a_graph_are_those_of_the_operators_in_the_same_order():
    marked = eager(Recorder(), device_us=2)
    recorder = Recorder()
    for _ in range(3):
        recorder.run(recorder.replay((CONV, 4), ("bias", 1), ("relu", 2), (SECOND, 8)))
    replays = kineto.read_runs(recorder.events)
    owners = kineto.owners_by_name(replays[0], marked)
    assert owners == [0, 0, 1, 2]
    reported = launches.profiled(kineto.kernel_times(replays), owners, 3, whole_launch_ns=LAUNCH_US * 1e3)
    assert reported.operator_ns[0] == pytest.approx([10e3, 2e3, 8e3])
    assert reported.launches.launch_ns[0] == pytest.approx([5e3, 0, 0])


def test_a_graph_with_other_kernels_is_refused():
    marked = eager(Recorder(), device_us=2)
    recorder = Recorder()
    recorder.run(recorder.replay((CONV, 4), ("fused", 3), (SECOND, 8)))
    with pytest.raises(Unsupported, match="other kernels than the operators one by one"):
        kineto.owners_by_name(kineto.read_runs(recorder.events)[0], marked)


BLOCK = (
    ops.Conv(8, 32, 1),
    ops.Activation("hard_swish"),
    ops.Conv(32, 32, 3, groups=32),
    ops.SqueezeExcite(32, 8),
    ops.Activation("hard_swish"),
    ops.Conv(32, 8, 1),
    ops.Add(0),
    ops.Pool(),
    ops.Linear(8, 5),
)


def compiled(recorder, *left_out):
    """A run of BLOCK as torch.compile executes it: convolutions by a library, the rest fused between them."""
    calls = [
        recorder.call("aten::convolution", recorder.launch("layout", 1), recorder.launch(CONV, 5)),
        recorder.launch("triton_poi_fused_convolution_hardswish_0", 2),
        recorder.call("aten::convolution", recorder.launch("depthwise", 5)),
        recorder.launch("triton_per_fused_convolution_mean_1", 2),
        recorder.call("aten::convolution", recorder.launch(CONV, 1)),
        recorder.launch("triton_poi_fused_convolution_relu_2", 1),
        recorder.call("aten::convolution", recorder.launch(CONV, 1)),
        recorder.launch("triton_poi_fused_convolution_hardsigmoid_hardswish_mul_3", 2),
        recorder.call("aten::convolution", recorder.launch(CONV, 5)),
        recorder.launch("triton_per_fused_add_convolution_mean_4", 2),
        recorder.call("aten::addmm", recorder.launch("gemm", 3)),
    ]
    recorder.run(*[call for index, call in enumerate(calls) if index not in left_out])
    return kineto.read_runs(recorder.events)


def test_the_kernels_of_a_compiled_block_are_assigned_by_order():
    (run,) = compiled(Recorder())
    assert kineto.owners_by_order(run, BLOCK) == [0, 0, 0, 2, 3, 3, 3, 3, 3, 5, 7, 8]


def test_a_compiled_block_whose_kernels_do_not_show_its_operators_is_refused():
    (run,) = compiled(Recorder(), 8)
    with pytest.raises(Unsupported, match="show 6 of 8 operators in order"):
        kineto.owners_by_order(run, BLOCK)


def test_categories_of_old_versions_are_read():
    recorder = Recorder()
    expected = eager(recorder, device_us=2)
    old = {name: category for category, name in kineto.OLD.items()} | {"user_annotation": "Operator"}
    for event in recorder.events:
        event["cat"] = old.get(event.get("cat"))
    assert kineto.read_runs(recorder.events) == expected


def test_runs_with_different_kernels_are_refused():
    recorder = Recorder()
    recorder.run(recorder.launch(CONV, 1))
    recorder.run(recorder.launch(SECOND, 1))
    with pytest.raises(Unsupported, match="other kernels in some runs"):
        kineto.kernel_times(kineto.read_runs(recorder.events))


def test_a_trace_without_kernels_is_refused():
    recorder = Recorder()
    recorder.run()
    with pytest.raises(Unsupported, match="recorded no kernels"):
        kineto.read_runs(recorder.events)
    with pytest.raises(Unsupported, match="recorded no kernels"):
        kineto.read_runs([])


def test_kernels_from_outside_the_runs_are_left_out():
    recorder = Recorder()
    recorder.launch("warm-up", 5)()
    recorder.now_us += 100
    recorder.run(recorder.launch(CONV, 1))
    assert [kernel.name for kernel in kineto.read_runs(recorder.events)[0].kernels] == [CONV]


def test_marks_are_in_a_trace_of_the_real_profiler(tmp_path):
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as trace:
        for _ in range(2):
            with torch.autograd.profiler.record_function(kineto.RUN):
                for index in range(2):
                    with torch.autograd.profiler.record_function(f"{kineto.OPERATOR}{index}"):
                        torch.nn.functional.conv2d(torch.ones(1, 1, 8, 8), torch.ones(1, 1, 3, 3))
    trace.export_chrome_trace(str(tmp_path / "trace.json"))
    events = json.loads((tmp_path / "trace.json").read_text())["traceEvents"]
    convolutions = [event for event in events if event.get("name") == "aten::conv2d"]
    assert len(convolutions) == 4
    # This machine has no GPU. A kernel for each convolution stands in, launched by a call inside of it.
    for number, event in enumerate(convolutions):
        at = {"ph": "X", "dur": 0.1, "args": {"correlation": number}}
        events.append({**at, "cat": "cuda_runtime", "name": "cudaLaunchKernel", "ts": event["ts"] + 0.1})
        events.append({**at, "cat": "kernel", "name": CONV, "ts": event["ts"] + 1})
    runs = kineto.read_runs(events)
    assert [kineto.marked_owners(run) for run in runs] == [[0, 1], [0, 1]]
    assert [kernel.call[1] for kernel in runs[0].kernels] == ["aten::conv2d"] * 2


ALEXNET = (
    *(ops.Conv(3, 64, 11, 4), ops.Activation("relu"), ops.MaxPool(3, 2)),
    *(ops.Conv(64, 192, 5), ops.Activation("relu"), ops.MaxPool(3, 2)),
    *(ops.Conv(192, 384, 3), ops.Activation("relu"), ops.Conv(384, 256, 3), ops.Activation("relu")),
    *(ops.Conv(256, 256, 3), ops.Activation("relu"), ops.MaxPool(3, 2), ops.Pool()),
    *(ops.Linear(9216, 4096), ops.Activation("relu"), ops.Linear(4096, 4096), ops.Activation("relu")),
    ops.Linear(4096, 1000),
)


@pytest.mark.skipif("KINETO_TRACES" not in os.environ, reason="KINETO_TRACES names no folder with public traces")
def test_a_public_trace_of_alexnet_on_an_a100():
    """``tests/data/critical_path/alexnet`` of github.com/facebookresearch/HolisticTraceAnalysis."""
    (path,) = Path(os.environ["KINETO_TRACES"]).rglob("benchmark_result_2869224_*.json*")
    content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    events = json.loads(content)["traceEvents"]
    forward = [event for event in events if event["name"].endswith("|measure|forward]")][1]
    forward["name"] = kineto.RUN
    (run,) = kineto.read_runs(events)
    owners = kineto.owners_by_order(run, ALEXNET)
    times = kineto.kernel_times([run])
    reported = launches.profiled(times, owners, len(ALEXNET), float(times.launch_ns.sum()))
    anchors = [index for index, operator in enumerate(ALEXNET) if not isinstance(operator, ops.Activation)]
    assert sorted(set(owners)) == anchors
    took_us = run.kernels[-1].end_us - run.start_us
    assert reported.operator_ns.sum() / 1e3 == pytest.approx(took_us, rel=0.02)
    assert np.argmax(reported.launches.device_ns[0][:3]) == 0
