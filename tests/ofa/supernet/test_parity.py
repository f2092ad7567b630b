"""The published package and ours: the same weights give the same outputs, in both directions."""

import importlib
import importlib.util
import sys
import types

import pytest
import torch

from ofa_nas.supernet import Supernet, load_supernet
from ofa_nas.supernet.checkpoints import save

# What the package imports and these tests do not need.
SUPPLIED = (
    "torchvision",
    "torchvision.datasets",
    "torchvision.transforms",
    "torchvision.transforms.functional",
    "gdown",
    "tqdm",
    "PIL",
    "PIL.Image",
)


@pytest.fixture(scope="module")
def published():
    """PyPI's ``ofa``."""
    if importlib.util.find_spec("ofa") is None or importlib.util.find_spec("ofa").origin is None:
        pytest.skip("PyPI's ofa is not installed")  # this project's folder of that name is a namespace
    for name in SUPPLIED:
        try:
            importlib.import_module(name)
        except ImportError:
            module = sys.modules[name] = Anything(name)
            parent, _, child = name.rpartition(".")
            if parent:
                setattr(sys.modules[parent], child, module)
    return importlib.import_module("ofa.imagenet_classification.elastic_nn.networks")


class Anything(types.ModuleType):
    """A module that has every class."""

    __path__ = ()

    def __getattr__(self, name):
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


LISTS = {"ks_list": [3, 5, 7], "expand_ratio_list": [3, 4, 6], "depth_list": [2, 3, 4]}


def published_network(published, space):
    if space == "ofa-resnet50d":
        lists = {"depth_list": [0, 1, 2], "expand_ratio_list": [0.2, 0.25, 0.35], "width_mult_list": [0.65, 0.8, 1.0]}
        return published.OFAResNets(dropout_rate=0, **lists).eval()
    if space == "ofa-proxyless-w1.3":
        return published.OFAProxylessNASNets(width_mult=1.3, dropout_rate=0, **LISTS).eval()
    return published.OFAMobileNetV3(width_mult=float(space[-3:]), dropout_rate=0, **LISTS).eval()


@pytest.mark.parametrize("space", ["ofa-mbv3-w1.0", "ofa-mbv3-w1.2", "ofa-proxyless-w1.3", "ofa-resnet50d"])
def test_published_weights_load_and_compute_the_same(published, make_supernet, make_architectures, tmp_path, space):
    theirs = published_network(published, space)
    theirs.load_state_dict(make_supernet(space).state_dict())
    path = tmp_path / "published.pth"
    save(path, {"state_dict": theirs.state_dict()})
    ours = load_supernet(path, make_supernet(space).space).eval()
    assert_equal(ours, theirs, make_architectures(space, 20))


@pytest.mark.parametrize("space", ["ofa-mbv3-w1.0", "ofa-proxyless-w1.3", "ofa-resnet50d"])
def test_our_weights_load_there_and_compute_the_same(published, make_supernet, make_architectures, space):
    theirs, ours = published_network(published, space), make_supernet(space, seed=3)
    theirs.load_state_dict(ours.state_dict())
    assert_equal(ours, theirs, make_architectures(space, 20, seed=3))


def test_older_names_are_read(published, make_supernet, make_architectures, tmp_path):
    ours = make_supernet("ofa-mbv3-w1.2")
    older = {
        name.replace(".conv.", ".mobile_inverted_conv.", 1) if name.startswith("blocks.") else name: tensor
        for name, tensor in ours.state_dict().items()
    }
    theirs = published_network(published, "ofa-mbv3-w1.2")
    theirs.load_state_dict(older)
    path = tmp_path / "older.pth"
    save(path, {"state_dict": older})
    assert_equal(load_supernet(path, ours.space).eval(), theirs, make_architectures("ofa-mbv3-w1.2", 3))


@pytest.mark.parametrize("space", ["ofa-mbv3-w1.0", "ofa-resnet50d"])
def test_sorting_channels_agrees_where_all_are_moved(published, make_supernet, make_architectures, space):
    theirs, ours = published_network(published, space), make_supernet(space, seed=5)
    theirs.load_state_dict(ours.state_dict())
    theirs.re_organize_middle_weights()
    ours.sort_channels(())
    assert_equal(ours, theirs, make_architectures(space, 5))


@torch.no_grad()
def assert_equal(ours: Supernet, theirs, architectures):
    images = torch.randn(2, 3, 128, 128, generator=torch.Generator().manual_seed(1))
    for architecture in architectures:
        theirs.set_active_subnet(**{name: list(values) for name, values in architecture.genes.items()})
        expected = theirs(images)
        assert expected.std() > 1e-3, "outputs that are all alike show nothing"
        assert (ours(images, architecture) - expected).abs().max() <= 1e-4 * expected.abs().max()
