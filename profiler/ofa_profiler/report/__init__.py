"""Reports: self-contained HTML pages, and the same figures as CSV.

Imports matplotlib, pandas, and jinja2, which is slow: import this package only to write a report.
"""

from pathlib import Path

from ofa_profiler.comparison.statistics import CSV, Comparison
from ofa_profiler.report.front import write_front
from ofa_profiler.report.models import write_models
from ofa_profiler.report.page import render
from ofa_profiler.report.rows import rows
from ofa_tables.errors import FileError
from ofa_tables.store.files import replacing

__all__ = ["write_front", "write_models", "write_report"]


def write_report(comparison: Comparison, folder: Path) -> Path:
    """Write ``report.html`` and ``comparison.csv`` to ``folder``, and return the path of the page.

    The folder is created if needed. Each existing file is replaced atomically. Raises FileError if the folder cannot be
    written.
    """
    page = folder / "report.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(
            f"cannot write the report to {folder}: {error.strerror or error}; use --out to choose another directory"
        ) from None
    table = rows(comparison).to_csv(index=False, lineterminator="\n")
    for path, text in ((folder / CSV, table), (page, render(comparison))):
        with replacing(path) as file:
            file.write(text.encode("utf-8", "replace"))
    return page
