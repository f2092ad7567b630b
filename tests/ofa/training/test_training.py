"""Real runs: ofa-train in processes of its own, on scikit-learn's digits."""

import csv
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from ofa_nas.training.options import Options
from ofa_nas.training.processes import Processes
from ofa_nas.training.trainer import Trainer
from ofa_tables.errors import OfaError

pytest.importorskip("sklearn", reason="scikit-learn brings the digits")
pytestmark = pytest.mark.real

SMALL = ["--space", "tiny", "--data", "digits", "--batch-size", "32", "--train-images", "160", "--threads", "1"]
SHORT = [*SMALL, "--epochs-scale", "0.001", "--evaluations", "0"]
DEADLINE_S = 240


@pytest.fixture
def train(tmp_path):
    def run(*arguments, out="run", processes=1, check=True):
        done = subprocess.run(
            [*command(processes), *map(str, arguments), "--out", str(tmp_path / out)],
            capture_output=True,
            text=True,
            timeout=DEADLINE_S,
            env=environment(),
        )
        assert not check or done.returncode == 0, done.stderr
        return done

    return run


def command(processes):
    if processes == 1:
        return [sys.executable, "-m", "ofa_nas.training"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    return [*launch, "-m", "ofa_nas.training"]


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)}


def make_trainer(out, recipe, **options):
    options = Options("tiny", "digits", recipe, out, **options)
    return Trainer(options, Processes(0, 1, torch.device("cpu")))


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def losses(folder):
    with (folder / "epochs.csv").open() as file:
        return np.array([float(row["loss"]) for row in csv.DictReader(file)])


def test_a_supernet_learns_digits(train, tmp_path):
    arguments = ["--space", "tiny", "--data", "digits", "--recipe", "progressive", "--epochs-scale", "0.02"]
    done = train(
        *arguments, "--batch-size", "16", "--train-images", "700", "--evaluations", "1", "--threads", "1", "--json"
    )
    summary = json.loads(done.stdout.splitlines()[-1])
    assert max(each["accuracy"] for each in summary["test"]) > 0.9  # a tenth by chance
    assert min(each["accuracy"] for each in summary["test"]) > 0.5
    assert summary["cost"]["device_hours"] > 0
    assert (tmp_path / "run" / "evaluations.csv").exists()


@pytest.mark.parametrize("recipe", ["progressive", "none"])
def test_a_run_that_was_killed_goes_on_to_the_very_same_weights(train, tmp_path, recipe):
    arguments = [*SHORT, "--recipe", recipe, "--checkpoint-minutes", "0.0001", "--ema", "0.9"]
    train(*arguments, out="whole")
    out = tmp_path / "killed"
    process = subprocess.Popen(
        [*command(1), *arguments, "--out", str(out)], env=environment(), stderr=subprocess.DEVNULL
    )
    deadline = time.monotonic() + DEADLINE_S
    while not (out / "epochs.csv").exists() or len(losses(out)) < 3:
        assert process.poll() is None, "it ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "supernet.pth").exists()
    train(*arguments, "--resume", out="killed")
    assert equal(weights(out / "supernet.pth"), weights(tmp_path / "whole" / "supernet.pth"))
    assert len(losses(out)) >= len(losses(tmp_path / "whole"))


def test_two_processes_have_the_losses_of_one(train, tmp_path):
    arguments = [*SHORT, "--recipe", "largest", "--batch-norm", "shared", "--dropout", "0.1"]
    train(*arguments, out="one")
    train(*arguments, out="two", processes=2)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == 1
    np.testing.assert_allclose(two, one, rtol=1e-4)


@pytest.mark.parametrize("victim", [0, 1])
def test_where_one_process_dies_the_other_ends_with_an_error(tmp_path, victim):
    """Each started by hand, as on two machines: nobody else ends the other one."""
    arguments = [*SMALL, "--recipe", "largest", "--epochs-scale", "1", "--out", str(tmp_path / "run")]
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    ranks = [
        subprocess.Popen(
            [*command(1), *arguments],
            env=environment() | meeting | {"RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not (tmp_path / "run" / "state.pth").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        ranks[victim].kill()
        _, errors = ranks[1 - victim].communicate(timeout=60)
        assert ranks[1 - victim].returncode == 1
        assert f"rank {1 - victim} lost another process" in errors
        assert "Traceback" not in errors
    finally:
        for process in ranks:
            process.kill()


def test_torchrun_ends_with_an_error_too(tmp_path):
    arguments = [*SMALL, "--recipe", "largest", "--epochs-scale", "1", "--out", str(tmp_path / "run")]
    process = subprocess.Popen([*command(2), *arguments], env=environment(), stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + DEADLINE_S
        while not (tmp_path / "run" / "state.pth").exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
        os.kill(children(process.pid)[-1], signal.SIGKILL)
        assert process.wait(timeout=60) != 0
    finally:
        process.terminate()


def free_port():
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def children(pid):
    """Those that train."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            trains = b"ofa_nas.training" in (folder / "cmdline").read_bytes()
        except OSError:  # it has ended
            continue
        found += [int(folder.name)] if parent == pid and trains else []
    return sorted(found)


def test_other_settings_are_refused_when_it_goes_on(train):
    train(*SHORT, "--recipe", "largest")
    done = train(*SHORT, "--recipe", "largest", "--batch-size", "16", "--resume", check=False)
    assert done.returncode == 2
    assert "state.pth was begun with --batch-size 32; go on with the same, or begin anew" in done.stderr
    done = train(*SHORT, "--recipe", "largest", check=False)
    assert "holds a run already; go on with it by --resume, or name another --out" in done.stderr


def test_a_loss_that_is_not_finite_ends_the_run_and_keeps_the_last_good_checkpoint(tmp_path):
    trainer = make_trainer(tmp_path, "largest", epochs_scale=0.01, batch_size=32, train_images=64)
    steps, step = [], trainer.learner.step

    def poisoned(batch, *others):
        steps.append(batch)
        broken = batch._replace(images=batch.images * float("nan")) if len(steps) == 4 else batch
        return step(broken, *others)

    trainer.learner.step = poisoned
    with pytest.raises(
        OfaError, match=r"the loss became nan in step 3 of stage 'largest network', at a learning rate of"
    ):
        trainer.run(resume=False)
    kept = torch.load(tmp_path / "state.pth", weights_only=True)
    assert kept["progress"]["epoch"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in kept["model"].values())
    assert all(torch.isfinite(tensor).all() for tensor in trainer.learner.model.parameters())


def test_what_a_step_trains_does_not_follow_from_the_size_of_its_images(tmp_path):
    """Of three kernels and four sizes each goes with each."""
    trainer = make_trainer(tmp_path, "none", batch_size=16, evaluations=0)
    drawn = []

    def recorded(batch, chosen, *others):
        drawn.append((batch.images.shape[-1], chosen[0].genes["ks"][0]))
        if len(drawn) == 80:
            raise InterruptedError
        return 1.0

    trainer.learner.step = recorded
    with pytest.raises(InterruptedError):
        trainer.run(resume=False)
    assert len(set(drawn)) == 12


def test_one_network_alone_at_its_own_resolution(train, tmp_path):
    architecture = {"ks": [3] * 9, "e": [2] * 9, "d": [1] * 3, "r": 24}
    done = train(*SHORT, "--recipe", "independent", "--architecture", json.dumps(architecture), "--json")
    summary = json.loads(done.stdout.splitlines()[-1])
    assert [each["architecture"] for each in summary["test"]] == [architecture]
    assert summary["checkpoint"].endswith("network.pth")


def test_the_recipe_independent_wants_its_network(train):
    done = train(*SHORT, "--recipe", "independent", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "the recipe independent trains one network: name it with --architecture" in done.stderr


def test_what_is_evaluated_is_logged_with_its_predicted_latency(train, tmp_path, make_table):
    table = make_table("tiny", (20, 24, 28, 32))
    train(*SMALL, "--epochs-scale", "0.001", "--recipe", "none", "--evaluations", "2", "--table", table)
    with (tmp_path / "run" / "evaluations.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len({row["epoch"] for row in rows}) == 3 - 1
    latencies = [float(row["predicted_ms"]) for row in rows[:5]]
    assert latencies == sorted(latencies)
    assert latencies[-1] > 2 * latencies[0]
    assert (tmp_path / "run" / "accuracy-latency.png").stat().st_size > 5000


def test_a_limit_without_a_table(train):
    done = train(*SHORT, "--max-latency-ms", "1", check=False)
    assert done.returncode == 2
    assert "--max-latency-ms needs the --table that predicts latencies" in done.stderr


def test_an_impossible_limit(train, make_table):
    done = train(*SHORT, "--table", make_table("tiny", (20, 24)), "--max-latency-ms", "0.0001", check=False)
    assert done.returncode == 1
    assert "the smallest latency there is" in done.stderr
    assert "Traceback" not in done.stderr


def test_images_in_parts_have_the_gradients_of_the_whole_but_for_batch_norm(tmp_path):
    """With statistics of their own; so the loss differs a little and stays near."""
    from ofa_nas.training.learner import _parts

    assert [(part.start, part.stop) for part in _parts(10, 3)] == [(0, 3), (3, 6), (6, 10)]
    assert [(part.start, part.stop) for part in _parts(2, 3)] == [(0, 1), (1, 2)]
