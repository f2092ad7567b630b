"""One step of training, and what it is made of."""

import copy
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ofa_nas.spaces import Architecture, find_space
from ofa_nas.supernet import build_supernet
from ofa_nas.supernet.batch_norm import BatchNorm
from ofa_nas.training.data import Batch
from ofa_nas.training.learner import Learner, _parts
from ofa_nas.training.options import Options
from ofa_nas.training.processes import Processes

TINY = find_space("tiny")
ALONE = Processes(0, 1, torch.device("cpu"))
ARCHITECTURES = TINY.decode(TINY.sample(4, np.random.default_rng(0), [28]))
LARGEST = Architecture({"ks": (7,) * 9, "e": (4,) * 9, "d": (3,) * 3}, 28)


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def make_learner():
    def make(dropout=0.0, **options):
        torch.manual_seed(0)
        return Learner(
            build_supernet(TINY, dropout=dropout), Options("tiny", "digits", out=Path("."), **options), ALONE
        )

    return make


def batch(count=16, seed=0, px=28):
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(count, 3, px, px, generator=generator)
    return Batch(images, torch.randint(0, 10, (count,), generator=generator), ())


def weights(learner):
    return torch.cat([parameter.detach().flatten() for parameter in learner.model.parameters()])


def learn_from(learner):
    learner.learn_from(LARGEST, [(px, [batch(px=px).images]) for px in (20, 24, 28, 32)])


def step(learner, count=1, rate=0.1):
    return learner.step(batch(), ARCHITECTURES[:count], rate, (0, 0))


def test_the_loss_falls(make_learner):
    learner = make_learner()
    learner.begin()
    losses = [step(learner, 2) for _ in range(12)]
    assert losses[-1] < 0.6 * losses[0]


def test_a_loss_that_is_not_finite_updates_nothing(make_learner):
    learner = make_learner()
    learner.begin()
    before = weights(learner)
    broken = batch()._replace(images=torch.full((16, 3, 28, 28), float("nan")))
    assert not np.isfinite(learner.step(broken, ARCHITECTURES[:1], 0.1, (0, 0)))
    assert torch.equal(weights(learner), before)


def test_weights_that_no_sub_network_used_do_not_change(make_learner):
    learner = make_learner()
    learner.begin()
    smallest = Architecture({"ks": (3,) * 9, "e": (2,) * 9, "d": (1,) * 3}, 28)
    unused = learner.model.blocks[3].conv.point_linear.conv.conv.weight  # the third block of the first stage
    before = unused.detach().clone()
    learner.step(batch(), [smallest], 0.1, (0, 0))
    assert torch.equal(unused, before)
    assert unused.grad is None


def test_distillation_uses_the_teacher_and_does_not_change_it(make_learner):
    learner = make_learner()
    learner.begin()
    alone = step(learner)
    learn_from(learner)
    before = learner.teacher(batch().images).clone()
    assert step(learner) > alone + 0.5  # two losses are added
    assert torch.equal(learner.teacher(batch().images), before)


def test_the_teacher_has_separate_statistics_for_each_size(make_learner):
    learner = make_learner()
    learner.begin()
    for _ in range(5):
        step(learner)
    learn_from(learner)
    for px in (20, 32, 20):
        images = batch(px=px).images
        learner.model.train()
        with torch.no_grad():
            in_training = learner.model(images, LARGEST)
        assert torch.allclose(learner.teacher(images), in_training, atol=1e-3)


def test_the_teacher_is_restored_exactly_from_a_checkpoint(make_learner):
    one, other = make_learner(), make_learner()
    one.begin()
    learn_from(one)
    step(one)
    other.load(copy.deepcopy(one.tensors()), LARGEST)
    for px in (20, 32):
        assert torch.equal(one.teacher(batch(px=px).images), other.teacher(batch(px=px).images))


@pytest.mark.slow  # compiles
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs g++")
def test_a_compiled_teacher_gives_equal_logits_for_every_size_and_is_compiled_once(make_learner):
    graphs, before, losses = torch._dynamo.utils.counters["stats"], 0, []
    for compiled in (False, True):
        before = graphs["unique_graphs"]  # of the whole process
        learner = make_learner(compile=compiled)
        learner.begin()
        learn_from(learner)
        losses += [[learner.step(batch(px=px), ARCHITECTURES[:1], 0.1, (0, px)) for px in (24, 28, 32, 20)]]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)
    assert graphs["unique_graphs"] - before == 1


def test_the_average_of_weights(make_learner):
    learner = make_learner(ema=0.5)
    learner.begin()
    expected = weights(learner)
    for decay in (1 / 10, 2 / 11, 3 / 12, 4 / 13, 5 / 14, 6 / 15, 7 / 16, 8 / 17, 1 / 2, 1 / 2):
        step(learner)
        expected = decay * expected + (1 - decay) * weights(learner)
    learner.take_average()
    assert torch.allclose(weights(learner), expected, atol=1e-6)


def test_a_long_average_soon_follows_the_weights(make_learner):
    learner = make_learner(ema=0.9999)
    learner.begin()
    start = weights(learner)
    for _ in range(30):
        step(learner)
    learned = weights(learner)
    learner.take_average()
    assert (weights(learner) - learned).norm() < 0.3 * (learned - start).norm()


def test_the_average_of_weights_is_of_the_channels_as_they_are_sorted(make_learner):
    learner = make_learner(ema=0.9999)
    learner.begin()
    for _ in range(12):
        step(learner)
    learner.model.sort_channels((4,))
    learner.begin()
    sorted_now = weights(learner)
    learner.take_average()
    assert torch.equal(weights(learner), sorted_now)


def test_a_resumed_average_keeps_its_age(make_learner):
    one, other = make_learner(ema=0.9), make_learner(ema=0.9)
    one.begin()
    for _ in range(3):
        step(one)
    other.load(copy.deepcopy(one.tensors()), LARGEST)
    for learner in (one, other):
        step(learner)
        learner.take_average()
    assert torch.equal(weights(one), weights(other))


@pytest.mark.parametrize("precision", ["bf16"])
def test_half_precision_learns_too(make_learner, precision):
    learner = make_learner(precision=precision)
    learner.begin()
    losses = [step(learner, 2) for _ in range(12)]
    assert losses[-1] < 0.7 * losses[0]


def test_images_in_parts_have_the_gradients_of_the_whole_but_for_batch_norm(make_learner):
    """In evaluation, where an image does not depend on the others of its part."""
    found = []
    for parts in (1, 3):
        learner = make_learner(accumulate=parts)
        learner.begin()
        learner.model.eval().train = lambda: None
        losses = step(learner), step(learner)
        found.append((losses, weights(learner)))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-5)
    assert torch.allclose(found[0][1], found[1][1], atol=1e-5)


def test_a_batch_is_parted_as_evenly_as_it_can_be():
    assert [(part.start, part.stop) for part in _parts(10, 3)] == [(0, 3), (3, 6), (6, 10)]
    assert [(part.start, part.stop) for part in _parts(2, 3)] == [(0, 1), (1, 2)]


def test_the_same_seed_drops_the_same_and_another_one_does_not(make_learner):
    def losses(seed):
        learner = make_learner(dropout=0.5)
        learner.begin()
        return learner.step(batch(), ARCHITECTURES[:1], 0.1, (0, seed))

    assert losses(1) == losses(1) != losses(2)


def test_statistics_over_all_processes_are_those_of_one(make_learner):
    """In double precision: outputs, gradients and running statistics are torch's own."""
    x = torch.randn(8, 5, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) * 3 + 2
    found = []
    for moments in (None, lambda v: (*torch.var_mean(v, (0, 2, 3), correction=0)[::-1], v.numel() // v.shape[1])):
        norm = BatchNorm(7).double().train()
        norm.moments = moments
        values = x.clone().requires_grad_()
        (norm(values) ** 3).sum().backward()
        found.append((values.grad, norm.weight.grad, norm.running_mean, norm.running_var))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other)
