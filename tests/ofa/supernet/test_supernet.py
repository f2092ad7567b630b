import numpy as np
import pytest
import torch
from torch import nn

from ofa_agent import operators as ops
from ofa_nas.spaces import all_spaces, find_space
from ofa_nas.supernet import OneNetwork, build_supernet, estimated, load_network, load_supernet, save_supernet
from ofa_nas.supernet.checkpoints import save
from ofa_nas.supernet.convolutions import depthwise, pointwise
from ofa_tables.errors import FileError, UsageError

SPACES = [space.name for space in all_spaces()]


@pytest.mark.parametrize("space", SPACES)
def test_an_extracted_network_computes_exactly_the_same(make_supernet, make_architectures, make_images, space):
    supernet = make_supernet(space)
    px = supernet.space.resolutions_px[0]
    for architecture in make_architectures(space, 5):
        with torch.no_grad():
            there = supernet(make_images(px), architecture)
            assert there.std() > 1e-3
            assert torch.equal(there, supernet.extract(architecture)(make_images(px)))


@pytest.mark.parametrize("space", SPACES)
def test_an_extracted_network_consists_of_the_blocks_of_the_table(make_supernet, make_architectures, space):
    supernet = make_supernet(space)
    for architecture in make_architectures(space, 5):
        blocks = supernet.space.network_blocks(architecture)
        network = supernet.extract(architecture)
        assert convolutions_of(network) == [
            (op.in_channels, op.out_channels, op.kernel_size, op.stride, op.groups)
            for block in blocks
            for op in block.operators
            if isinstance(op, ops.Conv)
        ]
        assert sum(array.size for array in network.folded()) == sum(block.parameters for block in blocks)


def convolutions_of(network):
    found = [module for module in network.modules() if isinstance(module, nn.Conv2d)]
    return [(c.in_channels, c.out_channels, c.kernel_size[0], c.stride[0], c.groups) for c in found]


def test_the_published_checkpoint_has_475_tensors(make_supernet):
    assert len(make_supernet("ofa-mbv3-w1.0").state_dict()) == 475


def test_a_smaller_kernel_is_the_centre_of_the_larger_one_while_matrices_are_as_they_start():
    torch.manual_seed(0)
    depthwise = build_supernet(find_space("tiny")).dynamic_layers[0].depth_conv.conv
    assert torch.equal(depthwise.active(8, 3)[:, 0], depthwise.conv.weight[:8, 0, 2:5, 2:5])


@pytest.mark.parametrize("kernel_size", [3, 5, 7])
@pytest.mark.parametrize("px", [1, 3, 4, 7, 8, 11])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-9)])
def test_gradients_of_depthwise_convolutions_are_those_of_torch(make_images, kernel_size, px, stride, dtype, tolerance):
    x = make_images(px).repeat(1, 4, 1, 1).to(dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(12, 1, kernel_size, kernel_size, dtype=dtype, requires_grad=True)
    expected = nn.functional.conv2d(x, weight, None, stride, kernel_size // 2, groups=12)
    upstream = torch.randn_like(expected)
    theirs = torch.autograd.grad(expected, (x, weight), upstream)
    found = depthwise(x, weight, stride)
    assert torch.equal(found, expected)
    for own, other in zip(torch.autograd.grad(found, (x, weight), upstream), theirs, strict=True):
        assert torch.allclose(own, other, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("px", [1, 4, 40])
@pytest.mark.parametrize("biased", [True, False])
def test_pointwise_convolutions_of_many_and_of_few_pixels_are_those_of_torch(make_images, px, biased):
    x = make_images(px).repeat(1, 4, 1, 1).contiguous(memory_format=torch.channels_last).requires_grad_()
    weight = torch.randn(16, 20, 1, 1, requires_grad=True)
    part, bias = weight[:, :12], torch.randn(16) if biased else None
    expected, found = nn.functional.conv2d(x, part, bias), pointwise(x, part, bias)
    assert found.is_contiguous(memory_format=torch.channels_last)
    upstream = torch.randn_like(expected)
    theirs = torch.autograd.grad(expected, (x, weight), upstream)
    for own, other in zip(
        (found, *torch.autograd.grad(found, (x, weight), upstream)), (expected, *theirs), strict=True
    ):
        assert torch.allclose(own, other, atol=1e-4, rtol=1e-4)


def test_depthwise_convolutions_are_in_single_precision_though_others_are_in_half(make_images):
    x = make_images(8).repeat(1, 4, 1, 1)
    weight = torch.randn(12, 1, 5, 5)
    with torch.autocast("cpu", torch.bfloat16):
        found = depthwise(x, weight, 1)
    assert torch.equal(found, nn.functional.conv2d(x, weight, None, 1, 2, groups=12))


def test_sorting_channels_leaves_the_largest_network_as_it_is(make_supernet, make_architectures, make_images):
    supernet = make_supernet(seed=2)
    space = supernet.space
    largest = space.decode(largest_of(space))[0]
    smaller = make_architectures(seed=4)[0]
    with torch.no_grad():
        before, before_smaller = supernet(make_images(), largest), supernet(make_images(), smaller)
        supernet.sort_channels((4,))
        assert (supernet(make_images(), largest) - before).abs().max() < 1e-5 * before.abs().max()
        assert (supernet(make_images(), smaller) - before_smaller).abs().max() > 1e-3 * before.abs().max()
    norms = supernet.dynamic_layers[0].point_linear.conv.conv.weight.abs().sum((0, 2, 3))
    assert (norms.diff() <= 0).all()


def test_sorting_moves_no_channel_into_a_width_that_was_trained(make_supernet, make_images):
    supernet = make_supernet(seed=2)
    supernet.sort_channels((4,))
    space = supernet.space
    genes = {"ks": (7,) * 9, "e": (3,) * 9, "d": (3,) * 3}
    narrow = type(space.decode(largest_of(space))[0])(genes, 28)
    with torch.no_grad():
        for layer in supernet.dynamic_layers:  # other norms: within a width the order changes
            layer.point_linear.conv.conv.weight *= torch.rand(layer.point_linear.conv.conv.weight.shape[1])[
                :, None, None
            ]
        before = supernet(make_images(), narrow)
        supernet.sort_channels((3, 4))
        assert (supernet(make_images(), narrow) - before).abs().max() < 1e-5 * before.abs().max()


def largest_of(space):
    from ofa_nas.spaces import Population

    return Population((space.radices - 1).astype(np.uint8)[:, None])


def test_statistics_are_estimated_for_one_sub_network_and_forgotten(make_supernet, make_architectures, make_images):
    supernet = make_supernet()
    architecture = make_architectures()[0]
    images = make_images(count=64)
    state = {name: tensor.clone() for name, tensor in supernet.state_dict().items()}
    with torch.no_grad():
        before = supernet(images, architecture)
        with estimated(supernet, lambda x: supernet(x, architecture), [images]):
            inside = supernet(images, architecture)
            extracted = supernet.extract(architecture)
        supernet.train()
        as_in_training = supernet(images, architecture)
        supernet.eval()
    assert torch.equal(extracted(images), inside)
    assert torch.allclose(inside, as_in_training, atol=1e-4)
    assert not torch.allclose(inside, before, atol=1e-2)
    supernet.load_state_dict(state)
    assert torch.equal(supernet(images, architecture), before)


def test_batches_of_an_estimate_weigh_as_much_as_they_have_images(make_supernet, make_architectures, make_images):
    """Of the first layer, whose input is the same whatever the statistics are."""
    supernet, architecture = make_supernet(), make_architectures()[0]
    images = make_images(count=48)
    bn = supernet.first_conv.bn
    with estimated(supernet, lambda x: supernet(x, architecture), [images]):
        mean = bn.statistics[0]
    with estimated(supernet, lambda x: supernet(x, architecture), [images[:40], images[40:]]):
        assert torch.allclose(bn.statistics[0], mean, atol=1e-5)


def test_folding_batch_norm_changes_nothing(make_supernet, make_architectures, make_images):
    supernet = make_supernet()
    architecture = make_architectures()[1]
    network = supernet.extract(architecture)
    folded = iter(network.folded())
    x = make_images()
    conv = network.layers[0][0]
    weight, bias = torch.from_numpy(next(folded)), torch.from_numpy(next(folded))
    with torch.no_grad():
        expected = conv(x)
        assert torch.allclose(nn.functional.conv2d(x, weight, bias, 2, 1), expected, atol=1e-5)


def test_a_checkpoint_comes_back(make_supernet, make_architectures, make_images, tmp_path):
    supernet = make_supernet(classes=7)
    save_supernet(tmp_path / "c.pth", supernet)
    again = load_supernet(tmp_path / "c.pth").eval()
    architecture = make_architectures()[0]
    with torch.no_grad():
        assert torch.equal(again(make_images(), architecture), supernet(make_images(), architecture))


def test_a_checkpoint_of_another_space(make_supernet, tmp_path):
    save(tmp_path / "c.pth", {"state_dict": make_supernet("tiny").state_dict()})
    with pytest.raises(
        FileError, match=r"c\.pth is not a checkpoint of ofa-mbv3-w1\.0: \d+ of its 475 tensors are missing"
    ):
        load_supernet(tmp_path / "c.pth", find_space("ofa-mbv3-w1.0"))
    with pytest.raises(UsageError, match="does not say which space it is of; name it with --space"):
        load_supernet(tmp_path / "c.pth")


def test_a_truncated_checkpoint(make_supernet, tmp_path):
    path = tmp_path / "c.pth"
    save_supernet(path, make_supernet())
    path.write_bytes(path.read_bytes()[:-5000])
    with pytest.raises(FileError, match=r"c\.pth is not a checkpoint, or is damaged.*; copy or download it again"):
        load_supernet(path)


def test_a_checkpoint_that_would_run_code(tmp_path):
    torch.save({"state_dict": {}, "surprise": FileError}, tmp_path / "c.pth")
    with pytest.raises(
        FileError,
        match=r"holds ofa_tables\.errors\.FileError, which is neither a tensor nor a plain value; it is not opened",
    ):
        load_supernet(tmp_path / "c.pth")


def test_a_checkpoint_with_the_older_names(make_supernet, make_architectures, make_images, tmp_path):
    supernet = make_supernet()
    older = {
        name.replace(".conv.", ".mobile_inverted_conv.", 1) if name.startswith("blocks.") else name: tensor
        for name, tensor in supernet.state_dict().items()
    }
    assert any("mobile_inverted_conv" in name for name in older)
    save(tmp_path / "older.pth", {"state_dict": older})
    again = load_supernet(tmp_path / "older.pth", supernet.space).eval()
    architecture = make_architectures()[0]
    with torch.no_grad():
        assert torch.equal(again(make_images(), architecture), supernet(make_images(), architecture))


@pytest.mark.parametrize("weight", [3, torch.tensor(3.0), torch.zeros(5)])
def test_a_checkpoint_with_none_as_classifier(tmp_path, weight):
    save(tmp_path / "c.pth", {"state_dict": {"classifier.linear.weight": weight}})
    with pytest.raises(FileError, match=r"c\.pth (holds no state dict of tensors|is not a checkpoint of tiny)"):
        load_supernet(tmp_path / "c.pth", find_space("tiny"))


def test_one_network_is_restored_and_is_not_a_supernet(make_architectures, make_images, tmp_path):
    torch.manual_seed(0)
    architecture = make_architectures()[0]
    alone = OneNetwork(find_space("tiny"), architecture, 7).eval()
    save_supernet(tmp_path / "network.pth", alone, classes=list("abcdefg"))
    again = load_network(tmp_path / "network.pth").eval()
    assert (again.architecture, again.class_names) == (architecture, tuple("abcdefg"))
    with torch.no_grad():
        assert torch.equal(again(make_images(), architecture), alone(make_images(), architecture))
    with pytest.raises(UsageError, match="holds one network that was trained alone; this takes a supernet's"):
        load_supernet(tmp_path / "network.pth")


def test_widths_that_were_not_trained_keep_no_channel_where_it_is():
    """ResNet50D, whose widths become elastic together with its ratios."""
    torch.manual_seed(0)
    supernet = build_supernet(find_space("ofa-resnet50d"), classes=3)
    block = supernet.blocks[0]
    block.sort((0.35,))
    norms = block.conv3.conv.conv.weight.abs().sum((0, 2, 3))
    assert (norms.diff() <= 0).all()


def test_a_missing_checkpoint(tmp_path):
    with pytest.raises(FileError, match=r"cannot read .*none\.pth: No such file"):
        load_supernet(tmp_path / "none.pth")
