"""Small and large Populations have the same entries and sums."""

import numpy as np
import pytest

from ofa_nas.spaces import ABSENT, Population, find_space

SPACES = ["ofa-mbv3-w1.0", "compofa-fixed-w1.0", "compofa-elastic-w1.0"]


@pytest.mark.parametrize("name", SPACES)
def test_a_sum_does_not_depend_on_the_population_size(name):
    space = find_space(name)
    figures = space.figures(lambda block: block.macs / 3e6)
    pricer = space.pricer(figures)
    many = space.sample(2 * pricer.small, np.random.default_rng(0))
    alone = [pricer(many[[at]])[0] for at in range(50)]
    assert (pricer(many)[:50] == alone).all()


@pytest.mark.parametrize("name", SPACES)
def test_entries_match_the_blocks_of_the_network(name):
    space = find_space(name)
    population = space.sample(20, np.random.default_rng(1))
    for at, architecture in enumerate(space.decode(population)):
        blocks = space.blocks(architecture.resolution_px)
        entries = space.entry_indices(population)[:, at]
        assert [blocks[entry] for entry in entries if entry != ABSENT] == space.network_blocks(architecture)


@pytest.mark.parametrize("name", SPACES)
def test_equal_networks_have_equal_canonical_genes(name):
    space = find_space(name)
    population = space.sample(200, np.random.default_rng(2))
    canonical = space.canonical(population)
    assert (space.entry_indices(canonical) == space.entry_indices(population)).all()
    again = space.encode(space.decode(population))
    assert (again.genes == canonical.genes).all()


@pytest.mark.parametrize("name", [*SPACES, "ofa-proxyless-w1.3", "ofa-resnet50d", "tiny"])
def test_digests_are_equal_only_for_equal_networks(name):
    space = find_space(name)
    population = space.sample_spread(3000, np.random.default_rng(3))
    neighbours = population.genes.copy()  # each differs in one gene, which may be unused
    rows = np.random.default_rng(4).integers(len(space.radices), size=len(population))
    columns = np.arange(len(population))
    neighbours[rows, columns] = (neighbours[rows, columns] + 1) % space.radices[rows]
    both = Population(np.concatenate([population.genes, neighbours], axis=1))
    by_digest, by_genes = (
        np.unique(each, axis=-1, return_inverse=True)[1] for each in (space.digests(both), space.canonical(both).genes)
    )
    assert len(set(by_genes)) < len(both), "some are equal"
    assert len(set(zip(by_digest, by_genes, strict=True))) == len(set(by_digest)) == len(set(by_genes))


def test_an_empty_population_has_no_sums():
    space = find_space("ofa-mbv3-w1.0")
    assert space.macs(Population(np.empty((len(space.radices), 0), dtype=np.uint8))).shape == (0,)
