"""Notice that nothing can be measured: every trial fails for the same reason."""

import re
from collections import defaultdict

from ofa_tables.errors import DeviceError
from ofa_tables.store.measurement import Measurement

SAME = 8  # jobs that fail alike before any succeeds; they come in random order
# Keys of networks and blocks, which differ between failures of the same kind.
KEY = re.compile(r"network:[0-9a-f]+|\b[\w-]*input:\S+")


class HopelessCheck:
    """Watches the trials of a campaign until the first one succeeds."""

    def __init__(self) -> None:
        self._over = False
        self._jobs: dict[str, set[str]] = defaultdict(set)

    def watch(self, measurement: Measurement) -> None:
        """Raises DeviceError if SAME jobs failed for one reason and none succeeded."""
        self._over = self._over or measurement.ok
        if self._over:
            return
        reason = f"{measurement.status}: {measurement.error}"
        alike = self._jobs[KEY.sub("…", reason)]
        alike.add(measurement.key)
        if len(alike) >= SAME:
            raise DeviceError(
                f"nothing can be measured: the first {len(alike)} jobs failed for the same reason: {reason}"
            )
