"""What came over the wire, as it is kept."""

import json

import pytest

from ofa_agent.protocol import messages as wire
from ofa_profiler.campaign.decoding import measurement_of, parts_of
from ofa_tables.store.measurement import HOT, THROTTLED


def message(**fields):
    return wire.Measurement(trial_id="v", key="network:n", status="ok", samples_ns=[90, 100, 110], **fields)


def test_a_network_that_was_timed_in_parts_is_a_measurement_of_each():
    timed = message(reference_before_parts_ns=10, reference_before_ns=20, reference_after_ns=30)
    for key, samples in (("a", [10, 12]), ("b", [50, 52]), ("a", [14, 16])):
        timed.parts.add(key=key, samples_ns=samples)
    whole = measurement_of(timed, 4)
    parts = parts_of(timed, whole)
    assert [(part.trial_id, part.key, part.round, part.count) for part in parts] == [
        ("v/0", "a", 4, 4),
        ("v/1", "b", 4, 2),
    ]
    assert parts[0].median_ms == pytest.approx(13e-6)
    assert (whole.reference_before_ns, whole.reference_after_ns) == (20, 30)
    assert (parts[0].reference_before_ns, parts[0].reference_after_ns) == (10, 20)


def test_a_trial_carries_the_devices_condition_before_and_after():
    before = wire.Condition(clock_mhz=2000, temperatures_c={"a": 50, "b": 40}, load=0.5, involuntary_switches=7)
    after = wire.Condition(clock_mhz=1500, temperatures_c={"a": 52, "b": 60}, load=1.0, involuntary_switches=19)
    after.hot, after.throttle_count, after.stolen_s = True, 3, 0.25
    kept = measurement_of(message(condition_before=before, condition_after=after, cooled_s=4.0), 0)
    assert json.loads(kept.condition) == {
        "clock_mhz": [2000, 1500],
        "temperature_c": [50, 60],
        "load": [0.5, 1.0],
        "stolen_s": 0.25,
        "involuntary_switches": 12,
        "cooled_s": 4.0,
        "hot": True,
        "throttled": True,
    }
    assert (kept.was(HOT), kept.was(THROTTLED)) == (True, True)


def test_unknown_values_of_a_device_are_not_kept():
    kept = measurement_of(message(), 0)
    assert (kept.condition, kept.was(HOT), kept.was(THROTTLED)) == ("{}", False, False)


def test_layers_of_a_model_file_keep_their_keys_in_another_order():
    """A runtime may execute independent layers in another order, and may give several layers one name."""

    def keys(*layers):
        message = wire.Measurement(trial_id="t", key="network:file/m@0f", status="ok", samples_ns=[100])
        for name, operator in layers:
            message.layers.add(name=name, operator=operator, bytes=8, samples_ns=[10])
        return [part.key for part in parts_of(message, measurement_of(message, 0))]

    one, two, copy = ("one", "Conv"), ("two", "Conv"), ("copy", "Reorder")
    assert keys(copy, one, copy, two) == [
        "layer:0f/0 Reorder 8 copy",
        "layer:0f/0 Conv 8 one",
        "layer:0f/1 Reorder 8 copy",
        "layer:0f/0 Conv 8 two",
    ]
    assert sorted(keys(two, copy, copy, one)) == sorted(keys(copy, one, copy, two))
