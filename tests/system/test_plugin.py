"""Install the example plug-in, and use its runtime and its space with the commands."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ofa_agent import runtimes
from ofa_agent.protocol import messages as wire
from ofa_nas.spaces import find_space
from ofa_profiler.lowering import lower

PLUGIN = Path(__file__).parents[2] / "examples" / "plugin"
SPACE = "example-small"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """The folder that pip installed the plug-in into, for a PYTHONPATH."""
    folder = tmp_path_factory.mktemp("plugin")
    source = shutil.copytree(PLUGIN, folder / "source", ignore=shutil.ignore_patterns("__pycache__"))
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-index"]
    subprocess.run([*pip, "--no-deps", "--no-build-isolation", "--target", folder / "site", source], check=True)
    return folder / "site"


@pytest.fixture
def plugged(ofa, installed):
    """Commands of an environment with the plug-in."""
    ofa.environment["PYTHONPATH"] = os.pathsep.join([str(installed), ofa.environment["PYTHONPATH"]])
    return ofa


@pytest.mark.real
def test_the_example_plugin_is_profiled_searched_and_compared(plugged):
    assert plugged("ofa-agent", "info", "--json").json["runtimes"]["numpy"] == np.__version__
    words = ("--target", "local", "--runtime", "numpy", "--space", SPACE, "--resolutions", "24", "--effort", "quick")
    profiled = plugged("ofa-profile", *words, "--out", "small.lut", "--json")
    assert profiled.code == 0, profiled.err
    assert profiled.json["measured"] == profiled.json["entries"] > 0
    shown = plugged("ofa-table", "show", "small.lut", "--json").json
    assert (shown["runtime"], shown["runtime_version"], shown["blocks"]) == ("numpy", np.__version__, "in-networks")
    reach = next(reach for reach in shown["spaces"] if reach["space"] == SPACE)
    limit_ms = (reach["smallest_ms"] + reach["largest_ms"]) / 2
    found = plugged("ofa-search", "--table", "small.lut", "--space", SPACE, "--max-latency-ms", limit_ms, "--json")
    assert found.code == 0, found.err
    assert found.json["predicted_latency_ms"] <= limit_ms
    assert plugged("ofa-search", "--table", "small.lut", "--space", "example", "--max-latency-ms", 1).fails(2, SPACE)


def test_a_plugin_is_missing_until_it_is_installed(ofa):
    words = ("--target", "local", "--resolutions", "128")
    assert ofa("ofa-profile", *words, "--space", SPACE).fails(2, f"no space named '{SPACE}'")
    assert ofa("ofa-profile", *words, "--runtime", "numpy").fails(2, "no runtime named 'numpy'")


def test_a_broken_plugin_is_named(ofa, tmp_path):
    facts = tmp_path / "broken" / "broken-1.0.dist-info"
    facts.mkdir(parents=True)
    (facts / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1.0\n")
    (facts / "entry_points.txt").write_text("[ofa_nas.spaces]\nodd = no_such_module:SPACE\n")
    ofa.environment["PYTHONPATH"] = str(facts.parent)
    words = ("--target", "xilinx-zu9eg", "--space")
    message = "the plug-in odd of broken does not load: No module named 'no_such_module'; update or uninstall it"
    assert ofa("ofa-profile", *words, "odd").fails(1, message)
    assert ofa("ofa-profile", *words, "tiny", "--out", "t.lut").code == 0
    assert ofa("ofa-table", "show", "t.lut").fails(1, message)


def test_the_outputs_of_the_example_runtime_equal_those_of_onnxruntime(installed, every_kind, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(installed)
    space = find_space(SPACE)
    for block in (*space.blocks(24)[:12:3], *space.blocks(24)[-4:], every_kind):
        outputs = [_output(block, runtime, tmp_path) for runtime in ("onnxruntime", "numpy")]
        assert np.abs(outputs[0] - outputs[1]).max() <= 1e-4 * np.abs(outputs[0]).max()


def _output(block, runtime, folder):
    """Run a block as the agent does."""
    model = lower(runtime, block, 2)
    path = folder / "model"
    path.write_bytes(wire.model_bytes(model.chunks))
    settings = wire.Settings(runtime=runtime, precision="fp32", threads=1, batch=2)
    loaded = runtimes.find(runtime).load(block, wire.job_message(block, settings, model.model_id), str(path))
    loaded.run()
    return np.array(loaded.output())
