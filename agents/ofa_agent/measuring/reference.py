"""The reference job, whose latency around a trial shows the device speed."""

from typing import Any, List, Optional

from ofa_agent import runtimes
from ofa_agent.measuring import timing
from ofa_agent.protocol import messages as wire
from ofa_agent.text import one_line


class Reference:
    """The reference job, which stays loaded between trials and measures the device speed."""

    def __init__(self) -> None:
        self._job = b""
        self._loaded: Optional[runtimes.Loaded] = None
        self._spent_ns = 0
        self._samples_ns: List[int] = []
        self.error = ""

    def load(self, job: Any, model_path: str) -> None:
        """Load the reference job if it differs from the loaded one.

        A failure sets ``error``; the device speed is then unknown.
        """
        if job.SerializeToString() == self._job:
            return
        if self._loaded is not None:
            self._loaded.close()
        self._job, self._loaded, self.error = job.SerializeToString(), None, ""
        if not job.key:
            return
        try:
            self._loaded = runtimes.find(job.settings.runtime).load(wire.job_block(job), job, model_path)
            self._loaded.run()
        except Exception as error:
            self._loaded, self.error = None, one_line("%s: %s" % (type(error).__name__, error))

    def time_ns(self) -> int:
        """Return the median of a few runs in ns; 0 without a reference job."""
        if self._loaded is None:
            return 0
        start = timing.clock_ns()
        samples_ns = timing.time_reference(self._loaded.run, timing.clock_ns)
        self._spent_ns += timing.clock_ns() - start
        self._samples_ns += samples_ns
        return int(timing.median(samples_ns))

    def mean_ns(self) -> int:
        """Return the mean of the runs since the last call, in ns; 0 if there were none."""
        samples_ns, self._samples_ns = self._samples_ns, []
        return sum(samples_ns) // max(1, len(samples_ns))

    def spent_ns(self) -> int:
        """Return the time spent in the reference job since the last call, in ns."""
        spent_ns, self._spent_ns = self._spent_ns, 0
        return spent_ns
