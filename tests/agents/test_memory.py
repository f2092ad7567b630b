"""A block that cannot fit into memory is refused before it is built."""

import pytest

from ofa_agent import operators as ops
from ofa_agent.measuring import memory
from ofa_agent.measuring.worker import take_trial

MIB = 1 << 20


class NeverLoads:
    def version(self):
        return "1.0"

    def load(self, block, job, model_path):
        raise AssertionError("the block is built")


def block(*operators, shape=(16, 64, 64)):
    return ops.Block("a block", shape, operators)


def test_values_that_live_at_the_same_time_are_counted():
    value = 16 * 64 * 64
    conv = ops.Conv(16, 16, 1, bias=False)
    assert memory.needed_bytes(block(conv), 1, "fp32") == 4 * (256 + 2 * value)
    assert memory.needed_bytes(block(conv), 3, "fp32") == 4 * (256 + 6 * value)
    assert memory.needed_bytes(block(conv), 1, "fp16") == 2 * (256 + 2 * value)
    assert memory.needed_bytes(block(conv, conv, conv), 1, "fp32") == 4 * (3 * 256 + 2 * value)
    assert memory.needed_bytes(block(conv, conv, ops.Add(0)), 1, "fp32") == 4 * (2 * 256 + 3 * value)
    assert memory.needed_bytes(block(ops.Activation("relu")), 1, "fp32") == 4 * value


def test_a_branch_is_counted_once_and_an_unused_value_not_at_all():
    value, conv = 16 * 64 * 64, ops.Conv(16, 16, 1, bias=False)
    assert memory.needed_bytes(block(conv, ops.Take(0), conv, ops.Add(1)), 1, "fp32") == 4 * (2 * 256 + 3 * value)
    assert memory.needed_bytes(block(*[conv, ops.Take(0)] * 9, conv), 1, "fp32") == 4 * (10 * 256 + 2 * value)


def test_many_values_that_live_to_the_end_are_counted():
    conv = ops.Conv(16, 16, 1, bias=False)
    wide = block(*[conv] * 50, *[ops.Add(at) for at in range(50)])
    assert memory.needed_bytes(wide, 1, "fp32") > 50 * 4 * 16 * 64 * 64


@pytest.mark.parametrize("batch", [1, 512])
def test_a_block_beyond_the_free_memory_is_refused_with_both_figures(trial_of, monkeypatch, batch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 10 * MIB)
    monkeypatch.setattr("ofa_agent.runtimes.find", lambda *names: NeverLoads())
    wide = block(*[ops.Conv(16, 16, 1)] * 3, shape=(16, 512, 512) if batch == 1 else (16, 64, 64))
    measurement = take_trial(trial_of(block=wide, batch=batch), "")
    assert measurement.status == "out-of-memory"
    needed = 2 * 16 * (512 * 512 if batch == 1 else 512 * 64 * 64) * 4 // MIB
    assert measurement.error == (
        f"a block needs at least {needed} MiB of memory at batch {batch}; the device has 10 MiB free"
    )


def test_a_block_that_runs_on_other_memory_is_not_refused(trial_of, monkeypatch):
    monkeypatch.setattr(memory, "free_bytes", lambda: 0)
    wide = block(ops.Conv(16, 16, 1))
    assert memory.refusal(wide, trial_of("onnxruntime").job.settings)
    assert not memory.refusal(wide, trial_of("torch-cuda").job.settings)


def test_the_free_memory_is_that_of_the_tightest_limit(tmp_path, monkeypatch):
    monkeypatch.setattr(memory, "CGROUP", str(tmp_path))
    monkeypatch.setattr(memory, "_own", lambda controller="": [] if controller else ["/outer/inner", "/outer", ""])
    assert memory.free_bytes() == pytest.approx(memory._available(), rel=0.2)
    inner = tmp_path / "outer" / "inner"
    inner.mkdir(parents=True)
    (inner / "memory.max").write_text("max\n")
    (inner / "memory.current").write_text("1000\n")
    (inner.parent / "memory.max").write_text(f"{50 * MIB}\n")
    (inner.parent / "memory.current").write_text(f"{20 * MIB}\n")
    (inner.parent / "memory.stat").write_text(f"anon 5\ninactive_file {3 * MIB}\n")
    assert memory.free_bytes() == 33 * MIB
    (inner / "memory.events").write_text("low 0\noom 3\noom_kill 2\n")
    before = memory.oom_kills()
    (inner / "memory.events").write_text("low 0\noom 3\noom_kill 3\n")
    assert memory.oom_kills() == before + 1


def test_the_limits_of_cgroups_of_version_1_count_too(tmp_path, monkeypatch):
    """As on a Jetson with Linux 4.9."""
    own = {"/proc/self/cgroup": "9:cpu,cpuacct:/\n5:memory:/user.slice\n1:name=systemd:/init.scope\n"}
    real = memory._lines
    monkeypatch.setattr(memory, "CGROUP", str(tmp_path))
    monkeypatch.setattr(memory, "_lines", lambda path: own[path].splitlines() if path in own else real(path))
    folder = tmp_path / "memory" / "user.slice"
    folder.mkdir(parents=True)
    (folder / "memory.limit_in_bytes").write_text(f"{50 * MIB}\n")
    (folder / "memory.usage_in_bytes").write_text(f"{30 * MIB}\n")
    (folder / "memory.stat").write_text(f"inactive_file 1\ntotal_inactive_file {5 * MIB}\n")
    (folder / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\n")
    before = memory.oom_kills()
    assert memory.free_bytes() == 25 * MIB
    (folder / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 4\n")
    assert memory.oom_kills() >= before + 1
