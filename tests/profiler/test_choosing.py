"""Which trials are chosen, on a made-up device."""

from dataclasses import replace

import numpy as np
import pytest
from made_up import log_ms

from ofa_nas.spaces import find_space
from ofa_profiler.campaign.choosing import Targets, block_candidates, choose, network_candidates
from ofa_profiler.campaign.profile import has_stalled
from ofa_tables.estimates.prior import Hypotheses

SPACE = find_space("compofa-elastic-w1.0")
BLOCKS = list({block.key: block for px in (160, 192) for block in SPACE.blocks(px)}.values())
TARGETS = Targets.of_space(SPACE, (160, 192), [block.key for block in BLOCKS])
HYPOTHESES = Hypotheses(BLOCKS)
TRUTH = log_ms(BLOCKS, wave=0.1)


def fit(rows, error=0.003):
    return HYPOTHESES.fit(rows, TRUTH[rows], np.full(len(rows), error))


def second(_):
    return 1.0


def test_chosen_blocks_tell_more_than_random_ones():
    known = fit([0, 40])
    chosen = choose(TARGETS, known, block_candidates(known.mean, second), 0.003, seconds=12)
    assert len(chosen) == 12
    assert len({int(one.rows[0]) for one in chosen}) == 12
    after = TARGETS.half_width(fit([0, 40, *(int(one.rows[0]) for one in chosen)]))
    rng = np.random.default_rng(0)
    by_chance = [TARGETS.half_width(fit([0, 40, *rng.choice(len(BLOCKS), 12, replace=False)])) for _ in range(5)]
    assert after < np.median(by_chance)


def test_a_block_that_is_known_badly_is_chosen_several_times():
    errors = np.full(len(BLOCKS), 0.002)
    errors[30] = 0.5
    known = HYPOTHESES.fit(np.arange(len(BLOCKS)), TRUTH, errors)
    known = replace(known, covariance=np.diag(np.where(np.arange(len(BLOCKS)) == 30, 0.5, 0.002) ** 2))
    chosen = choose(TARGETS, known, block_candidates(known.mean, second), 0.5, seconds=5)
    assert [int(one.rows[0]) for one in chosen] == [30] * 5


def test_trials_no_longer_help_if_the_expected_error_stays():
    assert not has_stalled([0.05])
    assert not has_stalled([0.05, 0.049, 0.04])
    assert has_stalled([0.05, 0.049, 0.048])
    assert has_stalled([0.08, 0.04, 0.05, 0.05])


def test_what_is_cheap_is_preferred():
    known = fit([0, 40])
    dear = {int(choose(TARGETS, known, block_candidates(known.mean, second), 0.003, 0.0)[0].rows[0])}
    candidates = [
        replace(one, seconds=100.0) if int(one.rows[0]) in dear else one for one in block_candidates(known.mean, second)
    ]
    assert not dear & {int(one.rows[0]) for one in choose(TARGETS, known, candidates, 0.003, 5)}


def test_the_time_is_kept():
    known = fit([0, 40])
    candidates = network_candidates(TARGETS, lambda ms: 0.1 + ms, known.mean, np.random.default_rng(0))
    chosen = choose(TARGETS, known, candidates, 0.06, seconds=20 * candidates[0].seconds)
    assert len(chosen) > 5
    assert sum(one.seconds for one in chosen) <= 20 * candidates[0].seconds


def test_without_time_there_is_still_one_trial():
    known = fit([0, 40])
    assert len(choose(TARGETS, known, block_candidates(known.mean, second), 0.003, seconds=0.0)) == 1


def test_networks_are_drawn_at_the_wanted_resolutions():
    known = fit([0, 40])
    candidates = network_candidates(TARGETS, second, known.mean, np.random.default_rng(0))
    assert {one.network.resolution_px for one in candidates} == {160, 192}
    for one in candidates[:5]:
        assert [BLOCKS[row].key for row in one.rows] == [block.key for block in SPACE.network_blocks(one.network)]


def test_the_expected_error_falls_with_what_is_known():
    widths = [TARGETS.half_width(fit(list(range(0, len(BLOCKS), step)))) for step in (20, 8, 2)]
    assert widths == sorted(widths, reverse=True)
    assert widths[-1] < 0.03


def test_what_all_networks_have_in_common_is_not_an_error():
    mixture = fit(list(range(0, len(BLOCKS), 4)))
    slower = mixture.covariance + 0.2**2
    assert TARGETS.half_width(replace(mixture, covariance=slower)) == pytest.approx(TARGETS.half_width(mixture))
