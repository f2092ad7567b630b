"""Table formats by name. Other distributions can add formats with the entry point group ``ofa_tables.formats``."""

from ofa_tables import plugins
from ofa_tables.formats import csv_file, ofa_yaml, parquet_file
from ofa_tables.formats.format import Format, PublishedEntry

__all__ = ["Format", "PublishedEntry", "find_format", "format_names"]

_BUILT_IN: dict[str, Format] = {
    format.name: format for format in (ofa_yaml.FORMAT, csv_file.FORMAT, parquet_file.FORMAT)
}


def format_names(method: str) -> list[str]:
    """Return the names of the built-in formats with this method, ``read`` or ``write``."""
    return [name for name, format in _BUILT_IN.items() if getattr(format, method) is not None]


def find_format(name: str) -> Format:
    """Return the format with this name. Raises UnknownName, which suggests similar names."""
    format: Format = plugins.find("format", "ofa_tables.formats", name, _BUILT_IN)
    return format
