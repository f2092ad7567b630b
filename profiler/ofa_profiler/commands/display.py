"""What the commands share in looks: tables that are printed whole."""

from pathlib import Path

import click
from rich import box
from rich.console import Console
from rich.table import Table

from ofa_nas.cli import answer

TABLE = click.Path(path_type=Path)


def columns(first: str, *others: str) -> Table:
    """The first column to the left, figures to the right, nothing cut: keys are there to be copied."""
    columns = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    columns.add_column(first, no_wrap=True)
    for name in others:
        columns.add_column(name, justify="left" if name == "flags" else "right", no_wrap=True)
    return columns


def print_wide(listing: Table) -> None:
    """As wide as it needs, also where the terminal is narrower, or there is none."""
    unbounded = answer.options.update(max_width=10_000)
    width = answer.measure(listing, options=unbounded).maximum
    Console(highlight=False, width=max(1, width)).print(listing)
