"""Real runs: ofa-train in processes of its own, on scikit-learn's digits."""

import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from ofa_nas.spaces import find_space
from ofa_nas.supernet import build_supernet, load_supernet, save_supernet
from ofa_nas.training import processes
from ofa_nas.training.__main__ import command as train_command
from ofa_nas.training.options import Options
from ofa_nas.training.processes import Processes
from ofa_nas.training.state import Progress, read_state, write_state
from ofa_nas.training.trainer import Trainer
from ofa_tables.errors import EntriesMissing, FileError, OfaError, UsageError

pytest.importorskip("sklearn", reason="scikit-learn brings the digits")
pytestmark = pytest.mark.real

SMALL = ["--space", "tiny", "--data", "digits", "--batch-size", "32", "--train-images", "160", "--threads", "1"]
SHORT = [*SMALL, "--epochs-scale", "0.001", "--evaluations", "0"]
DEADLINE_S = 240
TINY = find_space("tiny")


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


def rows_of(folder):
    with (folder / "epochs.csv").open() as file:
        return list(csv.DictReader(file))


def losses(folder):
    return np.array([float(row["loss"]) for row in rows_of(folder)])


@pytest.mark.slow  # the compound recipe below learns the same digits
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


@pytest.mark.parametrize("recipe", [pytest.param("progressive", marks=pytest.mark.slow), "none"])
def test_a_killed_run_resumes_to_identical_weights(train, tmp_path, recipe):
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
    np.testing.assert_array_equal(losses(out), losses(tmp_path / "whole"))


@pytest.mark.parametrize(
    ("recipe", "stages", "rate_scale"),
    [
        ("largest", 1, 1.0),
        # Sub-networks that leave out what others use, a teacher, sorted channels. At higher rates so few steps make as
        # much of rounding alone: of one thread or two, in one process.
        pytest.param("progressive", 6, 0.1, marks=pytest.mark.slow),
    ],
)
def test_two_processes_have_the_losses_of_one(train, tmp_path, recipe, stages, rate_scale):
    arguments = [*SHORT, "--recipe", recipe, "--rate-scale", rate_scale, "--batch-norm", "shared", "--dropout", "0.1"]
    train(*arguments, out="one")
    train(*arguments, out="two", processes=2)
    one, two = losses(tmp_path / "one"), losses(tmp_path / "two")
    assert len(one) == stages
    np.testing.assert_allclose(two, one, rtol=1e-4)


def test_the_compound_recipe_from_its_images_to_its_networks(train, tmp_path):
    arguments = ["--space", "compofa-tiny", "--data", "digits", "--recipe", "compound", "--epochs-scale", "0.02"]
    arguments += ["--batch-size", "16", "--train-images", "700", "--rate-scale", "5", "--ema", "0.999"]
    done = train(*arguments, "--evaluations", "0", "--threads", "1", "--json")
    summary = json.loads(done.stdout.splitlines()[-1])
    assert (summary["epochs"], len(losses(tmp_path / "run"))) == (8, 8)
    accuracies = [each["accuracy"] for each in summary["test"]]
    assert max(accuracies) > 0.9  # a tenth by chance
    assert min(accuracies) > 0.5
    genes = [each["architecture"] for each in summary["test"]]
    assert genes[0]["d"] == [1, 1, 1]
    assert genes[-1]["d"] == [3, 3, 3]


def test_where_not_all_processes_start_the_others_end_with_an_error(monkeypatch):
    for name, value in {"RANK": 0, "WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}.items():
        monkeypatch.setenv(name, str(value))
    monkeypatch.setattr(processes, "MEETING", timedelta(seconds=2))
    with (
        pytest.raises(OfaError, match="rank 0 did not meet all of the 2 processes within 2 s"),
        processes.processes("cpu"),
    ):
        pass


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


@pytest.mark.parametrize(
    "error",
    [torch.cuda.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: can't allocate memory")],
)
def test_memory_that_does_not_suffice(tmp_path, monkeypatch, error):
    def run(trainer, resume):
        raise error

    monkeypatch.setattr(Trainer, "run", run)
    arguments = [*SMALL, "--recipe", "largest", "--out", str(tmp_path)]
    with pytest.raises(OfaError, match="the device ran out of memory: start over with --accumulate"):
        CliRunner().invoke(train_command, arguments, catch_exceptions=False, standalone_mode=False)


def test_resume_refuses_other_settings(train):
    train(*SHORT, "--recipe", "largest")
    done = train(*SHORT, "--recipe", "largest", "--batch-size", "16", "--resume", check=False)
    assert done.returncode == 2
    assert "state.pth was started with --batch-size 32; use the same values, or start over" in done.stderr
    done = train(*SHORT, "--recipe", "largest", "--ema", "0.9", "--compile", "--resume", check=False)
    assert "state.pth was started with no --ema, no --compile; use the same values" in done.stderr
    done = train(*SHORT, "--recipe", "largest", check=False)
    assert "already contains a run; resume it with --resume, or use another --out" in done.stderr


def test_where_there_is_nothing_to_go_on_with_it_begins(tmp_path, capsys):
    """A job's command is the same whether it was killed before or not."""
    options = {"epochs_scale": 0.001, "batch_size": 32, "train_images": 64, "evaluations": 0}
    make_trainer(tmp_path / "anew", "largest", **options).run(resume=False)
    make_trainer(tmp_path / "resumed", "largest", **options).run(resume=True)
    assert "resumed holds no checkpoint yet; this run begins there" in capsys.readouterr().err
    assert equal(weights(tmp_path / "anew/supernet.pth"), weights(tmp_path / "resumed/supernet.pth"))


def test_a_call_that_is_refused_makes_no_folder(train, tmp_path):
    train(*SHORT, "--recipe", "compound", "--resume", out="new/run", check=False)
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("batches", "where"),
    [(2, "epoch 1 of 6, stage 2 of 6 (elastic kernel)"), (3, "1 batch of epoch 2 of 6, stage 2 of 6 (elastic kernel)")],
)
def test_resume_prints_where_it_continues(tmp_path, capsys, batches, where):
    options = {"epochs_scale": 0.001, "batch_size": 32, "train_images": 64, "checkpoint_minutes": 1e-9}
    trainer = make_trainer(tmp_path, "progressive", **options)
    step, steps = trainer.learner.step, []

    def interrupted(*batch):
        if len(steps) == batches:
            raise InterruptedError
        steps.append(batch)
        return step(*batch)

    trainer.learner.step = interrupted
    with pytest.raises(InterruptedError):
        trainer.run(resume=False)
    capsys.readouterr()
    trainer = make_trainer(tmp_path, "progressive", **options)
    trainer._train_stage = trainer._finish = lambda *stage: None
    trainer.run(resume=True)
    assert capsys.readouterr().err == f"resuming after {where}\n"


def test_resume_accepts_the_same_kind_of_device(tmp_path):
    options = {"epochs_scale": 0.001, "batch_size": 32, "train_images": 64, "evaluations": 0}
    make_trainer(tmp_path, "largest", **options, device="auto").run(resume=False)
    make_trainer(tmp_path, "largest", **options, device="cpu").run(resume=True)
    state = torch.load(tmp_path / "state.pth", weights_only=True)
    state["settings"]["device"] = "cuda"
    torch.save(state, tmp_path / "state.pth")
    with pytest.raises(UsageError, match="was started with --device cuda; use the same values"):
        make_trainer(tmp_path, "largest", **options).run(resume=True)


def test_weights_in_place_of_a_checkpoint(tmp_path):
    save_supernet(tmp_path / "state.pth", build_supernet(TINY))
    with pytest.raises(FileError, match=r"state\.pth holds a network's weights, not a run's state: restore the"):
        read_state(tmp_path / "state.pth", {})


@pytest.mark.parametrize(
    ("value", "reported"),
    [(None, "no --a-flag"), (False, "no --a-flag"), (True, "--a-flag"), ([20, 24], "--a-flag 20,24")],
)
def test_refused_settings_are_printed_as_flags(tmp_path, value, reported):
    write_state(tmp_path / "state.pth", {"a_flag": value}, Progress(), {})
    with pytest.raises(UsageError, match=rf"was started with {reported}; use"):
        read_state(tmp_path / "state.pth", {"a_flag": "another"})


def test_a_checkpoint_without_a_part_is_reported_as_damaged(tmp_path):
    options = {"epochs_scale": 0.001, "batch_size": 32, "train_images": 64, "evaluations": 0}
    make_trainer(tmp_path, "largest", **options).run(resume=False)
    state = torch.load(tmp_path / "state.pth", weights_only=True)
    del state["progress"]
    torch.save(state, tmp_path / "state.pth")
    with pytest.raises(FileError, match=r"state\.pth is damaged: .*use another --out to start over"):
        make_trainer(tmp_path, "largest", **options).run(resume=True)


def test_a_finished_run_ends_again_with_the_same_report(tmp_path, make_table, capsys):
    """With other networks to follow, for they change no weight."""
    options = {"epochs_scale": 0.001, "batch_size": 32, "train_images": 64, "evaluations": 1}
    options |= {"table": make_table("tiny", TINY.resolutions_px), "evaluate_images": 50, "statistics_images": 50}
    make_trainer(tmp_path, "largest", **options).run(resume=False)
    reported = capsys.readouterr().err
    assert re.search(r"accuracy of the 5 followed sub-networks on held-out images: \d+\.\d% at 0\.\d{3} ms, ", reported)
    networks = json.dumps(
        [architecture.to_json() for architecture in TINY.decode(TINY.sample(2, np.random.default_rng(0)))]
    )
    make_trainer(tmp_path, "largest", **options, evaluate=networks).run(resume=True)
    assert len(losses(tmp_path)) == 1
    with (tmp_path / "evaluations.csv").open() as file:
        assert [(row["epoch"], row["stage"]) for row in csv.DictReader(file)] == [("0", "end")] * 2


def test_a_table_of_other_latencies_is_refused_and_the_same_at_another_place_is_not(tmp_path, make_table):
    options = {"epochs_scale": 0.001, "batch_size": 32, "train_images": 64, "evaluations": 0}
    one, same, other = (
        make_table("tiny", (20, 24), seed, name) for seed, name in ((0, "a.lut"), (0, "b.lut"), (1, "c.lut"))
    )
    out = tmp_path / "run"
    out.mkdir()
    with pytest.raises(InterruptedError):
        interrupted_at_its_end(make_trainer(out, "largest", table=one, **options)).run(resume=False)
    with pytest.raises(UsageError, match=r"was started with another --table \(or other contents of it\); use"):
        make_trainer(out, "largest", table=other, **options).run(resume=True)
    with pytest.raises(InterruptedError):
        interrupted_at_its_end(make_trainer(out, "largest", table=same, **options)).run(resume=True)


def interrupted_at_its_end(trainer):
    def interrupted(*images):
        raise InterruptedError

    trainer._evaluate = interrupted
    return trainer


def test_broken_images_are_counted_once_over_several_resumes(tmp_path):
    options = {"epochs_scale": 0.01, "batch_size": 32, "train_images": 64, "evaluations": 0}
    trainer = interrupted_at_its_end(make_trainer(tmp_path, "largest", **options))
    step = trainer.learner.step
    trainer.learner.step = lambda batch, *others: trainer.broken.add(["a.jpg", "b.jpg"]) or step(batch, *others)
    with pytest.raises(InterruptedError):
        trainer.run(resume=False)
    assert make_trainer(tmp_path, "largest", **options).run(resume=True).broken == 2


def test_broken_images_of_the_test_count_too(tmp_path):
    trainer = make_trainer(tmp_path, "largest", epochs_scale=0.001, batch_size=32, train_images=64, evaluations=0)
    test, whole = trainer.data.test, trainer.data.test.__getitems__
    test.__getitems__ = lambda draws: whole(draws)._replace(broken=("a.jpg",))
    assert trainer.run(resume=False).broken == 1


def test_an_epoch_that_ended_in_a_checkpoint_is_reported_with_its_last_rate(tmp_path):
    options = {"epochs_scale": 0.01, "batch_size": 32, "train_images": 64, "checkpoint_minutes": 1e-9, "evaluations": 0}
    make_trainer(tmp_path / "whole", "largest", **options).run(resume=False)
    trainer = make_trainer(tmp_path / "run", "largest", **options)
    write, written = trainer._write, []

    def interrupted():
        write()
        written.append(trainer.progress.batch)
        if written == [1, 2]:
            raise InterruptedError

    trainer._write = interrupted
    with pytest.raises(InterruptedError):
        trainer.run(resume=False)
    make_trainer(tmp_path / "run", "largest", **options).run(resume=True)
    rates = [[row["learning_rate"] for row in rows_of(tmp_path / name)] for name in ("run", "whole")]
    assert rates[0] == rates[1]


def test_images_are_counted_as_they_are_where_a_batch_wants_more(tmp_path):
    trainer = make_trainer(tmp_path, "largest", epochs_scale=0.001, batch_size=256, train_images=64, evaluations=0)
    trainer.run(resume=False)
    assert trainer.progress.images == 64


def test_sub_networks_to_follow_at_a_size_that_the_table_lacks(tmp_path, make_table):
    network = json.dumps({"ks": [3] * 9, "e": [2] * 9, "d": [1] * 3, "r": 32})
    with pytest.raises(EntriesMissing, match="at 32 px"):
        make_trainer(tmp_path, "none", table=make_table("tiny", (20, 24)), evaluate=network)


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


def test_before_the_first_checkpoint_the_message_names_none(tmp_path):
    trainer = make_trainer(tmp_path, "largest", epochs_scale=0.001, batch_size=32, train_images=64)
    trainer.learner.step = lambda *others: float("inf")
    with pytest.raises(OfaError, match="there is no checkpoint yet: start over with another --out and a smaller"):
        trainer.run(resume=False)


def test_weights_that_the_last_update_of_an_epoch_broke_do_not_replace_the_good_ones(tmp_path):
    trainer = make_trainer(tmp_path, "largest", epochs_scale=0.01, batch_size=32, train_images=64)
    steps, step = [], trainer.learner.step

    def breaking(batch, *others):
        steps.append(batch)
        loss = step(batch, *others)
        if len(steps) == 4:
            with torch.no_grad():
                trainer.learner.model.classifier.linear.bias[0] = float("inf")
        return loss

    trainer.learner.step = breaking
    with pytest.raises(OfaError, match="weights became infinite in stage 'largest network'; the last good checkpoint"):
        trainer.run(resume=False)
    kept = torch.load(tmp_path / "state.pth", weights_only=True)
    assert kept["progress"]["epoch"] == 1
    assert all(torch.isfinite(tensor).all() for tensor in kept["model"].values())


def test_the_checkpoint_is_written_before_the_evaluation(tmp_path):
    trainer = make_trainer(tmp_path, "largest", epochs_scale=0.001, batch_size=32, train_images=64, evaluations=0)

    def interrupted(*images):
        saved = load_supernet(tmp_path / "supernet.pth")
        assert (saved.class_names, saved.normalisation) == (trainer.data.classes, trainer.data.train.normalisation)
        raise InterruptedError

    trainer._evaluate = interrupted
    with pytest.raises(InterruptedError):
        trainer.run(resume=False)


def test_the_sub_network_of_a_step_does_not_depend_on_its_image_size(tmp_path):
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
    assert summary["cost"]["one_by_one_hours"] is None


def test_the_recipe_independent_wants_its_network(train):
    done = train(*SHORT, "--recipe", "independent", check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert "the recipe independent trains one network: name it with --architecture" in done.stderr


def test_evaluated_networks_are_logged_with_their_predicted_latency(train, tmp_path, make_table):
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
    assert "the smallest latency is" in done.stderr
    assert "Traceback" not in done.stderr
