"""Entries: latency, interval, flags and trials of each key."""

import math
from dataclasses import replace

import numpy as np
import pytest

from ofa_nas.spaces import find_space
from ofa_tables.errors import TableMismatch
from ofa_tables.estimates.entry import derive_entry
from ofa_tables.identity import IMPORTED, Identity, Settings
from ofa_tables.store.measurement import Measurement
from ofa_tables.table import LatencyTable

SPACE = find_space("ofa-mbv3-w1.0")


def test_the_latency_is_the_median_of_the_medians(trial):
    trials = [trial("k", 1.0, 1.0, 9.0), trial("k", 2.0, 2.0), trial("k", 3.0, 3.0, 3.0, 50.0)]
    entry = derive_entry("k", trials)
    assert entry.latency_ms == 2.0
    assert entry.spread == pytest.approx((2.5 - 1.5) / 2.0)
    assert (entry.trials, entry.samples) == (3, 9)


def test_mean_and_std_are_those_of_all_samples(trial):
    samples = [[1.0, 2.0, 6.0], [4.0, 5.0]]
    entry = derive_entry("k", [trial("k", *part) for part in samples])
    pooled = [value for part in samples for value in part]
    mean = sum(pooled) / 5
    assert entry.mean_ms == pytest.approx(mean)
    assert entry.std_ms == pytest.approx(math.sqrt(sum((value - mean) ** 2 for value in pooled) / 5))


def test_a_failed_trial_does_not_count_next_to_successful_ones(trial, failed_trial):
    entry = derive_entry("k", [failed_trial("k", "crashed"), trial("k", 2.0)])
    assert (entry.latency_ms, entry.trials, entry.failure) == (2.0, 1, "")


def test_an_entry_with_only_failures_has_no_latency(failed_trial):
    entry = derive_entry("k", [failed_trial("k")])
    assert math.isnan(entry.latency_ms)
    assert entry.flags == ("failed",)
    assert entry.failure == "unsupported: no kernel for it"


def test_an_entry_with_a_wide_interval_is_flagged(make_table, trial):
    with LatencyTable.open(make_table(without=SPACE.keys(160))) as table:
        table.add([trial("wide", median) for median in (1.0, 1.3, 1.1)])
        table.add([trial("narrow", median) for median in (1.0, 1.02, 1.01)])
        assert table.entry("wide").flags == ("unstable",)
        assert table.entry("narrow").half_width < table.entry("wide").half_width


def test_a_trial_without_complete_warm_up_is_flagged(trial):
    assert derive_entry("k", [trial("k", 1.0, warm=False)]).flags == ("cold",)


def test_trials_are_corrected_to_the_speed_of_the_table(make_table, trial):
    """A different device speed changes block and reference equally; the latency is that at the usual speed."""
    with LatencyTable.open(make_table(without=["k"])) as table:
        for speed in (1.0, 1.0, 1.0, 1.3, 0.8):
            both = dict.fromkeys(("reference_before_ns", "reference_after_ns"), round(speed * 2e6))
            table.add([trial("k", speed * 5.0, **both)])
        entry = table.entry("k")
    assert table.reference_ms == pytest.approx(2.0)
    assert (entry.latency_ms, entry.spread) == (pytest.approx(5.0), pytest.approx(0.0, abs=1e-6))


def test_a_disturbed_trial_counts_only_without_others(make_table, trial):
    disturbed = {"reference_before_ns": 2_000_000, "reference_after_ns": 2_600_000}
    steady = dict.fromkeys(disturbed, 2_300_000)
    with LatencyTable.open(make_table()) as table:
        table.add([trial("k", 9.0, **disturbed)])
        assert "disturbed" in table.entry("k").flags
        table.add([trial("k", 5.0, **steady)])
        entry = table.entry("k")
    assert (entry.latency_ms, entry.trials, entry.flags) == (pytest.approx(5.0), 1, ("few-samples",))


def test_intervals_from_few_trials_have_their_coverage(make_table, trial):
    """Of 400 entries with five trials each, 95 % have their true latency in their interval."""
    rng = np.random.default_rng(3)
    keys = [f"k{number}" for number in range(400)]
    with LatencyTable.open(make_table(without=SPACE.keys(160))) as table:
        table.add([trial(key, rng.normal(1, 0.05), round=number) for key in keys for number in range(5)])
        within = [abs(table.entry(key).latency_ms - 1) <= table.entry(key).half_width for key in keys]
    assert 0.92 < np.mean(within) < 0.99


def test_one_trial_gives_no_interval(make_table, trial):
    with LatencyTable.open(make_table(without=SPACE.keys(160))) as table:
        table.add([trial("k", 1.0)])
        assert table.entry("k").half_width is None


def test_trials_of_only_one_profiled_network_have_the_typical_interval(make_table, trial):
    with LatencyTable.open(make_table(without=SPACE.keys(160))) as table:
        for number, sample in enumerate((1.0, 1.1, 1.2, 1.0)):
            name = f"network:{number}"
            table.add([trial(name, 9.0, trial_id=f"v{number}"), trial("k", sample, trial_id=f"v{number}/1")])
            table.add([trial("network:one", 9.0, trial_id=f"w{number}"), trial("j", sample, trial_id=f"w{number}/1")])
        table.add([trial("network:one", 9.0, trial_id="once"), trial("i", 1.0, trial_id="once/1")])
        assert table.entry("j").half_width > table.entry("k").half_width
        assert table.entry("i").half_width is None


def test_new_measurements_change_the_entries(make_table, trial):
    with LatencyTable.open(make_table()) as table:
        key = table.entries[0].key
        table.add([trial(key, 100.0) for _ in range(9)])
        assert table.entry(key).latency_ms == 100.0


def test_a_missing_or_failed_entry_is_nan(make_table, failed_trial):
    with LatencyTable.open(make_table()) as table:
        table.add([failed_trial("broken")])
        known = table.entries[0].key
        figures = table.figures_ms([known, "broken", "absent"])
        assert [math.isnan(figure) for figure in figures] == [False, True, True]


def test_a_published_latency_for_the_resolution_is_preferred(make_table):
    with LatencyTable.open(make_table()) as table:
        for px, latency_ms in ((160, 1.0), (224, 2.0)):
            table.add([Measurement(f"v{px}", "k", resolution_px=px, median_ms=latency_ms, mean_ms=1.0, std_ms=0.0)])
        assert table.entry("k", 160).latency_ms == 1.0
        assert table.entry("k", 224).latency_ms == 2.0
        assert table.entry("k", 192) is not None
        assert table.published_resolutions_px() == [160, 224]


def test_whole_networks_are_not_entries(make_table, trial):
    with LatencyTable.open(make_table()) as table:
        before = len(table.entries)
        table.add([trial("network:abc", 30.0)])
        assert len(table.entries) == before
        assert table.entry("network:abc").latency_ms == 30.0


def test_a_network_that_was_tested_stays_a_test(make_table):
    with LatencyTable.open(make_table()) as table:
        for role in ("calibration", "test", "calibration"):
            table.store.add_network("network:abc", "s", {"r": 160}, role)
        assert table.store.networks() == [("network:abc", "s", {"r": 160}, "test")]


def test_continuing_with_other_settings_is_refused(make_table, identity):
    with LatencyTable.open(make_table()) as table:
        table.require_identity(identity)
        with pytest.raises(TableMismatch, match="threads 1 there, 4 here"):
            table.require_identity(replace(identity, settings=Settings(threads=4)))


def test_a_trial_far_from_the_usual_speed_counts_only_without_others(make_table, trial):
    """Above 40 %, the reference job does not represent other jobs."""
    with LatencyTable.open(make_table(without=SPACE.keys(160))) as table:
        for median_ms, reference_ms in ((5.0, 2.0), (5.1, 2.0), (14.0, 4.0)):
            both = dict.fromkeys(("reference_before_ns", "reference_after_ns"), round(reference_ms * 1e6))
            table.add([trial("k", median_ms, **both)])
        assert table.entry("k").trials == 2
        assert table.entry("k").latency_ms == pytest.approx(5.05)


def test_an_interrupted_trial_counts_only_without_others(make_table, trial):
    """The median of the reference is unchanged, because its iterations are shorter than a scheduler time slice."""
    both = dict.fromkeys(("reference_before_ns", "reference_after_ns"), 2_000_000)
    with LatencyTable.open(make_table(without=SPACE.keys(160))) as table:
        for median_ms, mean_ms in ((5.0, 2.1), (5.1, 2.1), (6.5, 4.0)):
            table.add([trial("k", median_ms, condition=f'{{"reference_mean_ms": {mean_ms}}}', **both)])
        assert table.entry("k").trials == 2
        assert table.entry("k").latency_ms == pytest.approx(5.05)


def test_trials_of_one_profiled_network_count_as_one(make_table, trial):
    """The block has the same neighbours in each, so two trials in one network say less than trials in two networks."""
    samples = [1.0, 1.0, 1.2, 1.2, 1.1, 1.1]

    def half_width(profiled_networks):
        with LatencyTable.open(make_table(f"{len(set(profiled_networks))}.lut")) as table:
            for number, (name, sample) in enumerate(zip(profiled_networks, samples, strict=True)):
                table.add([trial(f"network:{name}", 9.0, trial_id=f"v{number}")])
                table.add([trial("k", sample, trial_id=f"v{number}/1")])
            return table.entry("k").half_width

    assert half_width("aabbcc") > half_width("abcdef")


def test_settings_that_an_imported_table_does_not_have_are_no_difference():
    imported = Identity("pixel", "imported", IMPORTED, "")
    measured = Identity("pixel", "imported", "onnxruntime", "1", Settings("fp32", 4, 2), "in-networks")
    assert all(line.startswith("runtime") for line in imported.differences(measured))
