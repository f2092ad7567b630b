"""Speed correction, with a synthetic device."""

import numpy as np
import pytest

from ofa_tables.estimates.device_speed import SpeedErrors, at_table_speed, usual_reference_ms
from ofa_tables.store.measurement import Measurement, statistics

BLOCKS = {f"block {index}": 0.1 * (index + 1) for index in range(30)}


class Device:
    """Slows down as a whole. Its reference job follows with noise and with another elasticity than its blocks."""

    def __init__(self, seed=0, noise=0.02, reference_noise=0.02, elasticity=1.0):
        self._rng = np.random.default_rng(seed)
        self._noise, self._reference_noise, self._elasticity = noise, reference_noise, elasticity
        self.measurements = []

    def trial(self, keys, speed, prefix="network "):
        """Add one trial that times these blocks; a single block is timed alone."""
        name = f"{prefix}{len(self.measurements)}"
        reference_ns = round(2e6 * speed * np.exp(self._rng.normal(0, self._reference_noise)))
        slow = speed**self._elasticity
        for index, key in enumerate(keys):
            took_ns = 1e6 * BLOCKS[key] * slow * np.exp(self._rng.normal(0, self._noise))
            self.measurements.append(
                Measurement(
                    name if len(keys) == 1 else f"{name}/{index}",
                    key,
                    reference_before_ns=reference_ns,
                    reference_after_ns=reference_ns,
                    **statistics([round(took_ns)]),
                )
            )

    def off(self):
        """Return the relative error of each corrected measurement."""
        reference_ms = usual_reference_ms(self.measurements)
        usual = (reference_ms / 2) ** self._elasticity
        return np.array(
            [m.median_ms / (BLOCKS[m.key] * usual) - 1 for m in at_table_speed(self.measurements, reference_ms)]
        )


def in_networks(device, trials=40, slowdowns=(0.8, 1.0, 1.2)):
    rng = np.random.default_rng(1)
    for number in range(trials):
        device.trial(list(rng.choice(list(BLOCKS), 20, replace=False)), slowdowns[number % len(slowdowns)])
    return device


def test_other_blocks_of_a_trial_reduce_the_noise_of_the_reference():
    """With only the reference, its error of 10 % would be the error of the blocks."""
    assert np.std(in_networks(Device(reference_noise=0.1)).off()) < 0.05


@pytest.mark.parametrize("elasticity", [0.6, 1.3])
def test_elasticities_other_than_one_are_corrected(elasticity):
    off = in_networks(Device(reference_noise=0.0, elasticity=elasticity)).off()
    assert np.std(off) < 0.03
    assert abs(np.median(off)) < 0.01


def test_blocks_timed_alone_have_the_error_of_the_reference():
    device = Device(reference_noise=0.05, noise=0.0)
    for number in range(90):
        device.trial([list(BLOCKS)[number % 3]], (0.8, 1.0, 1.2)[number // 3 % 3])
    assert np.std(device.off()) == pytest.approx(0.05, rel=0.4)


def test_a_block_does_not_affect_its_own_correction():
    """Otherwise the correction would hide part of the spread between trials."""
    off = in_networks(Device(noise=0.05), trials=200).off()
    assert np.std(off) == pytest.approx(0.05, rel=0.15)


def test_one_outlier_hardly_affects_the_other_blocks():
    device = in_networks(Device(noise=0.01, reference_noise=0.01))
    spoilt = device.measurements[5]
    device.measurements[5] = Measurement(
        spoilt.trial_id,
        spoilt.key,
        reference_before_ns=spoilt.reference_before_ns,
        reference_after_ns=spoilt.reference_after_ns,
        **statistics([round(50e6 * spoilt.median_ms)]),
    )
    off = np.delete(device.off(), 5)
    assert np.abs(off[:19]).max() < 0.05


def test_the_elasticity_of_networks_may_depend_on_their_latency():
    """The elasticity is linear in the logarithm of the latency."""
    lengths_ms = np.geomspace(1, 10, 100)
    elasticities = 1 + 0.2 * np.log(3.0 / lengths_ms)
    measurements = []
    for speed in (0.7, 1.0, 1.1):
        for number, (length_ms, elasticity) in enumerate(zip(lengths_ms, elasticities, strict=True)):
            reference = dict.fromkeys(("reference_before_ns", "reference_after_ns"), round(2e6 * speed))
            samples = statistics([round(1e6 * length_ms * speed**elasticity)])
            measurements.append(Measurement(f"{speed} {number}", f"network:{number}", **reference, **samples))
    figures = np.array([m.median_ms for m in at_table_speed(measurements, 2.0)]).reshape(3, -1)
    assert np.abs(figures / lengths_ms - 1).max() < 0.03


def test_measurements_without_a_reference_do_not_change(trial):
    measurements = [trial("k", 1.0), trial("k", 3.0)]
    assert at_table_speed(measurements, usual_reference_ms(measurements)) == measurements


def test_failures_keep_their_position(trial, failed_trial):
    reference = dict.fromkeys(("reference_before_ns", "reference_after_ns"), 1_000_000)
    measurements = [trial("k", 1.0, **reference), failed_trial("k"), trial("k", 1.0, **reference)]
    assert [m.status for m in at_table_speed(measurements, 1.0)] == ["ok", "unsupported", "ok"]


def test_more_trials_reduce_the_error_of_the_speed_correction():
    few, many = (in_networks(Device(reference_noise=0.1), trials=trials).measurements for trials in (10, 200))
    errors = []
    for measurements in (few, many):
        scaled = at_table_speed(measurements, usual_reference_ms(measurements))
        errors.append(SpeedErrors(measurements, scaled)(scaled[:20]))
    assert errors[0] > errors[1] > 0


def test_blocks_timed_alone_have_no_common_speed_error(trial):
    reference = dict.fromkeys(("reference_before_ns", "reference_after_ns"), 1_000_000)
    measurements = [trial("k", 1.0, **reference) for _ in range(5)]
    assert SpeedErrors(measurements, at_table_speed(measurements, 1.0))(measurements) == 0
