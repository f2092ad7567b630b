"""The wheel in an empty environment, beside distributions that own the bare names of our folders."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

IMPORTS = """
import tables.file, agents, ofa.imagenet_classification.elastic_nn
import ofa_agent.operators, ofa_tables.table, ofa_nas.spaces, ofa_profiler.campaign, ofa_profiler.report
import sys
assert "torch" not in sys.modules
"""


@pytest.mark.slow  # installs three large distributions
def test_it_installs_beside_pytables_openai_agents_and_the_other_ofa(tmp_path):
    pip = (sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet")
    subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", tmp_path, ROOT], check=True)
    (wheel,) = tmp_path.glob("ofa_profile-*.whl")
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    install = [python, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    others = subprocess.run([*install, "tables", "openai-agents"], capture_output=True, text=True)
    if others.returncode:
        pytest.skip(f"the other distributions cannot be had here: {others.stderr.strip().splitlines()[-1]}")
    # Its one dependency, torch, is gigabytes that its folders do not need to be imported.
    subprocess.run([*install, "--no-deps", "ofa"], check=True)
    subprocess.run([*install, "--constraint", ROOT / "constraints.txt", wheel], check=True)
    subprocess.run([python, "-c", IMPORTS], check=True, cwd=tmp_path)
    info = subprocess.run([tmp_path / "venv" / "bin" / "ofa-agent", "info"], capture_output=True, text=True, check=True)
    assert "onnxruntime" in info.stdout
