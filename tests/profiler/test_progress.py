"""Progress output of commands without a terminal."""

import io
import time

import pytest
from rich.console import Console

from ofa_profiler.commands.display import bar
from ofa_profiler.commands.progress import CampaignProgress
from ofa_tables.store.measurement import Measurement


@pytest.fixture
def lines_of(monkeypatch, capsys):
    """Return the lines on standard error after progress reports (second, done, total)."""

    def run(*reported, shown=True):
        now = [0.0]
        with monkeypatch.context() as patched:
            patched.setattr(time, "monotonic", lambda: now[0])
            with bar("networks evaluated", shown) as progress:
                for now[0], done, total in reported:
                    progress(done, total)
        return capsys.readouterr().err.splitlines()

    return run


def test_lines_appear_periodically_with_the_estimated_time_left(lines_of):
    reported = [(1, 300, 500), (6, 305, 500), (11, 320, 500), (15, 330, 500), (31, 360, 500), (32, 361, 500)]
    assert lines_of(*reported) == [
        "networks evaluated: 320 of 500, 90 s left",
        "networks evaluated: 360 of 500, 70 s left",
    ]


def test_no_time_left_is_shown_before_the_first_item_is_done(lines_of):
    assert lines_of((0, 0, 5), (20, 0, 5)) == ["networks evaluated: 0 of 5"]


def test_short_work_prints_no_progress(lines_of):
    assert lines_of((0, 0, 5), (9, 5, 5)) == []


def test_other_processes_print_no_progress(lines_of):
    assert lines_of((0, 0, 5), (20, 1, 5), shown=False) == []


def test_trials_are_counted_with_the_time_left(monkeypatch):
    now, file = [0.0], io.StringIO()
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    console = Console(file=file, get_time=lambda: now[0])
    with CampaignProgress(console, "measuring blocks") as progress:
        progress.begin(40)
        for trial in range(1, 13):
            now[0] = float(trial)
            progress.measured(Measurement(str(trial), "block", "ok", warm=trial > 1), 40 - trial)
    assert file.getvalue().splitlines() == [
        "measuring blocks: 40 trials to run",
        "measuring blocks: 10 of 40 trials, 30 s left · 1 not warm in time",
    ]
