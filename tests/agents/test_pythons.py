"""The agent on the Python versions of devices: runs on 3.6, compiles on the other versions of this machine."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import uuid
import zipfile
from pathlib import Path

import numpy as np
import pytest

import ofa_agent
from ofa_agent import bundle
from ofa_agent.protocol import messages as wire
from ofa_nas.spaces import find_space
from ofa_profiler.connections import connect
from ofa_profiler.lowering import lower
from ofa_profiler.targets.target import find_target

PACKAGE = Path(ofa_agent.__file__).parent


@pytest.fixture(scope="session")
def archive(tmp_path_factory):
    """The agent as one file, as copied to a device."""
    path = tmp_path_factory.mktemp("bundle") / "agent.pyz"
    path.write_bytes(bundle.build())
    return str(path)


def test_the_zipped_agent_is_small_and_reproducible():
    content = bundle.build()
    assert len(content) <= 150 * 1024
    assert bundle.build() == content
    assert bundle.file_name(content) == f"ofa-agent-{hashlib.sha256(content).hexdigest()[:12]}.pyz"


def test_the_zipped_agent_contains_only_its_sources():
    names = zipfile.ZipFile(io.BytesIO(bundle.build())).namelist()
    files = [path for path in PACKAGE.rglob("*") if path.suffix in (".py", ".binpb")]
    expected = {"__main__.py", *(str(path.relative_to(PACKAGE.parent)) for path in files)}
    assert set(names) == expected
    assert len(names) == len(expected)


def test_the_bundle_command_writes_it_and_a_zipped_agent_copies_itself(run_agent, tmp_path, archive):
    for python in ((sys.executable, "-m", "ofa_agent"), (sys.executable, archive)):
        done = run_agent("bundle", "--out", str(tmp_path), python=python)
        assert done.returncode == 0, done.stderr
        path = Path(done.stdout.strip())
        assert path.parent == tmp_path
        assert path.read_bytes() == Path(archive).read_bytes()
        assert os.access(path, os.X_OK)
        path.unlink()


def test_python_36_describes_its_device_from_the_zip(run_agent, python36, archive):
    done = run_agent("info", "--json", python=(python36, archive))
    assert done.returncode == 0, done.stderr
    facts = json.loads(done.stdout)
    assert facts["python"].startswith("3.6.")
    assert facts["runtimes"]["onnxruntime"] == "1.10.0"
    plain = run_agent("info", python=(python36, archive), env={"LC_ALL": "C", "LANG": "C"})
    assert plain.returncode == 0, plain.stderr
    assert "onnxruntime 1.10.0" in plain.stdout


def test_python_36_times_blocks_for_a_current_host(start_agent, python36, archive, trial_of, small_block):
    agent = start_agent(command=(python36, archive), environment={"PYTHONPATH": ""})
    model = lower("onnxruntime", small_block, 1)
    trials = [trial_of("onnxruntime", model_id=model.model_id) for _ in range(3)]
    waiting = list(trials)
    with connect(find_target(f"tcp:{agent.address}")) as connection:
        assert connection.agent.describe()["python"].startswith("3.6.")
        with connection.agent.lease(uuid.uuid4().hex, "a test") as lease:
            measurements = []
            for measurement in lease.measure(lambda: waiting.pop(0) if waiting else None, {model.model_id: model}):
                lease.acknowledge([measurement.trial_id])
                measurements.append(measurement)
    assert [measurement.trial_id for measurement in measurements] == [trial.trial_id for trial in trials]
    for measurement in measurements:
        assert measurement.status == "ok", measurement.error
        assert len(measurement.samples_ns) >= 3
        assert min(measurement.samples_ns) > 0
        assert measurement.runtime_version == "1.10.0"
    assert "Traceback" not in agent.log


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_python_36_times_blocks_inside_a_network(start_agent, python36, archive, trial_of, precision):
    agent = start_agent(command=(python36, archive), environment={"PYTHONPATH": ""})
    space = find_space("compofa-fixed-w1.0")
    architecture = space.decode(space.sample(1, np.random.default_rng(0), [128]))[0]
    network, blocks = space.network(architecture), space.network_blocks(architecture)
    model = lower("onnxruntime", network, 1, precision)
    trial = trial_of("onnxruntime", block=network, model_id=model.model_id, precision=precision)
    trial.job.parts.extend(wire.Part(key=block.key, operators=len(block.operators)) for block in blocks)
    trials = [trial]
    with connect(find_target(f"tcp:{agent.address}")) as connection:
        assert connection.agent.describe()["profiling_runtimes"] == ["onnxruntime"]
        with connection.agent.lease(uuid.uuid4().hex, "a test") as lease:
            (measurement,) = lease.measure(lambda: trials.pop() if trials else None, {model.model_id: model})
            lease.acknowledge([measurement.trial_id])
    assert measurement.status == "ok", measurement.error
    assert [part.key for part in measurement.parts] == [block.key for block in blocks]
    assert min(min(part.samples_ns) for part in measurement.parts) > 0


def test_python_36_ends_with_its_host_and_ends_its_worker(start_agent, python36, archive, living, eventual):
    agent = start_agent("--end-with-stdin", command=(python36, archive), environment={"PYTHONPATH": ""})
    eventual(lambda: agent.workers)
    agent.process.stdin.close()
    assert agent.process.wait(timeout=60) == 0
    eventual(lambda: living(agent.home) == [])


def test_python_36_generates_the_same_weights_from_a_seed(python36):
    code = (
        "import hashlib; from ofa_agent.operators import seeded; "
        "print(hashlib.sha256(seeded(98765 << 16 | 3, 10000, 0.125).tobytes()).hexdigest())"
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    digests = [
        subprocess.run([python, "-c", code], env=environment, capture_output=True, text=True, check=True).stdout
        for python in (python36, sys.executable)
    ]
    assert digests[0] == digests[1]


def test_python_36_reads_the_same_protocol(python36, trial_of):
    trial = trial_of(batch=3)
    code = (
        "import sys; from ofa_agent.protocol import messages as wire; "
        "trial = wire.Trial.FromString(sys.stdin.buffer.read()); "
        "block = wire.job_block(trial.job); wire.to_dict(trial); "
        "trial.job.CopyFrom(wire.job_message(block, trial.job.settings, trial.job.model_id)); "
        "sys.stdout.buffer.write(trial.SerializeToString())"
    )
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    done = subprocess.run(
        [python36, "-c", code], input=trial.SerializeToString(), env=environment, stdout=subprocess.PIPE, check=True
    )
    assert wire.Trial.FromString(done.stdout) == trial


@pytest.mark.parametrize("version", ["3.6", "3.7", "3.8", "3.9", "3.10", "3.12", "3.13", "3.14"])
def test_every_source_compiles_on(version, pythons, tmp_path):
    if version not in pythons:
        pytest.skip(f"no Python {version} was found")
    copy = shutil.copytree(PACKAGE, tmp_path / "ofa_agent", ignore=shutil.ignore_patterns("__pycache__"))
    sources = sorted(map(str, copy.rglob("*.py")))
    assert sources
    done = subprocess.run(
        [pythons[version], "-W", "error", "-m", "py_compile", *sources], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_nothing_in_the_agent_is_newer_than_python_36():
    vermin = shutil.which("vermin") or shutil.which("vermin", path=str(Path(sys.executable).parent))
    if vermin is None:
        pytest.skip("vermin is not installed")
    done = subprocess.run(
        [vermin, "--no-tips", "--violations", "--eval-annotations", "-t=3.6-", str(PACKAGE.parent)],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout
