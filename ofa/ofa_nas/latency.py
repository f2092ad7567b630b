"""A table's figures, where the table itself is not needed any more."""

from pathlib import Path

from ofa_nas.spaces import Space
from ofa_tables.model import LatencyModel
from ofa_tables.table import LatencyTable


def read_model(path: Path, space: Space) -> LatencyModel:
    """Of a table that is closed again. Raises TableError."""
    with LatencyTable.read(path) as table:
        return LatencyModel.calibrated(table, space)
