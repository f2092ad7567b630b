import numpy as np
import pytest

from ofa_nas.errors import LimitUnreachable
from ofa_nas.spaces import find_space
from ofa_nas.training.options import Options
from ofa_nas.training.plan import Plan
from ofa_nas.training.recipes import stages_of
from ofa_nas.training.sampling import Choices, EvenlyOverLatency, Uniform, unused_choices
from ofa_tables.model.latency_model import LatencyModel
from ofa_tables.table import LatencyTable

TINY = find_space("tiny")
PROGRESSIVE = stages_of("progressive", TINY, 1)


@pytest.fixture
def latency(make_latency):
    return make_latency("tiny", TINY.resolutions_px)


def draw(sampler, count, px=28, seed=0):
    return sampler.draw(count, px, np.random.default_rng(seed))


def values(architectures, gene):
    return {value for architecture in architectures for value in architecture.genes[gene]}


@pytest.mark.parametrize(
    ("stage", "kernels", "depths", "expands"),
    [(0, {7}, {3}, {4}), (1, {3, 5, 7}, {3}, {4}), (2, {3, 5, 7}, {2, 3}, {4}), (4, {3, 5, 7}, {1, 2, 3}, {3, 4})],
)
def test_a_stage_draws_its_choices_alone(stage, kernels, depths, expands):
    drawn = draw(Uniform(Choices.of_stage(TINY, PROGRESSIVE[stage])), 200)
    of_present = [(kernel, expand) for each in drawn for _, kernel, expand in TINY.chosen_blocks(each)]
    assert {kernel for kernel, _ in of_present} == kernels
    assert {expand for _, expand in of_present} == expands
    assert values(drawn, "d") == depths
    assert {each.resolution_px for each in drawn} == {28}


def test_the_same_seed_draws_the_same(latency):
    for sampler in (Uniform(all_choices()), EvenlyOverLatency(all_choices(), latency, np.inf, (0,))):
        assert draw(sampler, 20, seed=3) == draw(sampler, 20, seed=3) != draw(sampler, 20, seed=4)


def all_choices():
    return Choices.of_stage(TINY, PROGRESSIVE[-1])


def test_latencies_are_even_with_a_table_and_are_not_without(latency):
    def shares(sampler):
        found = latency.predict(TINY.encode(draw(sampler, 3000)))
        pool_ms = EvenlyOverLatency(all_choices(), latency, np.inf, (0,))._pool(28)[1]
        return np.histogram(found, bins=5, range=(pool_ms[0], pool_ms[-1]))[0] / len(found)

    assert shares(EvenlyOverLatency(all_choices(), latency, np.inf, (0,))).min() > 0.15
    assert shares(Uniform(all_choices())).min() < 0.05


def test_nothing_beyond_the_limit_is_drawn(latency):
    limit_ms = float(np.quantile(latency.predict(TINY.sample(500, np.random.default_rng(0))), 0.2))
    drawn = draw(EvenlyOverLatency(all_choices(), latency, limit_ms, (0,)), 300)
    assert latency.predict(TINY.encode(drawn)).max() <= limit_ms


def test_another_seed_knows_other_networks_and_the_same_one_the_same(latency):
    known = [
        {str(each) for each in draw(EvenlyOverLatency(all_choices(), latency, np.inf, seed), 2000)}
        for seed in ((0, 1, 0), (0, 1, 0), (0, 1, 1))
    ]
    assert known[0] == known[1]
    assert len(known[0] & known[2]) < 0.2 * len(known[0])


def test_under_a_tight_limit_many_networks_are_known(latency):
    limit_ms = 1.1 * latency.cheapest([28])[0]
    drawn = draw(EvenlyOverLatency(all_choices(), latency, limit_ms, (0,)), 2000)
    assert latency.predict(TINY.encode(drawn)).max() <= limit_ms
    assert len({str(each) for each in drawn}) > 180


def test_a_stage_beyond_the_limit_draws_no_choice_that_is_of_no_use(make_table):
    path = make_table("tiny", TINY.resolutions_px)
    with LatencyTable.read(path) as table:
        smallest_ms = LatencyModel(table, TINY).cheapest()[0]
    plan = Plan.of(Options("tiny", "digits", "progressive", table=path, max_latency_ms=1.27 * smallest_ms))
    sampler = plan.sampler(plan.stages[1], (0, 1, 0))
    assert isinstance(sampler, Uniform)
    genes = TINY.encode(draw(sampler, 500, plan.resolutions_px[0])).genes
    kernels = [(row, choices) for row, choices in enumerate(plan.unused[:9]) if 0 < len(choices) < 3]
    assert kernels
    for row, choices in kernels:
        assert not np.isin(genes[row], choices).any()


def test_choices_that_no_network_within_the_limit_has_are_left_out(latency):
    """Held against many networks: none that is within has such a choice where it counts."""
    smallest_ms = latency.cheapest()[0]
    limit_ms = 1.15 * smallest_ms
    unused = unused_choices(latency, TINY, limit_ms, TINY.resolutions_px)
    assert sum(map(len, unused)) > 0
    many = TINY.canonical(TINY.sample_spread(200_000, np.random.default_rng(1)))
    within = many.genes[:, latency.predict(many) <= limit_ms]
    assert within.shape[1] > 100
    for row, choices in enumerate(unused[:-1]):
        assert not np.isin(within[row], choices[choices > 0]).any()  # genes of absent blocks are 0 too


def test_a_limit_that_nothing_is_within(latency):
    with pytest.raises(LimitUnreachable, match=r"no network of tiny at .* is within 0\.0001 ms; the smallest latency"):
        unused_choices(latency, TINY, 1e-4, TINY.resolutions_px)
