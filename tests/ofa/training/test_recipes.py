import math

import pytest

from ofa_nas.spaces import find_space
from ofa_nas.training.recipes import stages_of
from ofa_nas.training.schedule import learning_rate
from ofa_tables.errors import UnknownName, UsageError

MBV3, COMPOFA = find_space("ofa-mbv3-w1.0"), find_space("compofa-elastic-w1.0")


def test_the_papers_epochs():
    assert sum(stage.epochs for stage in stages_of("progressive", MBV3, 1)) == 605
    assert sum(stage.epochs for stage in stages_of("compound", COMPOFA, 1)) == 330


def test_progressive_shrinking_opens_kernels_then_depths_then_widths():
    opened = [(s.choices("ks") > 1, s.choices("d") > 1, s.choices("e") > 1) for s in stages_of("progressive", MBV3, 1)]
    assert opened == [
        (False, False, False),
        (True, False, False),
        (True, True, False),
        (True, True, False),
        (True, True, True),
        (True, True, True),
    ]
    assert [stage.sub_networks for stage in stages_of("progressive", MBV3, 1)] == [1, 1, 2, 2, 4, 4]
    assert [stage.distilled for stage in stages_of("progressive", MBV3, 1)] == [False] + 5 * [True]


def test_none_has_the_same_epochs_and_sub_networks_without_a_teacher():
    none, progressive = (stages_of(recipe, MBV3, 1) for recipe in ("none", "progressive"))
    assert [(s.epochs, s.sub_networks, s.rate) for s in none] == [
        (s.epochs, s.sub_networks, s.rate) for s in progressive
    ]
    assert not any(stage.distilled or stage.trains_one for stage in none)


def test_a_stage_has_one_epoch_at_least():
    assert {stage.epochs for stage in stages_of("progressive", MBV3, 1e-6)} == {1}


def test_ratios_that_a_stage_trains():
    stages = stages_of("progressive", MBV3, 1)
    assert [stage.ratios(MBV3) for stage in stages] == [(6,)] * 4 + [(4, 6), (3, 4, 6)]
    assert [stage.ratios(COMPOFA) for stage in stages_of("compound", COMPOFA, 1)][:2] == [(6,), (3, 4, 6)]


def test_the_compound_recipe_wants_a_tied_space():
    with pytest.raises(
        UsageError, match=r"compound recipe ties a stage's expand ratio to its depth, and ofa-mbv3-w1\.0"
    ):
        stages_of("compound", MBV3, 1)


def test_an_unknown_recipe():
    with pytest.raises(UnknownName, match="no recipe named 'progresive'; did you mean progressive"):
        stages_of("progresive", MBV3, 1)


def test_the_rate_warms_up_and_falls_like_a_cosine():
    rates = [learning_rate(step, 110, 10, 2.0) for step in range(110)]
    assert rates[0] == pytest.approx(0.2)
    assert rates[9] == rates[10] == 2.0
    assert rates[60] == pytest.approx(1.0)
    assert rates[109] == pytest.approx(1 - math.cos(math.pi / 100), rel=1e-6)
