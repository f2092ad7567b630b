"""Runs that start from a checkpoint."""

import gzip
import json
import struct

import numpy as np
import pytest
import torch

from ofa_nas.spaces import find_space, read_architectures
from ofa_nas.supernet import OneNetwork, build_supernet, load_network, load_supernet, save_supernet
from ofa_nas.training.options import Options
from ofa_nas.training.processes import Processes
from ofa_nas.training.trainer import Trainer
from ofa_tables.errors import FileError, UsageError

pytest.importorskip("sklearn", reason="scikit-learn brings the digits")
TINY, COMPOFA = find_space("tiny"), find_space("compofa-tiny")
DIGITS = [str(digit) for digit in range(10)]
SHORT = {"epochs_scale": 0.001, "batch_size": 32, "train_images": 64, "evaluations": 0, "resolutions": (20,)}
SHORT |= {"evaluate_images": 20, "statistics_images": 20}
LETTERS = "ABCEFGHKMNPRSTUVWXYZ"


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def make_trainer(tmp_path):
    def make(recipe="largest", out="run", space="tiny", data="digits", **options):
        options = Options(space, data, recipe, tmp_path / out, **SHORT | options)
        return Trainer(options, Processes(0, 1, torch.device("cpu")))

    return make


@pytest.fixture
def make_checkpoint(tmp_path):
    """Random weights in the form of ofa-train or, without a report, in the published form."""

    def make(count=10, seed=5, space=TINY, name="init.pth", **reported):
        torch.manual_seed(seed)
        supernet = build_supernet(space, count)
        with torch.no_grad():
            for parameter in supernet.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
        path = tmp_path / name
        if reported:
            save_supernet(path, supernet, **reported)
        else:
            torch.save({"state_dict": supernet.state_dict()}, path)
        return path

    return make


@pytest.fixture
def begun():
    """The weights with which a run begins its first stage, before the first step."""

    def of(trainer, batches=0):
        step, steps = trainer.learner.step, []

        def interrupted(*given):
            if len(steps) == batches:
                raise InterruptedError
            steps.append(given)
            return step(*given)

        trainer.learner.step = interrupted
        with pytest.raises(InterruptedError):
            trainer.run(resume=False)
        return trainer.learner.model.state_dict()

    return of


def is_head(name):
    return name.startswith("classifier.")


def equal(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def body(state):
    return {name: tensor for name, tensor in state.items() if not is_head(name)}


# From published weights to own data.


def letters(count, seed):
    """Images of 8 × 8 pixels of letters, slightly moved and turned."""
    from PIL import Image, ImageDraw, ImageFont

    rng, font = np.random.default_rng(seed), ImageFont.load_default(24)
    pixels, labels = [], np.arange(count, dtype=np.uint8) % len(LETTERS)
    for label in labels:
        image = Image.new("L", (32, 32))
        centre = (16 + int(rng.integers(-2, 3)), 16 + int(rng.integers(-2, 3)))
        ImageDraw.Draw(image).text(centre, LETTERS[label], fill=255, font=font, anchor="mm")
        image = image.rotate(float(rng.uniform(-15, 15)), Image.Resampling.BILINEAR)
        pixels.append(np.asarray(image.resize((8, 8), Image.Resampling.BOX)))
    return np.array(pixels), labels


@pytest.fixture
def letters_folder(tmp_path):
    for part, count, seed in (("train", 1600, 0), ("t10k", 100, 1)):
        pixels, labels = letters(count, seed)
        head = struct.pack(">BBBBIII", 0, 0, 8, 3, *pixels.shape)
        with gzip.open(tmp_path / f"{part}-images-idx3-ubyte.gz", "wb") as file:
            file.write(head + pixels.tobytes())
        with gzip.open(tmp_path / f"{part}-labels-idx1-ubyte.gz", "wb") as file:
            file.write(struct.pack(">BBBBI", 0, 0, 8, 1, count) + labels.tobytes())
    return str(tmp_path)


def test_published_weights_are_better_after_one_epoch_than_random_ones(make_trainer, letters_folder, tmp_path, capsys):
    options = {"train_images": None, "evaluate": "largest", "statistics_images": 500}
    make_trainer(out="letters", data=letters_folder, **options | {"epochs_scale": 3 / 180}).run(resume=False)
    state = load_supernet(tmp_path / "letters" / "supernet.pth").state_dict()
    state["classifier.linear.weight"] = 0.05 * torch.randn(1000, 256, generator=torch.Generator().manual_seed(0))
    state["classifier.linear.bias"] = torch.zeros(1000)
    older = {
        name.replace(".conv.", ".mobile_inverted_conv.", 1) if name.startswith("blocks.") else name: tensor
        for name, tensor in state.items()
    }
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in older.items()}}, tmp_path / "published.pth")
    capsys.readouterr()
    accuracies = []
    options["batch_size"] = 64
    for name, init in (("scratch", None), ("init", tmp_path / "published.pth")):
        (found,) = make_trainer(out=name, init=init, **options).run(resume=False).test
        accuracies.append(found.accuracy)
    assert accuracies[1] > accuracies[0] + 0.04
    said = capsys.readouterr().err
    print(f"test accuracy after one epoch: {accuracies[0]:.1%} from scratch, {accuracies[1]:.1%} with --init")
    assert "published.pth: 229 tensors of 231" in said
    assert "the classifier is new: " in said
    assert "published.pth has 1,000 classes, and --data has 10\n" in said


# Which weights a run begins with.


def test_all_weights_are_loaded_if_the_classes_are_the_same(make_trainer, make_checkpoint, begun):
    for reported in ({}, {"classes": DIGITS}):
        path = make_checkpoint(name=f"{len(reported)}.pth", **reported)
        assert equal(begun(make_trainer(out=f"run{len(reported)}", init=path)), load_network(path, TINY).state_dict())


@pytest.mark.parametrize(
    ("classes", "reported", "said"),
    [
        (1000, {}, "init.pth has 1,000 classes, and --data has 10"),
        (3, {"classes": ["a", "b", "c"]}, "init.pth has 3 classes, and --data has 10"),
        (10, {"classes": [*DIGITS[:9], "X"]}, "init.pth has a class 'X' where --data has '9'"),
    ],
)
def test_other_classes_get_a_new_classifier(make_trainer, make_checkpoint, begun, capsys, classes, reported, said):
    path = make_checkpoint(classes, **reported)
    trainer = make_trainer(init=path)
    before = {name: tensor.clone() for name, tensor in trainer.learner.model.state_dict().items()}
    found = begun(trainer)
    assert equal(body(found), body(load_network(path, TINY).state_dict()))
    assert all(torch.equal(found[name], before[name]) for name in found if is_head(name))
    assert f"the classifier is new: {path.parent}/{said}" in capsys.readouterr().err


def test_weights_without_a_classifier(make_trainer, make_checkpoint, begun, capsys):
    path = make_checkpoint()
    torch.save(body(torch.load(path)["state_dict"]), path)
    begun(make_trainer(init=path))
    assert "init.pth has no classifier, and --data has 10" in capsys.readouterr().err


def test_weights_of_the_largest_network_alone(make_trainer, make_checkpoint, begun):
    """As published for the teacher: with the names of a network that is not elastic, and without its matrices."""
    path = make_checkpoint()
    state = torch.load(path)["state_dict"]
    plain = {
        name.replace(".bn.bn.", ".bn.").replace(".conv.conv.weight", ".conv.weight"): tensor
        for name, tensor in state.items()
        if not name.endswith("_matrix")
    }
    torch.save({"state_dict": plain}, path)
    found = begun(make_trainer(init=path))
    assert all(torch.equal(found[name], state[name]) for name in found if not name.endswith("_matrix"))
    assert torch.equal(found["blocks.1.conv.depth_conv.conv.7to5_matrix"], torch.eye(25))


def test_one_network_starts_from_a_supernet_or_from_itself(make_trainer, make_checkpoint, begun, tmp_path):
    word = "random:3"
    (architecture,), _ = read_architectures(word, TINY, [20])
    path = make_checkpoint(7)
    found = begun(make_trainer("independent", architecture=word, init=path))
    expected = load_supernet(path, TINY).extract(architecture).state_dict()
    last = list(expected)[-1].removesuffix("bias")
    assert all(torch.equal(found[f"network.{n}"], expected[n]) for n in expected if not n.startswith(last))
    alone = OneNetwork(TINY, architecture, 10)
    save_supernet(tmp_path / "network.pth", alone, classes=DIGITS)
    options = {"architecture": word, "init": tmp_path / "network.pth"}
    assert equal(begun(make_trainer("independent", "again", **options)), alone.state_dict())
    with pytest.raises(UsageError, match=r"network\.pth holds another network than --architecture"):
        make_trainer("independent", "other", **options | {"architecture": "largest"}).run(resume=False)
    with pytest.raises(UsageError, match="holds one network that was trained alone; only --recipe independent starts"):
        make_trainer("largest", "other", init=tmp_path / "network.pth").run(resume=False)


# Stages, teachers, and the order of channels.


def test_a_space_of_compofa_starts_from_a_teacher_of_ofa(make_trainer, make_checkpoint, begun, capsys):
    path = make_checkpoint()
    trainer = make_trainer("compound", space="compofa-tiny", init=path, first_stage=2)
    assert equal(begun(trainer), load_network(path, TINY).state_dict())
    assert "stage 1 of 2: all networks, low rate, 1 epoch" in capsys.readouterr().err
    images = torch.randn(4, 3, 20, 20)
    largest = trainer.plan.largest
    assert trainer.learner.teacher(images).shape == (4, 10)
    assert largest.genes["d"] == (3, 3, 3)


def test_a_new_classifier_does_not_teach_before_it_is_trained(make_trainer, make_checkpoint, capsys):
    trainer = make_trainer("progressive", init=make_checkpoint(1000), first_stage=5)
    teachers, enter = [], trainer._enter
    trainer._enter = lambda at, stage: enter(at, stage) or teachers.append(trainer.learner.teacher is not None)
    trainer.run(resume=False)
    assert teachers == [False, True]
    assert "this stage has no teacher, because the classifier is new" in capsys.readouterr().err


@pytest.mark.parametrize(("recipe", "sorts"), [("largest", True), ("progressive", False)])
def test_channels_are_sorted_only_if_no_narrow_network_was_trained(make_trainer, make_checkpoint, begun, recipe, sorts):
    path = make_checkpoint(recipe=recipe)
    found = begun(make_trainer("compound", space="compofa-tiny", init=path, first_stage=2))
    norms = found["blocks.1.conv.point_linear.conv.conv.weight"].abs().sum((0, 2, 3))
    assert bool((norms.diff() <= 0).all()) is sorts


def test_ofa_train_writes_its_recipe_into_its_checkpoints(make_trainer, tmp_path):
    make_trainer("largest").run(resume=False)
    assert torch.load(tmp_path / "run" / "supernet.pth")["recipe"] == "largest"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"first_stage": 2}, "--first-stage needs --init"),
        ({"first_stage": 7, "init": "init.pth"}, "the recipe progressive has 6 stages, so --first-stage is too large"),
    ],
)
def test_a_first_stage_that_is_none(make_trainer, options, message):
    with pytest.raises(UsageError, match=message):
        make_trainer("progressive", **options)


# Resuming.


def test_a_resumed_run_has_the_weights_of_an_uninterrupted_one(make_trainer, make_checkpoint, begun, tmp_path):
    options = {"init": make_checkpoint(1000), "first_stage": 5, "checkpoint_minutes": 1e-9}
    make_trainer("progressive", "whole", **options).run(resume=False)
    begun(make_trainer("progressive", "stopped", **options), batches=3)
    make_trainer("progressive", "stopped", **options).run(resume=True)
    whole, stopped = (load_network(tmp_path / out / "supernet.pth").state_dict() for out in ("whole", "stopped"))
    assert equal(whole, stopped)


def test_resume_refuses_another_init_and_accepts_the_same_at_another_place(
    make_trainer, make_checkpoint, begun, capsys
):
    one, other = make_checkpoint(), make_checkpoint(seed=6, name="other.pth")
    begun(make_trainer(init=one, checkpoint_minutes=1e-9), batches=1)
    for init in (other, None):
        with pytest.raises(
            UsageError, match=r"was started with another --init \(or other contents of it\); use the same"
        ):
            make_trainer(init=init).run(resume=True)
    with pytest.raises(FileError, match=r"cannot read none\.pth: No such file"):
        make_trainer(init=one.with_name("none.pth").relative_to(one.parent)).run(resume=True)
    same = one.rename(one.with_name("same.pth"))
    capsys.readouterr()
    make_trainer(init=same).run(resume=True)
    assert "starting from" not in capsys.readouterr().err


def test_resume_refuses_an_init_that_the_run_did_not_have(make_trainer, make_checkpoint, begun):
    begun(make_trainer(checkpoint_minutes=1e-9), batches=1)
    with pytest.raises(UsageError, match="was started with no --init; use the same values"):
        make_trainer(init=make_checkpoint()).run(resume=True)


# Refusals.


def test_a_checkpoint_that_is_refused_makes_no_folder(make_trainer, make_checkpoint, tmp_path):
    other = make_checkpoint(space=find_space("ofa-mbv3-w1.0"), name="other.pth")
    with pytest.raises(FileError, match=r"other\.pth is not a checkpoint of tiny: .*it fits .*ofa-mbv3-w1\.0"):
        make_trainer(init=other).run(resume=False)
    broken = make_checkpoint()
    state = torch.load(broken)["state_dict"]
    state["first_conv.bn.bias"][0] = float("nan")
    torch.save({"state_dict": state}, broken)
    with pytest.raises(FileError, match=r"first_conv\.bn\.bias has values that are not finite"):
        make_trainer(init=broken).run(resume=False)
    assert not (tmp_path / "run").exists()


def test_the_summary_names_the_checkpoint(tmp_path, make_checkpoint):
    from click.testing import CliRunner

    from ofa_nas.training.__main__ import command

    path = make_checkpoint(1000)
    arguments = ["--space", "tiny", "--recipe", "largest", "--epochs-scale", "0.001", "--train-images", "64"]
    arguments += ["--evaluations", "0", "--evaluate", "smallest", "--init", str(path), "--out", str(tmp_path / "run")]
    done = CliRunner().invoke(command, [*arguments, "--json"], catch_exceptions=False)
    assert json.loads(done.stdout.splitlines()[-1])["init"] == str(path)
