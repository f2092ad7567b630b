"""The report of a comparison: one HTML page that needs nothing beside it, and the same networks as CSV.

Pulls in matplotlib, pandas and jinja2: import it only when a report is to be written.
"""

from pathlib import Path

from ofa_profiler.comparison.statistics import CSV, Comparison
from ofa_profiler.report.front import write_front
from ofa_profiler.report.page import render
from ofa_profiler.report.rows import rows
from ofa_tables.errors import FileError
from ofa_tables.store.files import replacing

__all__ = ["write_front", "write_report"]


def write_report(comparison: Comparison, folder: Path) -> Path:
    """Writes ``report.html`` and ``comparison.csv`` into ``folder``, made if absent; returns the page's path.

    An earlier report is replaced whole or not at all. Raises FileError where the folder cannot be written.
    """
    page = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"cannot write the report to {folder}: {error.strerror or error}; choose another folder with --out"
        ) from None
    table = rows(comparison).to_csv(index=False, lineterminator="\n")
    for path, text in ((folder / CSV, table), (page, render(comparison))):
        with replacing(path) as file:
            file.write(text.encode("utf-8", "replace"))
    return page
