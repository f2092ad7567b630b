"""The encoders, with 128 published inputs or all resolutions, agree with a literal loop over their description."""

import numpy as np
import pytest

from ofa_nas.accuracy.encoding import PUBLISHED_PX, Encoder, find_encoder
from ofa_nas.spaces import find_space
from ofa_tables.errors import FileError

KERNELS, EXPANDS, DEPTH = (3, 5, 7), (3, 4, 6), 4
ALL_PX = tuple(range(128, 225, 4))
SPACES = ["ofa-mbv3-w1.0", "ofa-mbv3-w1.2", "compofa-fixed-w1.0", "compofa-elastic-w1.0"]


def naive(architecture, known_px):
    inputs = np.zeros(120 + len(known_px), dtype=np.float32)
    for block in range(20):
        if block % DEPTH < architecture.genes["d"][block // DEPTH]:
            inputs[3 * block + KERNELS.index(architecture.genes["ks"][block])] = 1
            inputs[60 + 3 * block + EXPANDS.index(architecture.genes["e"][block])] = 1
    inputs[120 + known_px.index(architecture.resolution_px)] = 1
    return inputs


@pytest.mark.parametrize("name", SPACES)
@pytest.mark.parametrize(("size", "known_px"), [(128, PUBLISHED_PX), (145, ALL_PX)])
def test_inputs_match_the_encoding_of_their_size(name, size, known_px):
    space = find_space(name)
    encoder = find_encoder(space, size, "m.npz")
    population = space.sample(200, np.random.default_rng(0), encoder.resolutions_px)
    inputs = encoder(population)
    assert inputs.dtype == np.float32
    assert (inputs == [naive(architecture, known_px) for architecture in space.decode(population)]).all()


def test_a_size_without_an_encoding_is_reported():
    with pytest.raises(FileError, match=r"m.npz has 99 inputs, but .* 128 \(8 resolutions\) or 145 \(25 resolutions\)"):
        find_encoder(find_space("ofa-mbv3-w1.0"), 99, "m.npz")


def test_genes_of_absent_blocks_do_not_change_the_inputs():
    space = find_space("ofa-mbv3-w1.0")
    population = space.sample(200, np.random.default_rng(0), [160])
    encoder = Encoder(space, ALL_PX)
    assert (encoder(population) == encoder(space.canonical(population))).all()


def test_an_encoder_supports_the_resolutions_of_its_grid():
    space = find_space("ofa-mbv3-w1.0")
    assert Encoder(space, PUBLISHED_PX).resolutions_px == (128, 144, 160, 176, 192, 208, 224)
    assert Encoder(space, ALL_PX).resolutions_px == ALL_PX
