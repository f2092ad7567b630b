"""Blocks timed inside a network: the operator times of a runtime, and the overhead of its profiler."""

import itertools

import numpy as np
import pytest

from ofa_agent.measuring.parts import Profiled, part_samples
from ofa_agent.measuring.timing import time_reference
from ofa_agent.operators import Activation, Block, Conv, Pool, concatenate
from ofa_agent.runtimes import Unsupported
from ofa_profiler.lowering import lower

FIRST = Block("first", (16, 32, 32), (Conv(16, 32, 1), Activation("relu"), Conv(32, 32, 3, 1, 32)))
SECOND = Block("second", (32, 32, 32), (Conv(32, 64, 3, 2), Activation("hard_swish")))
LAST = Block("last", (64, 16, 16), (Pool(),))


def test_parts_add_up_to_the_whole():
    reported = Profiled(np.array([[300.0, 0.0, 500.0, 700.0]] * 5), np.array([1, 0, 1, 3]))
    samples = part_samples(reported, [2, 1, 1], whole_ns=1250.0)
    assert np.array(samples).sum(axis=0) == pytest.approx([1250] * 5)


def test_the_profiler_overhead_is_the_same_for_every_kernel():
    reported = Profiled(np.array([[300.0, 1000.0]]), np.array([1, 4]))
    assert part_samples(reported, [1, 1], whole_ns=1200.0) == [[280], [920]]


def test_pure_times_are_scaled_to_the_whole():
    reported = Profiled(np.array([[300.0, 1000.0]]), np.array([1, 4]), pure=True)
    assert part_samples(reported, [1, 1], whole_ns=1170.0) == [[270], [900]]
    assert part_samples(reported, [1, 1], whole_ns=2600.0) == [[600], [2000]]


def test_nothing_is_added_without_profiler_overhead():
    reported = Profiled(np.array([[300.0, 1000.0]]), np.array([1, 4]))
    assert part_samples(reported, [1, 1], whole_ns=2000.0) == [[300], [1000]]


def test_no_part_has_a_negative_time():
    reported = Profiled(np.array([[2.0, 1000.0]]), np.array([1, 1]))
    samples = part_samples(reported, [1, 1], whole_ns=500.0)
    assert min(map(min, samples)) > 0


def test_parts_add_up_to_the_whole_despite_a_large_overhead():
    """Times as in very small networks: kernels of 1 to 6 µs, with a profiler overhead of 3 µs each."""
    kernels, own = np.array([1, 2, 10, 3]), np.array([200.0, 3000.0, 30_000.0, 18_000.0])
    reported = Profiled(np.array([own + kernels * 3000.0] * 5), kernels)
    samples = np.median(part_samples(reported, [1, 1, 1, 1], whole_ns=own.sum()), axis=1)
    assert samples == pytest.approx(own, rel=1e-3)
    reported = Profiled(
        np.array([own + kernels * 3000.0] * 5), np.array([2, 2, 10, 3])
    )  # the first has no such overhead
    samples = np.median(part_samples(reported, [1, 1, 1, 1], whole_ns=own.sum()), axis=1)
    assert samples.min() > 0
    assert samples.sum() == pytest.approx(own.sum(), rel=1e-3)


def test_a_part_without_a_reported_kernel_is_an_error():
    reported = Profiled(np.array([[300.0, 0.0]]), np.array([1, 0]))
    with pytest.raises(ValueError, match="part 1"):
        part_samples(reported, [1, 1], whole_ns=200.0)


def parts_trial(trial_of, blocks):
    network = concatenate("network:test", blocks)
    model = lower("onnxruntime", network, 1)
    trial = trial_of("onnxruntime", block=network, model_id=model.model_id)
    for block in blocks:
        trial.job.parts.add(key=block.key, operators=len(block.operators))
    return trial, model


def test_onnxruntime_times_blocks_inside_a_network(host, trial_of):
    trial, model = parts_trial(trial_of, (FIRST, SECOND, LAST))
    measurement = host.take(trial, model)
    assert measurement.status == "ok", measurement.error
    assert [part.key for part in measurement.parts] == ["first", "second", "last"]
    for part in measurement.parts:
        assert len(part.samples_ns) == len(measurement.parts[0].samples_ns)
        assert min(part.samples_ns) > 0
    # The pool over 64 × 16 × 16 values is by far the fastest of the three.
    medians = [np.median(part.samples_ns) for part in measurement.parts]
    assert medians[2] < min(medians[:2])


def test_parts_that_do_not_match_the_operators_are_refused(host, trial_of):
    trial, model = parts_trial(trial_of, (FIRST, SECOND))
    trial.job.parts[0].operators += 1
    measurement = host.take(trial, model)
    assert (measurement.status, "the parts of network:test" in measurement.error) == ("malformed", True)


def test_a_runtime_without_operator_times_is_unsupported(host, trial_of):
    trial, _ = parts_trial(trial_of, (FIRST, SECOND))
    trial.job.settings.runtime, trial.job.model_id = "steady", ""
    measurement = host.take(trial)
    assert (measurement.status, "does not report" in measurement.error) == ("unsupported", True)


def test_kernels_in_a_different_order_are_unsupported():
    pytest.importorskip("onnxruntime")
    from ofa_agent.runtimes.onnxruntime import _owners

    assert _owners(["operator0_nchwc_kernel_time", "Reorder_kernel_time", "operator2.se_kernel_time"], 3) == [0, 2, 2]
    with pytest.raises(Unsupported, match="different order"):
        _owners(["operator2_kernel_time", "Reorder_kernel_time", "operator1_kernel_time"], 3)


def test_branches_may_run_in_any_order_in_onnxruntime():
    pytest.importorskip("onnxruntime")
    from ofa_agent.runtimes.onnxruntime import _owners

    assert _owners([f"operator{index}_kernel_time" for index in (0, 3, 1, 2)], 4) == [0, 3, 1, 2]


def test_the_reference_is_run_before_and_after(host, trial_of, small_block, small_model):
    trial = trial_of("onnxruntime", model_id=small_model.model_id)
    plain = host.take(trial, small_model)
    assert (plain.reference_before_ns, plain.reference_after_ns) == (0, 0)
    trial = trial_of("onnxruntime", model_id=small_model.model_id)
    trial.reference.CopyFrom(trial.job)
    timed = host.take(trial, small_model)
    assert timed.status == "ok", timed.error
    assert min(timed.reference_before_ns, timed.reference_after_ns) > 0
    assert timed.reference_mean_ns > 0
    assert timed.timed_ns > sum(timed.samples_ns)


def test_a_trial_works_without_a_reference_that_cannot_run(host, trial_of):
    trial = trial_of()
    trial.reference.CopyFrom(trial_of("raising").job)
    measurement = host.take(trial)
    assert (measurement.status, measurement.reference_before_ns) == ("ok", 0)
    assert measurement.reference_error


def test_a_trial_waits_for_its_references_model_too(host, trial_of, small_model):
    trial = trial_of()
    trial.reference.CopyFrom(trial_of("onnxruntime", model_id=small_model.model_id).job)
    trial.reference.seed += 1
    assert host.take(trial, small_model).status == "ok"


def test_the_first_run_of_the_reference_is_not_counted():
    durations = itertools.chain([90_000_000], itertools.repeat(2_000_000))
    now_ns = 0

    def run():
        nonlocal now_ns
        now_ns += next(durations)

    assert set(time_reference(run, lambda: now_ns)) == {2_000_000}
