"""Every reader of files, attacked: with the files of ``named.py``, and with mutations drawn from a seed.

A reader may succeed or raise an error of this project, within a time and a memory limit (``attack.py``).
"""

import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NEEDS_TORCH = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="torch is not installed")
TIMEOUT_S = 600
MOST_MIB = 512  # with the libraries that a reader imports


def attack(folder, *words):
    """Run ``attack.py`` in a process, and return its result. A message names the call during which it stopped."""
    one_thread = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    paths = str(HERE.parent), os.environ.get("PYTHONPATH")  # for model_files.py
    command = [sys.executable, str(HERE / "attack.py"), str(folder), *map(str, words)]
    with (folder / "calls").open("w") as calls:
        done = subprocess.run(
            command,
            stdout=subprocess.PIPE,
            stderr=calls,
            text=True,
            timeout=TIMEOUT_S,
            env={**os.environ, **one_thread, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        )
    last = (folder / "calls").read_text()[-2000:]
    assert done.returncode == 0, last
    return json.loads(done.stdout.splitlines()[-1])


def names_in(file):
    """Read the names of the attacks without importing what they need."""
    return re.findall(r'^    "([\w-]+)": \(', (HERE / file).read_text(), re.MULTILINE)


def test_files_that_got_through_are_refused_and_mutated_ones_end_with_a_message(tmp_path):
    counts = ("table=8", "table-commands=1", "csv=4", "yaml=4", "architecture=60", "targets=40", "pairs=40", "npz=60")
    counts += ("space=60", "onnx=60", "tflite=60", "evaluated=40")
    result = attack(tmp_path, 1, *names_in("named.py"), *counts)
    assert result["calls"] > 200
    assert result["failures"] == []


@NEEDS_TORCH
def test_torch_files_that_got_through_are_refused_and_mutated_ones_end_with_a_message(tmp_path):
    counts = ("checkpoint=2", "initial=3", "state=20", "pth=20")
    result = attack(tmp_path, 1, *names_in("named_checkpoints.py"), *counts)
    assert result["calls"] > 60
    assert result["failures"] == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("reader", "count"),
    [
        *(("table", 1500), ("table-commands", 100), ("search", 100), ("csv", 500), ("yaml", 1000)),
        *(("architecture", 5000), ("targets", 3000), ("pairs", 3000), ("npz", 3000)),
        ("space", 3000),
        *(("onnx", 3000), ("tflite", 3000)),
    ],
)
def test_many_mutated_files_are_read_or_refused(tmp_path, reader, count):
    result = attack(tmp_path, 2, f"{reader}={count}")
    assert result["failures"] == []
    assert 0 < result["succeeded"] < count
    assert result["peak_mib"] <= MOST_MIB


@NEEDS_TORCH
@pytest.mark.slow
@pytest.mark.parametrize(("reader", "count"), [("checkpoint", 300), ("initial", 300), ("state", 1500), ("pth", 1500)])
def test_many_mutated_torch_files_are_read_or_refused(tmp_path, reader, count):
    result = attack(tmp_path, 3, f"{reader}={count}")
    assert result["failures"] == []
    assert 0 < result["succeeded"] < count
    assert result["peak_mib"] <= MOST_MIB
