"""The script that holds recipes against each other."""

import argparse
import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from ofa_nas.spaces import find_space
from ofa_nas.supernet import build_supernet, save_supernet
from ofa_nas.training import evaluation

pytest.importorskip("sklearn", reason="scikit-learn brings the digits")
SCRIPT = Path(__file__).parents[3] / "scripts" / "learning.py"
TINY = find_space("tiny")


@pytest.fixture
def learning():
    found = importlib.util.spec_from_file_location("learning", SCRIPT)
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


@pytest.fixture
def options(tmp_path):
    return argparse.Namespace(
        out=tmp_path, data="digits", train_images=100, epochs_scale=0.03, batch_size=64, rate_scale=1.0
    )


def test_a_run_with_other_settings_is_not_a_result(learning, options, tmp_path, monkeypatch):
    def trained(command, **streams):
        out = Path(command[command.index("--out") + 1])
        out.mkdir()
        (out / "summary.json").write_text(json.dumps({"images": command[command.index("--train-images") + 1]}))

    monkeypatch.setattr(learning.subprocess, "run", trained)
    training = learning.Training("none", 0, ("--recipe", "none"))
    assert learning.train(options, training) == learning.train(options, training) == {"images": "100"}
    options.train_images = 200
    with pytest.raises(
        SystemExit, match=r"none-0 was trained with other settings than .* --train-images 200 .* name anot"
    ):
        learning.train(options, training)
    (tmp_path / "none-0.json").unlink()
    options.train_images = 100
    with pytest.raises(SystemExit, match="was trained with other settings"):
        learning.train(options, training)


def test_statistics_are_of_the_images_that_the_others_learned_from(learning, options, tmp_path, monkeypatch):
    torch.manual_seed(0)
    save_supernet(tmp_path / "s.pth", build_supernet(TINY))
    seen, own = [], evaluation.statistics_batches
    monkeypatch.setattr(
        evaluation, "statistics_batches", lambda images, *others: seen.append(len(images)) or own(images, *others)
    )
    networks = TINY.decode(TINY.sample(1, np.random.default_rng(0)))
    assert len(learning.evaluated(tmp_path / "s.pth", options, networks)) == 1
    assert seen == [100]
