"""The Pythons of this machine, for agents on devices that have others than the host."""

import shutil
import subprocess
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]

# The newest wheels that exist for Python 3.6, as JetPack 4.6 can install them.
OLD_PIP = "pip==21.3.1"
OLD_PACKAGES = (
    *("grpcio==1.48.2", "protobuf==3.19.6", "numpy==1.19.5", "onnxruntime==1.10.0"),
    *("typing-extensions==4.1.1", "six", "flatbuffers<3"),
)
IMPORTS = "import google.protobuf, grpc, numpy, onnxruntime"


@pytest.fixture(scope="session")
def pythons():
    """Interpreters on this machine that run, by version: on the PATH, and those of pyenv."""
    candidates = [shutil.which(f"python3.{minor}") for minor in range(6, 15)]
    candidates += sorted(map(str, Path.home().glob(".pyenv/versions/3.*/bin/python")))
    found = {}
    for path in filter(None, candidates):
        asked = subprocess.run(
            [path, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], capture_output=True, text=True
        )
        if asked.returncode == 0:
            found.setdefault(asked.stdout.strip(), path)
    return found


@pytest.fixture(scope="session")
def python36(pythons):
    """Python 3.6 with what the agent needs; made once, then kept under build/."""
    if "3.6" not in pythons:
        pytest.skip("no Python 3.6 was found")
    folder = REPOSITORY / "build" / "py36"
    python = folder / "bin" / "python"
    if not _complete(python):
        shutil.rmtree(folder, ignore_errors=True)
        subprocess.run([pythons["3.6"], "-m", "venv", str(folder)], check=True)
        for packages in ((OLD_PIP,), OLD_PACKAGES):
            done = subprocess.run(
                [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages],
                capture_output=True,
                text=True,
            )
            if done.returncode != 0:
                pytest.skip(f"the packages for Python 3.6 cannot be installed: {done.stderr.strip()[-300:]}")
    return str(python)


def _complete(python):
    return python.exists() and subprocess.run([python, "-c", IMPORTS], capture_output=True).returncode == 0
