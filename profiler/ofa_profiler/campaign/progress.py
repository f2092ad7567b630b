"""Progress of a campaign that nobody watches."""

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from ofa_profiler.campaign.campaign import Progress
from ofa_tables.store.measurement import Measurement

ShowProgress = Callable[[str], AbstractContextManager[Progress]]


class NoProgress:
    """Progress that is not shown."""

    def begin(self, trials: int) -> None: ...

    def measured(self, measurement: Measurement, trials_left: int) -> None: ...

    def say(self, text: str) -> None: ...


def silent(text: str) -> None:
    """Print nothing."""


@contextlib.contextmanager
def no_progress(noun: str) -> Iterator[Progress]:
    yield NoProgress()
