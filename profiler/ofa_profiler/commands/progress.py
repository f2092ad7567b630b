"""Progress on standard error: a bar in a terminal, periodic lines elsewhere."""

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from ofa_nas.cli import LINE_S, NowAndThen, duration
from ofa_tables.store.measurement import Measurement
from ofa_tables.words import counted

# Drawing takes processor time, and the host may be the device: redraw at most this often.
REDRAW_S = 0.5
LABEL_WIDTH = 44
WIDE = 120  # columns of a terminal that has room for the key of the current trial


class CampaignProgress:
    """Progress display of a campaign: trials, time left, and flags. A context manager."""

    def __init__(self, console: Console, noun: str) -> None:
        self._console = console
        self._noun = noun
        self._bar = Progress(
            TextColumn("{task.fields[noun]}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            TextColumn("[yellow]{task.fields[flags]}[/]"),
            *([TextColumn("[dim]{task.fields[key]}[/]")] if console.width >= WIDE else []),
            console=console,
            auto_refresh=False,
            transient=True,
        )
        self._task = self._bar.add_task("", total=None, noun=noun, flags="", key="", visible=False)
        self._due = NowAndThen(REDRAW_S if console.is_terminal else LINE_S)
        self._trials = self._failed = self._cold = 0

    def __enter__(self) -> "CampaignProgress":
        return self

    def __exit__(self, *exception: object) -> None:
        if self._console.is_terminal:
            self._bar.stop()

    def begin(self, trials: int) -> None:
        self._bar.update(self._task, total=self._trials + trials, visible=True)
        if self._console.is_terminal:
            self._bar.start()
        else:
            self.say(f"{self._noun}: {counted(trials, 'trial')} to run")

    def measured(self, measurement: Measurement, trials_left: int) -> None:
        self._trials += 1
        self._failed += not measurement.ok
        self._cold += measurement.ok and not measurement.warm
        self._bar.update(
            self._task,
            completed=self._trials,
            total=self._trials + trials_left,
            key=_short(measurement.key),
            flags=self._flags(),
        )
        if not measurement.ok:
            self.say(f"[yellow]{measurement.status}[/]: {escape(measurement.key)}: {escape(measurement.error)}")
        if not self._due():
            return
        if self._console.is_terminal:
            self._bar.refresh()
        else:
            trials = counted(self._trials + trials_left, "trial")
            self.say(f"{self._noun}: {self._trials} of {trials}{self._time_left()}{self._flags()}")

    def say(self, text: str) -> None:
        self._console.print(text)

    def _time_left(self) -> str:
        left_s = self._bar.tasks[self._task].time_remaining
        return "" if left_s is None else f", {duration(left_s)} left"

    def _flags(self) -> str:
        parts = [
            f"{count} {name}" for count, name in ((self._failed, "failed"), (self._cold, "not warm in time")) if count
        ]
        return " · " + ", ".join(parts) if parts else ""


def _short(key: str) -> str:
    return key if len(key) <= LABEL_WIDTH else key[: LABEL_WIDTH - 1] + "…"
