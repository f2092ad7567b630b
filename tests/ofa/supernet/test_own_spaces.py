"""Supernets of space files: everything that a file can say about inverted residuals and bottlenecks is trained."""

import pytest
import torch

from ofa_agent import operators as ops
from ofa_nas.spaces import find_space
from ofa_nas.supernet import build_supernet, load_supernet, save_supernet
from ofa_tables.errors import UsageError

INVERTED = """
family = "inverted-residuals"
classes = 7
resolutions = [21, 32]
kernels = [1, 3, 9]
expands = [1, 2, 5]
depths = [2, 3]
batch_norm_epsilon = 1e-3
[first]
channels = [12, 20]
activations = ["swish", "sigmoid"]
[[stages]]
channels = 20
stride = 1
activation = "hard_sigmoid"
blocks = 1
[[stages]]
channels = 36
stride = 3
activation = "relu6"
squeeze_excite = true
[[stages]]
channels = 36
stride = 1
activation = "hard_swish"
[last]
channels = [40]
activation = "swish"
"""
BOTTLENECKS = """
family = "bottlenecks"
classes = 7
resolutions = [32, 49]
widths = [0.5, 0.75, 1.0]
expands = [0.25, 1]
more_blocks = [0, 2]
[stem]
channels = 24
middle = "{middle}"
[[stages]]
channels = 24
stride = 1
blocks = 1
[[stages]]
channels = 40
stride = 3
blocks = 2
"""
TEXTS = {
    "inverted residuals": INVERTED,
    "tied": f"expand_by_depth = {{ 1 = 1, 2 = 5, 3 = 2 }}\nkernel_by_stage = [9, 1, 3]\n{INVERTED}",
    **{f"a stem with its middle {name}": BOTTLENECKS.format(middle=name) for name in ("optional", "always", "never")},
}


@pytest.fixture(params=TEXTS)
def source(request, tmp_path):
    (tmp_path / "mine.toml").write_text(TEXTS[request.param])
    return str(tmp_path / "mine.toml")


def test_a_sub_network_is_the_network_of_its_blocks(source, make_supernet, make_architectures, make_images):
    supernet = make_supernet(source)
    for architecture in make_architectures(source, 8):
        images = make_images(architecture.resolution_px)
        network = supernet.extract(architecture)
        with torch.no_grad():
            there = supernet(images, architecture)
            assert there.shape == (4, 7)
            assert torch.equal(there, network(images))
        blocks = supernet.space.network_blocks(architecture)
        assert sum(array.size for array in network.folded()) == sum(block.parameters for block in blocks)


@pytest.mark.parametrize(
    "source", ["inverted residuals", "a stem with its middle optional", "a stem with its middle always"], indirect=True
)
def test_every_weight_is_trained(source, make_architectures, make_images):
    supernet = build_supernet(find_space(source)).train()
    for architecture in make_architectures(source, 30):
        supernet(make_images(architecture.resolution_px), architecture).square().mean().backward()
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in supernet.parameters())


def test_a_checkpoint_finds_its_space_without_the_file(source, make_supernet, make_architectures, tmp_path):
    supernet = make_supernet(source)
    save_supernet(tmp_path / "c.pth", supernet)
    (tmp_path / "mine.toml").unlink()
    loaded = load_supernet(tmp_path / "c.pth")
    assert loaded.space.name == "mine"
    px = supernet.space.resolutions_px[0]
    assert loaded.space.blocks(px) == supernet.space.blocks(px)


def test_alternatives_have_no_supernet(tmp_path):
    (tmp_path / "cells.toml").write_text(
        'family = "alternatives"\nclasses = 2\nresolutions = [8]\n'
        '[[positions]]\noperators = [{ op = "conv", channels = 8 }]'
    )
    space = find_space(str(tmp_path / "cells.toml"))
    assert isinstance(space.blocks(8)[0].operators[0], ops.Conv)
    with pytest.raises(UsageError, match="cells has no supernet, so it cannot be trained; training needs a space of"):
        build_supernet(space)
