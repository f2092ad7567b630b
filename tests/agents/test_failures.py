"""A failure of a runtime costs one trial and never the agent."""

import os
import signal
import sys

import pytest

from ofa_agent import operators as ops
from ofa_agent.measuring.timing import Budget
from ofa_agent.protocol import messages as wire
from ofa_profiler.lowering import Model, lower

LONG = Budget(warmup_s=0.001, burst_min_s=600.0, burst_max_s=600.0, half_width=0.0)


def test_a_block_is_timed(host, trial_of, small_model):
    trial = trial_of("onnxruntime", model_id=small_model.model_id)
    measurement = host.take(trial, small_model)
    assert measurement.status == "ok", measurement.error
    assert measurement.trial_id == trial.trial_id
    assert measurement.key == trial.job.key
    assert len(measurement.samples_ns) >= 3
    assert min(measurement.samples_ns) > 0
    assert measurement.first_ns > 0
    assert measurement.load_ns > 0
    assert measurement.warmup_runs >= 1
    assert measurement.timed_ns >= sum(measurement.samples_ns)
    assert measurement.runtime_version


def test_a_worker_killed_during_a_burst_costs_only_that_trial(agent, host, trial_of, eventual):
    before = len(agent.loaded())
    host.send(trial=trial_of(budget=LONG))
    eventual(lambda: len(agent.loaded()) > before)
    (worker,) = agent.workers
    os.kill(worker, signal.SIGKILL)
    measurement = host.measurement()
    assert (measurement.status, measurement.error) == ("crashed", "the worker process was ended by SIGKILL")
    host.acknowledge(measurement.trial_id)
    assert host.take(trial_of()).status == "ok"


def test_a_hanging_runtime_is_killed_at_the_timeout(agent, host, trial_of):
    measurement = host.take(trial_of("hanging", timeout_s=0.5))
    assert (measurement.status, measurement.error) == ("timed-out", "no answer within 0.5 s")
    assert host.take(trial_of()).status == "ok"
    assert len(agent.workers) == 1


FAILURES = {
    "faulty": ("crashed", "SIGSEGV"),
    "exiting": ("crashed", "exit code 7"),
    "raising": ("crashed", "ValueError: the delegate said no"),
    "hungry": ("out-of-memory", "no room for a small block"),
    "broken": ("crashed", "libbroken.so"),
    "no such runtime": ("unsupported", "has no runtime 'no such runtime'"),
}


@pytest.mark.parametrize("runtime", FAILURES)
def test_a_failed_trial_reports_the_reason_and_the_next_one_works(host, trial_of, runtime):
    status, text = FAILURES[runtime]
    measurement = host.take(trial_of(runtime))
    assert measurement.status == status
    assert text in measurement.error
    assert list(measurement.samples_ns) == []
    assert measurement.started_at > 0
    assert host.take(trial_of()).status == "ok"


def test_an_unknown_runtime_lists_the_available_ones(host, trial_of):
    error = host.take(trial_of("onnxrutime")).error
    assert "onnxruntime" in error
    assert "steady" in error


def test_output_printed_by_a_runtime_does_no_harm(agent, host, trial_of):
    assert host.take(trial_of("chatty")).status == "ok"
    assert "INFO: Created delegate for CPU." in agent.log


def test_a_precision_that_a_runtime_lacks_is_unsupported(host, trial_of, small_model):
    measurement = host.take(trial_of("onnxruntime", model_id=small_model.model_id, precision="int4"), small_model)
    assert measurement.status == "unsupported"
    assert "int4" in measurement.error


def block(*operators, shape=(8, 6, 6)):
    return ops.Block("a block", shape, operators)


MALFORMED = {
    "operators that do not fit": (block(ops.Conv(16, 8, 3)), {}),
    "no operators": (block(), {}),
    "a giant weight": (block(ops.Conv(8, 65536, 65535)), {}),
    "a giant input": (block(ops.Activation("relu"), shape=(65536, 65536, 65536)), {}),
    "a dimension of 32 bits": (block(ops.Pool(), shape=(8, (1 << 32) - 1, 1)), {}),
    "too many operators": (block(*[ops.Activation("relu")] * 5000), {}),
    "an empty input": (block(ops.Pool(), shape=(8, 0, 6)), {}),
    "no batch": (block(ops.Pool()), {"batch": 0}),
    "a giant batch": (block(ops.Pool()), {"batch": (1 << 32) - 1}),
    "a crowd of threads": (block(ops.Pool()), {"threads": 1_000_000}),
}


@pytest.mark.parametrize(("wrong", "settings"), MALFORMED.values(), ids=MALFORMED)
def test_an_invalid_job_is_malformed_and_reaches_no_runtime(agent, host, trial_of, wrong, settings):
    before = agent.loaded()
    measurement = host.take(trial_of(block=wrong, **settings))
    assert measurement.status == "malformed", measurement.error
    assert measurement.error
    assert agent.loaded() == before


def damaged(content):
    """Return a complete file that is not a valid model."""
    return Model(wire.model_id_of([content]), (content,))


def test_a_file_that_is_not_a_model_is_malformed(host, trial_of):
    model = damaged(b"no model at all")
    measurement = host.take(trial_of("onnxruntime", model_id=model.model_id), model)
    assert measurement.status == "malformed", measurement.error


def test_a_truncated_model_is_malformed(host, trial_of, small_model):
    whole = wire.model_bytes(small_model.chunks)
    model = damaged(whole[: len(whole) // 2])
    measurement = host.take(trial_of("onnxruntime", model_id=model.model_id), model)
    assert measurement.status == "malformed", measurement.error


def test_a_model_of_a_different_block_is_malformed(host, trial_of, small_model):
    other = block(ops.Conv(4, 4, 3), shape=(4, 6, 6))
    measurement = host.take(trial_of("onnxruntime", other, model_id=small_model.model_id), small_model)
    assert measurement.status == "malformed", measurement.error


def test_a_model_damaged_in_transit_is_malformed(host, trial_of):
    model = Model("0" * 64, (b"something else",))
    measurement = host.take(trial_of("onnxruntime", model_id=model.model_id), model)
    assert measurement.status == "malformed"
    assert "arrived damaged" in measurement.error


def test_a_job_without_a_required_model_is_malformed(host, trial_of):
    assert host.take(trial_of("onnxruntime")).status == "malformed"


@pytest.mark.parametrize("timeout_s", [float("inf"), 1e300])
def test_a_trial_with_an_endless_timeout_runs(host, trial_of, timeout_s):
    assert host.take(trial_of(timeout_s=timeout_s)).status == "ok"


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan")])
def test_a_trial_with_an_invalid_timeout_times_out(host, trial_of, timeout_s):
    assert host.take(trial_of(timeout_s=timeout_s)).status == "timed-out"
    assert host.take(trial_of()).status == "ok"


def test_queued_trials_are_answered_in_order(agent, host, trial_of):
    trials = [trial_of() for _ in range(8)]
    for trial in trials:
        host.send(trial=trial)
    measurements = [host.measurement() for _ in trials]
    assert [measurement.trial_id for measurement in measurements] == [trial.trial_id for trial in trials]
    begun = [measurement.started_at for measurement in measurements]
    ended = [measurement.started_at + measurement.timed_ns / 1e9 for measurement in measurements]
    assert all(start >= end - 0.001 for start, end in zip(begun[1:], ended, strict=False))


def test_a_network_that_does_not_fit_into_memory_is_reported(start_agent, trial_of):
    """Return a network with few weights and an intermediate value of 1 GiB, allocated in the first run."""
    command = (
        "sh",
        "-c",
        'ulimit -v "$0" && exec "$@"',
        "1000000",
        os.environ.get("AGENT_PYTHON") or sys.executable,
        "-m",
        "ofa_agent",
    )
    lean = {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    host = start_agent(command=command, environment=lean).host()
    host.welcome()
    wide = block(ops.Conv(1, 65536, 1), ops.Pool(), shape=(1, 64, 64))
    model = lower("onnxruntime", wide, 1)
    measurement = host.take(trial_of("onnxruntime", wide, model_id=model.model_id), model)
    assert measurement.status == "out-of-memory", measurement.error
    assert host.take(trial_of()).status == "ok"
    host.done()
