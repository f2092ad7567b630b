"""Made-up devices: latencies that follow from the work of operators, and residuals that operators have in common."""

import numpy as np

from ofa_tables.estimates.physics import Works

COSTS = np.array([0.07, 0.4, 0.2, 0.1, 0.05, 2000.0, 0.3, 0.5])  # ns per unit


def log_ms(blocks, costs=COSTS, wave=0.0, phase=0.0, slower=None):
    """(blocks,) log latencies in ms; ``wave`` is the size of a residual that varies smoothly with the operators.

    ``slower`` has factors by variant, such as {"depthwise 7×7": 12}.
    """
    device = Works.of(blocks)
    factors = np.ones(len(device.units))
    for members, coordinates in device.members.values():
        factors[members] = np.exp(wave * np.sin(phase + coordinates.sum(axis=1) / 2))
    for number, variant in enumerate(device.variants):
        factors[device.variant_of == number] *= (slower or {}).get(variant, 1.0)
    return np.log(device.counts @ (factors * (device.units @ costs)) / 1e6)
