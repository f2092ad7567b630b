"""Shared output of the commands: listings and progress bars."""

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import click
from rich import box
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from ofa_nas.cli import NowAndThen, PlainConsole, answer, console, duration, say

TABLE = click.Path(path_type=Path)


@contextlib.contextmanager
def bar(text: str, shown: bool = True) -> Iterator[Callable[[int, int], None]]:
    """Show progress as a bar in a terminal, and as periodic lines elsewhere. Yields a function of (done, total)."""
    if not (shown and console.is_terminal):
        yield _Lines(text) if shown else lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as drawn:
        task = drawn.add_task(text, total=None)
        yield lambda done, total: drawn.update(task, completed=done, total=total)


class _Lines:
    """Progress lines with the time left, which is estimated from the work since the first call."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._due = NowAndThen()
        self._began: tuple[float, int] | None = None

    def __call__(self, done: int, total: int) -> None:
        now = time.monotonic()
        started, before = self._began = self._began or (now, done)
        if not self._due():
            return
        left_s = (now - started) / (done - before) * (total - done) if done > before else None
        say(f"{self._text}: {done} of {total}{'' if left_s is None else f', {duration(left_s)} left'}")


def columns(first: str, *others: str) -> Table:
    """Make a listing: first column left, others right. Nothing is truncated, so that keys can be copied."""
    columns = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    columns.add_column(first, no_wrap=True)
    for name in others:
        columns.add_column(name, justify="left" if name == "flags" else "right", no_wrap=True)
    return columns


def engine_lines(engine: Mapping[str, Any]) -> list[str]:
    """Describe the parameters of an engine, one line each."""
    lines = []
    for name, value in engine.items():
        rates = value.items() if isinstance(value, Mapping) else [("", value)]
        lines.append(
            f"{name} = " + ", ".join(f"{rate:.6g}{f' ({size}×{size})' if size else ''}" for size, rate in rates)
        )
    return lines


def print_wide(listing: Table) -> None:
    """Print a listing at its full width, even if the terminal is narrower."""
    unbounded = answer.options.update(max_width=10_000)
    width = answer.measure(listing, options=unbounded).maximum
    PlainConsole(highlight=False, width=max(1, width)).print(listing)
