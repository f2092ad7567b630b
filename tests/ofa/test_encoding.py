"""The published 128 inputs, against a loop that follows their description word by word."""

import numpy as np
import pytest

from ofa_nas.accuracy.encoding import Encoder
from ofa_nas.spaces import find_space

KERNELS, EXPANDS, DEPTH = (3, 5, 7), (3, 4, 6), 4


def naive(architecture):
    inputs = np.zeros(128, dtype=np.float32)
    for block in range(20):
        if block % DEPTH < architecture.genes["d"][block // DEPTH]:
            inputs[3 * block + KERNELS.index(architecture.genes["ks"][block])] = 1
            inputs[60 + 3 * block + EXPANDS.index(architecture.genes["e"][block])] = 1
    inputs[120 + (architecture.resolution_px - 112) // 16] = 1
    return inputs


@pytest.mark.parametrize("name", ["ofa-mbv3-w1.0", "ofa-mbv3-w1.2", "compofa-fixed-w1.0", "compofa-elastic-w1.0"])
def test_inputs_are_the_published_ones(name):
    space = find_space(name)
    population = space.sample(200, np.random.default_rng(0), range(128, 225, 16))
    inputs = Encoder(space)(population)
    assert inputs.dtype == np.float32
    assert (inputs == [naive(architecture) for architecture in space.decode(population)]).all()


def test_genes_of_absent_blocks_change_nothing():
    space = find_space("ofa-mbv3-w1.0")
    population = space.sample(200, np.random.default_rng(0), [160])
    assert (Encoder(space)(population) == Encoder(space)(space.canonical(population))).all()


def test_it_knows_the_resolutions_of_its_grid():
    assert Encoder(find_space("ofa-mbv3-w1.0")).resolutions_px == (128, 144, 160, 176, 192, 208, 224)
