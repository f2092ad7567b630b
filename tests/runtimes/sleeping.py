"""Runtimes that sleep instead of computing, for tests of what happens around a measurement.

They are not a model of any device. They load quickly, and several can run side by side without disturbing each other.
"""

import time

import numpy as np

from ofa_agent.measuring.parts import Profiled
from ofa_agent.runtimes import Loaded, LoadedProfiled

SECONDS_PER_MAC = 5e-12
SHARE_OF_OTHER_OPERATORS = 0.01  # of operators without MACs, so that every part has a latency


class _Sleep(LoadedProfiled):
    def __init__(self, seconds, shares):
        self._seconds = seconds
        self._shares = shares
        self._runs_ns = []

    def run(self):
        begin = time.perf_counter_ns()
        time.sleep(self._seconds)
        self._runs_ns.append(time.perf_counter_ns() - begin)

    def operator_times(self):
        return Profiled(np.outer(self._runs_ns, self._shares), np.ones(len(self._shares)), pure=True)


class ByMacs:
    """The latency of a block is proportional to its MACs; it reports operator times."""

    def version(self):
        return "1.0"

    def load(self, block, job, model_path) -> Loaded:
        return self.load_profiled(block, job, model_path)

    def load_profiled(self, block, job, model_path):
        assert model_path
        macs = np.array(
            [operator.macs(shape) for operator, shape in zip(block.operators, block.shapes[:-1], strict=True)],
            dtype=float,
        )
        shares = np.maximum(macs, SHARE_OF_OTHER_OPERATORS * macs.mean() + 1.0)
        return _Sleep(max(block.macs, 1) * SECONDS_PER_MAC, shares / shares.sum())


class Steady:
    """Every block takes 4 ms."""

    def version(self):
        return "1.0"

    def load(self, block, job, model_path):
        assert model_path
        return _Sleep(0.004, np.ones(1))


by_macs, steady = ByMacs(), Steady()
