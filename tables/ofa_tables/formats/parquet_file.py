"""Parquet: the rows and columns of CSV; the identity of the table is kept in pandas' ``attrs``."""

import io
from pathlib import Path

from ofa_tables.errors import OfaError
from ofa_tables.formats.format import Format
from ofa_tables.formats.frame import entries_frame
from ofa_tables.model.space import Space
from ofa_tables.table import LatencyTable


def write(table: LatencyTable, out: Path, space: Space | None) -> dict[Path, bytes]:
    """Write one file. Raises OfaError if pyarrow is not installed."""
    try:
        import pyarrow  # noqa: F401
    except ImportError:
        raise OfaError("parquet needs pyarrow; run pip install 'ofa-profile[parquet]' or use --format csv") from None
    buffer = io.BytesIO()
    entries_frame(table, space).to_parquet(buffer, engine="pyarrow", index=False)
    return {out: buffer.getvalue()}


FORMAT = Format("parquet", None, write)
