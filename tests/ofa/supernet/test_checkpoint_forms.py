"""Checkpoints as other programs write them."""

import argparse
import os
import pathlib

import numpy as np
import pytest
import torch

from ofa_nas.spaces import find_space
from ofa_nas.supernet import load_supernet
from ofa_tables.errors import FileError, UsageError

TINY = find_space("tiny")


@pytest.fixture
def assert_same(make_supernet, make_architectures, make_images, tmp_path):
    """Write a value as a checkpoint and check that it loads as the supernet of ``make_supernet``."""

    def check(value):
        torch.save(value, tmp_path / "c.pth")
        found = load_supernet(tmp_path / "c.pth", TINY).eval()
        architecture = make_architectures()[0]
        with torch.no_grad():
            assert torch.equal(found(make_images(), architecture), make_supernet()(make_images(), architecture))

    return check


def state_dict(make_supernet, prefix="", **others):
    return {f"{prefix}{name}": tensor for name, tensor in make_supernet().state_dict().items()} | others


@pytest.mark.parametrize(
    "prefix",
    ["module.", "module.module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module.", "model.", "net.module."],
)
def test_names_with_a_wrapper_in_front(make_supernet, assert_same, prefix):
    assert_same({"state_dict": state_dict(make_supernet, prefix)})


def test_names_with_a_wrapper_around_a_part(make_supernet, assert_same):
    state = state_dict(make_supernet)
    state = {name.replace("blocks.3.", "blocks.3._orig_mod."): tensor for name, tensor in state.items()}
    assert_same({"state_dict": {name.replace("classifier", "classifier.module"): t for name, t in state.items()}})


@pytest.mark.parametrize(
    "path",
    [
        (),
        ("state_dict",),
        ("state_dict_ema",),
        ("model",),
        ("net",),
        ("ema",),
        ("model", "state_dict"),
        ("ema", "module"),
        ("checkpoint", "model", "state_dict"),
    ],
)
def test_a_state_dict_in_other_dicts(make_supernet, assert_same, path):
    value = state_dict(make_supernet)
    for name in reversed(path):
        value = {name: value, "epoch": 3}
    assert_same(value)


def test_the_weights_count_and_not_their_average(make_supernet, assert_same):
    average = {name: tensor + 1 for name, tensor in state_dict(make_supernet).items()}
    assert_same({"state_dict_ema": average, "state_dict": state_dict(make_supernet)})
    assert_same({"state_dict": {f"ema_model.{name}": t for name, t in average.items()} | state_dict(make_supernet)})


def test_plain_values_of_other_programs_beside_the_weights(make_supernet, assert_same):
    assert_same(
        {
            "state_dict": state_dict(make_supernet),
            "best_acc": np.float64(0.76),
            "best_epoch": np.int64(3),
            "improved": np.bool_(True),
            "per_class": np.arange(10.0),
            "args": argparse.Namespace(lr=0.1, out=pathlib.Path("run")),
        }
    )


def test_numpy_scalars_of_numpy_1(make_supernet, assert_same, tmp_path, monkeypatch):
    """numpy 1 names the function in another module."""
    scalar = np.float64(0.5).__reduce__()[0]
    monkeypatch.setattr(scalar, "__module__", "numpy.core.multiarray", raising=False)
    assert_same({"state_dict": state_dict(make_supernet), "best_acc": np.float64(0.5)})


@pytest.mark.parametrize(
    "name", ["total_ops", "blocks.1.total_params", "n_averaged", "blocks.0.conv.more.num_batches_tracked"]
)
def test_counters_of_tools_are_ignored(make_supernet, assert_same, name):
    assert_same({"state_dict": state_dict(make_supernet, **{name: torch.zeros(1)})})


def test_counters_of_batches_may_be_missing(make_supernet, assert_same):
    state = state_dict(make_supernet)
    assert_same({"state_dict": {n: tensor for n, tensor in state.items() if not n.endswith("num_batches_tracked")}})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_named(make_supernet, tmp_path, value):
    state = state_dict(make_supernet, "module.")
    state["module.blocks.2.conv.point_linear.bn.bn.running_var"][1] = value
    torch.save({"state_dict": state}, tmp_path / "c.pth")
    with pytest.raises(FileError, match=r"blocks\.2\.conv\.point_linear\.bn\.bn\.running_var has values that are not"):
        load_supernet(tmp_path / "c.pth", TINY)


def test_another_space_is_named_if_the_weights_fit_it(make_supernet, tmp_path):
    torch.save(state_dict(make_supernet), tmp_path / "c.pth")
    with pytest.raises(FileError, match=r"it fits .*compofa-tiny.* or tiny: name that with --space"):
        load_supernet(tmp_path / "c.pth", find_space("ofa-mbv3-w1.0"))
    with pytest.raises(UsageError, match=r"name it with --space \(its tensors fit compofa-tiny or tiny\)"):
        load_supernet(tmp_path / "c.pth")


def test_no_space_is_advised_if_the_weights_fit_none(tmp_path):
    torch.save(torch.nn.Linear(2, 2).state_dict(), tmp_path / "c.pth")
    with pytest.raises(FileError, match=r"2 are not its own \(e\.g\. bias\); its 2 tensors fit no space") as found:
        load_supernet(tmp_path / "c.pth", TINY)
    assert "--space" not in str(found.value)


def test_one_tensor_of_another_shape_is_named(make_supernet, tmp_path):
    torch.save(state_dict(make_supernet, **{"first_conv.bn.weight": torch.ones(3)}), tmp_path / "c.pth")
    with pytest.raises(FileError, match=r"tiny: 1 has another shape or type \(e\.g\. first_conv\.bn\.weight\);"):
        load_supernet(tmp_path / "c.pth", TINY)


class Runs:
    def __init__(self, function, *arguments):
        self.called = function, arguments

    def __reduce__(self):
        return self.called


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (Runs(os.system, "touch hacked"), "system"),
        (Runs(eval, "open('hacked', 'w')"), "eval"),
        (Runs(np.load, "c.npy"), r"numpy\.load"),
        (torch.nn.Linear(2, 2), r"torch\.nn\.modules\.linear\.Linear"),
        (Runs, "Runs"),
    ],
)
def test_other_types_are_refused_by_name_and_nothing_runs(make_supernet, tmp_path, monkeypatch, value, named):
    monkeypatch.chdir(tmp_path)
    torch.save({"state_dict": state_dict(make_supernet), "extra": value}, "c.pth")
    with pytest.raises(
        FileError, match=rf"c\.pth holds \S*{named}, which is neither a tensor nor a plain value; it is"
    ):
        load_supernet(pathlib.Path("c.pth"), TINY)
    assert not pathlib.Path("hacked").exists()


def test_types_allowed_in_checkpoints_are_not_allowed_elsewhere(tmp_path, make_supernet, assert_same):
    assert_same({"state_dict": state_dict(make_supernet), "args": argparse.Namespace(lr=0.1)})
    torch.save({"args": argparse.Namespace(lr=0.1)}, tmp_path / "other.pth")
    with pytest.raises(Exception, match="weights_only"):
        torch.load(tmp_path / "other.pth", weights_only=True)


@pytest.mark.parametrize("value", [torch.ones(3), {"mean": torch.ones(2), "std": 1}, {"mean": ["x"] * 3, "std": []}])
def test_a_normalisation_in_another_form_is_ignored(make_supernet, tmp_path, value):
    torch.save({"state_dict": state_dict(make_supernet), "normalisation": value}, tmp_path / "c.pth")
    assert load_supernet(tmp_path / "c.pth", TINY).normalisation is None
